"""Names of studies: the presets beside this file, and those that were swept from this folder.
Imports little, for shell completion."""

from __future__ import annotations

import os
from pathlib import Path

STUDIES = "lth-studies"
"""The folder of all studies that were swept from the current folder."""
FILE = "study.yaml"
"""A study as it was last swept, in its own folder."""


def presets() -> dict[str, Path]:
    """Preset study files by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def remembered(name: str) -> Path | None:
    """The file of a study as it was last swept from this folder, if it was."""
    path = Path(STUDIES).absolute() / name / FILE
    return path if os.path.isfile(path) else None


def study_names() -> list[str]:
    """Names of the presets, and of the studies that were swept from this folder."""
    swept = {path.parent.name for path in Path(STUDIES).glob(f"*/{FILE}")}
    return sorted({*presets(), *swept})
