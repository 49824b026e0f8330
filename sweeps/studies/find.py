"""Studies by file or name."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from pathlib import Path

import yaml

from lth_core.errors import SpecError
from lth_core.store import make_folder
from lth_core.store.folder import FolderFiles
from sweeps.studies.names import FILE, last_swept, presets, study_names
from sweeps.studies.reader import read_study
from sweeps.studies.schema import Study


def find_study(name: str, overrides: Sequence[str] = (), *, swept: bool = False) -> Study:
    """A study from a file, from its last sweep in this folder, or from a preset.

    Args:
        name: path of the file, or name of the study.
        swept: prefer the study as it was last swept, unless there are overrides.

    Raises:
        SpecError: there is no such study, or a field of it is wrong.
    """
    path, last, known = Path(name), last_swept(name), presets()
    if not os.path.isfile(path):  # False also where the name is too long for a file
        if last and (swept or name not in known):
            path = last
        elif name in known:
            path = known[name]
        else:
            raise SpecError("STUDY", "is neither a file nor a known study", name, study_names())
    study = read_study(path, overrides)
    last = last_swept(study.name)
    return read_study(last) if swept and last and not overrides else study


def presets_with_reference() -> list[str]:
    """Names of the presets that ship with published figures."""
    return [name for name, path in presets().items() if read_study(path).reference]


def save_swept(study: Study) -> None:
    """Store the study, with its overrides, in its folder, where later commands read it.

    Raises:
        StoreError: the folder cannot be written to.
    """
    text = yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    FolderFiles(make_folder(study.folder())).write(FILE, text.encode())
