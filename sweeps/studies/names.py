"""Names of studies: the presets beside this file, and the studies swept from this folder.

Shell completion imports this module, so it imports little.
"""

from __future__ import annotations

import os
from pathlib import Path

STUDIES = "lth-studies"
"""The folder of all studies that were swept from the current folder."""
FILE = "study.yaml"
"""Name of the file, in a study's own folder, with the study as it was last swept."""


def presets() -> dict[str, Path]:
    """Preset study files by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def last_swept(name: str) -> Path | None:
    """File of a study as it was last swept from this folder; None where it was not."""
    path = Path(STUDIES).absolute() / name / FILE
    return path if os.path.isfile(path) else None


def study_names() -> list[str]:
    """Names of the presets, and of the studies that were swept from this folder."""
    swept = {path.parent.name for path in Path(STUDIES).glob(f"*/{FILE}")}
    return sorted({*presets(), *swept})
