"""Artifacts of an SQLite database lie in the folder `mlartifacts` beside it, wherever both are.

MLflow stores absolute paths. After a copy or a move of the folder they would lead to the original,
so they are changed when the database is next opened here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from lth_core.errors import TrackingError

FOLDER = "mlartifacts"
"""Folder of the artifacts, beside the database; in it a folder for each study."""

_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold paths of artifacts."""


def database_file(uri: str) -> Path:
    """Absolute path of a database from its address, ``sqlite:///FILE``."""
    return Path(uri.removeprefix("sqlite:///")).expanduser().absolute()


def artifact_folder(database: Path, study: str) -> Path:
    """Folder of a study's artifacts."""
    return database.parent / FOLDER / study


def find_experiment(database: Path, study: str) -> tuple[str, set[str]]:
    """MLflow's id of a study's experiment, and the names of its tags.

    It is read without importing MLflow, which takes seconds.

    Raises:
        TrackingError: the database has no such study, or is damaged.
    """
    query = (
        "select experiment_id, key from experiments left join experiment_tags "
        "using (experiment_id) where name = ? and lifecycle_stage = 'active'"
    )
    try:
        with closing(sqlite3.connect(database)) as opened:
            found = opened.execute(query, (study,)).fetchall()
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri: {database} cannot be read: {error}") from None
    if not found:
        raise TrackingError(f"tracking.uri: {database} has no study {study}; sweep it first")
    return str(found[0][0]), {str(key) for _, key in found}


def correct_locations(database: Path) -> None:
    """Make the stored paths of artifacts lead to the folder beside the database.

    Artifacts that were never beside it stay where they are: those of experiments that the user made
    with another location.

    Raises:
        TrackingError: the database is locked for seconds, or is damaged.
    """
    try:
        with closing(sqlite3.connect(database)) as opened, opened:
            tables = {name for (name,) in opened.execute("select name from sqlite_master")}
            if "experiments" not in tables:  # MLflow makes its tables later
                return
            here = str(database.parent)
            for elsewhere in list(_former_folders(opened, here)):
                for table in tables & _COLUMNS.keys():
                    for column in _COLUMNS[table]:
                        _replace_prefix(opened, table, column, elsewhere, here)
    except sqlite3.Error as error:
        raise TrackingError(f"tracking.uri: {database} cannot be changed: {error}") from None


def _former_folders(database: sqlite3.Connection, here: str) -> Iterator[str]:
    """Folders beside whose database the experiments' artifacts were, without the one of today."""
    query = "select distinct name, artifact_location from experiments"
    for name, location in database.execute(query):
        folder = str(location).removesuffix(f"/{FOLDER}/{name}")
        if folder not in (location, here) and not _is_same(folder, here):
            yield folder


def _is_same(one: str, other: str) -> bool:
    """Whether two paths lead to one folder, such as one path through a link."""
    return os.path.exists(one) and os.path.samefile(one, other)


def _replace_prefix(
    database: sqlite3.Connection, table: str, column: str, old: str, new: str
) -> None:
    prefix = f"{old}/{FOLDER}/"
    database.execute(
        f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
        (f"{new}/{FOLDER}/", len(prefix) + 1, len(prefix), prefix),
    )
