"""Studies by file or name."""

from __future__ import annotations

import logging
import os.path
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from lth_core.errors import SpecError
from lth_core.redaction import without_secrets
from lth_core.store import make_folder
from lth_core.store.folder import FolderFiles
from sweeps.studies.names import FILE, last_swept, presets, study_names
from sweeps.studies.reader import read_study
from sweeps.studies.schema import Study

logger = logging.getLogger("lth")

COMMAND = "# lth sweep "
"""Start of the first line of a swept study's file, with the command of the sweep."""


def find_study(name: str, overrides: Sequence[str] = (), *, swept: bool = False) -> Study:
    """A study from a file, from its last sweep in this folder, or from a preset.

    Args:
        name: path of the file, or name of the study.
        swept: prefer the study as it was last swept, unless there are overrides; a warning is
            logged where a file says otherwise.

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
            rule = "is neither a file, nor a preset, nor a study that was swept in this folder"
            raise SpecError("STUDY", rule, name, study_names())
        if path == last and name in known:
            name = _shown(last)  # to `lth sweep` the name means the preset
    study = read_study(path, overrides, swept=path == last)
    last = last_swept(study.name)
    if swept and last and not overrides:
        found = read_study(last, swept=True).called(_arguments(last))
        if found != study:
            command = without_secrets(found.command())
            logger.warning(f"{name} is not the study as last swept; that is: {command}")
        return found
    return study.called(shlex.join([name, *overrides]))


def _arguments(last: Path) -> str:
    """The arguments in the file of a study's last sweep; where there are none, the file itself."""
    first = last.read_text().partition("\n")[0]
    if first.startswith(COMMAND):
        return first.removeprefix(COMMAND)
    return shlex.quote(_shown(last))


def _shown(last: Path) -> str:
    return str(last.relative_to(Path.cwd()))


def presets_with_reference() -> list[str]:
    """Names of the presets that ship with published figures."""
    return [name for name, path in presets().items() if read_study(path).reference]


def save_swept(study: Study) -> None:
    """Store the study, with its overrides and its command, in its folder; later commands read it.

    Raises:
        StoreError: the folder cannot be written to.
    """
    FolderFiles(make_folder(study.folder(), "study")).write(FILE, study_text(study).encode())


def study_text(study: Study) -> str:
    """The study, with its overrides, as a study file that begins with its command."""
    text = yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    command = without_secrets(study.command())
    return f"# {command}\n{text}" if command.isprintable() else text  # on one line
