"""Publisher of finished levels to MLflow: idempotent, keyed by the spec's digest.

The tracking address is an SQLite file or a server. A server stores the artifacts itself (``mlflow
server --artifacts-destination s3://BUCKET/PREFIX``), so that only the server needs the keys of a
bucket. The address never holds a password: MLflow reads MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD from the environment.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from lth_core.analysis.cells import Cell
from lth_core.analysis.verdict import Verdict, best_word
from lth_core.errors import TrackingError
from lth_core.redaction import without_secrets
from lth_core.results import LevelResult
from tracking.publish import names
from tracking.publish.cell_run import CellRun, cell_numbers, cell_tags, find_or_make_cell
from tracking.publish.client import RefusedError, check_address, check_database, connect
from tracking.publish.locations import artifact_folder, correct_locations, database_file
from tracking.publish.made_with import source_tags
from tracking.publish.payload import (
    branch_numbers,
    dense_numbers,
    level_digest,
    level_files,
    started_ms,
    table_numbers,
)
from tracking.publish.runs import (
    PublishedRun,
    find_or_make_experiment,
    find_or_make_run,
    published_run,
    resumed,
    runs_by_tag,
    search_runs,
    write_compared,
)
from tracking.publish.study_run import (
    StudyContent,
    is_written,
    set_status,
    write_study,
)
from tracking.publish.trial_run import TrialRun, write_level

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

RETRIES = 2
"""Retries of a refused call: another publisher may write the same trial at the same time."""

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Publisher:
    """Publisher to one experiment; pickled to workers.

    `publish` and `finish` return the trial's run after the call. Passed to the next call as
    ``published``, it saves a request; if the server refuses that call, the run is requested again.
    """

    uri: str
    """An absolute ``sqlite:///...`` or a server's address."""
    experiment: str
    """MLflow's id of the experiment."""
    study_run: str
    """MLflow's id of the study's own run."""
    source: tuple[tuple[str, str], ...] = ()
    """Tags of each run: the study's file, its commit, the user."""
    curves: bool = False
    """Whether learning curves are metrics too."""

    def publish(
        self,
        run: TrialRun,
        level: LevelResult,
        records: Sequence[Mapping[str, Any]],
        published: PublishedRun | None = None,
        files: Mapping[str, bytes] | None = None,
        *,
        live: bool = False,
    ) -> PublishedRun:
        """Write a level's metrics, curves, mask and ticket; a level already written is skipped.

        A run whose dense run has other results is deleted and made again: the store was lost, or is
        another one.

        Args:
            published: the trial's run, if known.
            files: the result of `level_files`, if known.
            live: whether the trial is being trained, so that its run is RUNNING.

        Raises:
            TrackingError: the server cannot be reached or refuses, an earlier level is missing, or
                the run has other results of a later level.
        """
        digest = level_digest(records, self.curves)

        def write(client: MlflowClient, published: PublishedRun) -> PublishedRun:
            published = resumed(client, published) if live else published
            if published.has(level.level, digest):
                return published
            if published.levels and not level.level:
                client.delete_run(published.id)
                published = self._find_or_make(client, run, level, live)
            if level.level != published.levels:
                is_later = level.level > published.levels
                rule = f"before level {published.levels}" if is_later else "over other results"
                rule = f"level {level.level} cannot be published {rule}"
                raise RefusedError(f"tracking.uri: {self.uri}: {run.name}: {rule}")
            ticket = files or level_files(level)
            return write_level(client, run, level, records, published, ticket, self.curves)

        return self._update(run, published, write, level, live)

    def finish(
        self,
        run: TrialRun,
        status: Status = "FINISHED",
        reason: str = "",
        published: PublishedRun | None = None,
    ) -> PublishedRun:
        """Set a trial's run to its outcome. A finished one keeps it; others may finish later.

        Args:
            reason: reason of the failure.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        tag = without_secrets(reason)[:1000]

        def end(client: MlflowClient, published: PublishedRun) -> PublishedRun:
            known = published.status, published.tags.get(names.FAILURE)
            if published.status == "FINISHED" or known == (status, tag):
                return published
            tags = {name: value for name, value in published.tags.items() if name != names.FAILURE}
            if status == "FAILED":
                client.set_tag(published.id, names.FAILURE, tag, synchronous=True)
                tags[names.FAILURE] = tag
            elif names.FAILURE in published.tags:
                client.delete_tag(published.id, names.FAILURE)
            # A finished trial ends with its last training, whenever it is published.
            trained = published.ended if status == "FINISHED" else 0
            ended = max(trained or int(time.time() * 1000), published.started)
            client.set_terminated(published.id, status, ended)
            return replace(published, status=status, tags=tags, ended=ended)

        return self._update(run, published, end)

    def delete(self, published: PublishedRun) -> None:
        """Delete a run, so that the next call makes it again.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            client.delete_run(published.id)

    def runs(self) -> dict[str, PublishedRun]:
        """Runs of all published trials, by key; duplicates are deleted.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            return runs_by_tag(client, self.experiment, names.KEY)

    def cells(self) -> dict[str, PublishedRun]:
        """Runs of all cells, by key; duplicates are deleted.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            cells = runs_by_tag(client, self.experiment, names.CELL)
        _cell_ids(self).clear()
        _cell_ids(self).update({key: cell.id for key, cell in cells.items()})
        return cells

    def publish_compared(
        self,
        published: PublishedRun,
        verdicts: Sequence[Verdict],
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write comparisons of a trial with others: its cell's best verdict, overlaps of tickets,
        latencies of networks, and the dense run's accuracy beside that of each level.

        Equal comparisons are written once.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        numbers = [n for row in records for n in branch_numbers(row, names.STUDY_METRICS)]
        numbers += [*dense_numbers(records), *table_numbers(verdicts, records)]
        tags = {names.VERDICT: best_word(verdicts)} if verdicts else {}
        if not numbers:
            return
        with connect(self.uri) as client:
            write_compared(client, published, numbers, tags, names.COMPARED_METRICS)

    def publish_cell(
        self,
        run: CellRun,
        cell: Cell,
        verdicts: Sequence[Verdict],
        published: PublishedRun | None,
        status: str,
        ended: int,
        retries: int = RETRIES,
    ) -> PublishedRun:
        """Write a cell's run: statistics over seeds, verdicts, status; equal ones are written once.

        Args:
            published: the cell's run, if it exists.
            status: `RUNNING` while trials of the cell are being trained.
            ended: end of its latest training in ms since 1970; 0: not known.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        try:
            with connect(self.uri) as client:
                published = published or self._find_or_make_cell(client, run, lambda: None)
                numbers, tags = list(cell_numbers(cell, verdicts)), cell_tags(verdicts)
                write_compared(client, published, numbers, tags, names.CELL_METRICS)
            ended = max(ended, published.started) if ended else 0
            if published.status != status or (ended and ended != published.ended):
                with connect(self.uri) as client:
                    set_status(client, published.id, status, ended or None)
        except RefusedError:  # another publisher made the cell's run too, and this one was deleted
            if not retries:
                raise
            return self.publish_cell(run, cell, verdicts, None, status, ended, retries - 1)
        return published

    def publish_study(self, content: StudyContent) -> None:
        """Write a study's own run; equal content is written once.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            run = client.get_run(self.study_run)
        file = None if is_written(run, content) else content.report()
        with connect(self.uri) as client:
            write_study(client, run, content, file)

    def set_tag(self, runs: Iterable[PublishedRun], tag: str, value: str) -> None:
        """Set a tag of the runs that have another value.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            for run in runs:
                if run.tags.get(tag) != value:
                    client.set_tag(run.id, tag, value, synchronous=True)

    def resume(self) -> None:
        """Set the study's run to RUNNING: trials are being trained.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            if client.get_run(self.study_run).info.status != "RUNNING":
                client.update_run(self.study_run, status="RUNNING")

    def interrupt(self, published: PublishedRun) -> PublishedRun:
        """Set a run that is RUNNING to KILLED; returns its state after the call.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        if published.status != "RUNNING":
            return published
        with connect(self.uri) as client:
            client.set_terminated(published.id, "KILLED")
        return replace(published, status="KILLED")

    def end_running(self, status: Status = "KILLED") -> None:
        """End each run that is RUNNING; a trial's run is KILLED.

        Args:
            status: status of the runs of cells and of the study.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            for run in list(search_runs(client, self.experiment, "attributes.status = 'RUNNING'")):
                if run.data.tags.keys() & {names.KEY, names.CELL, names.STUDY}:
                    is_trial = names.KEY in run.data.tags
                    client.set_terminated(run.info.run_id, "KILLED" if is_trial else status)

    def _update(
        self,
        run: TrialRun,
        published: PublishedRun | None,
        change: Callable[[MlflowClient, PublishedRun], PublishedRun],
        level: LevelResult | None = None,
        live: bool = False,
        retries: int = RETRIES,
    ) -> PublishedRun:
        """Change the trial's run; where another publisher was faster, retry on its new state."""
        try:
            with connect(self.uri) as client:
                return change(client, published or self._find_or_make(client, run, level, live))
        except RefusedError:
            if not retries:
                raise
            return self._update(run, None, change, level, live, retries - 1)

    def _find_or_make(
        self, client: MlflowClient, run: TrialRun, level: LevelResult | None, live: bool
    ) -> PublishedRun:
        """The trial's run; one that is made starts with the level's first training."""

        def started() -> int | None:
            return started_ms(level) if level else None

        cells = _cell_ids(self)
        if run.cell.key not in cells:
            cell = self._find_or_make_cell(client, run.cell, started)
            cells[run.cell.key] = (resumed(client, cell) if live else cell).id
        tags = self._tags(cells[run.cell.key], run.name)
        found = find_or_make_run(client, self.experiment, names.KEY, run.key, tags, started)
        return published_run(found)

    def _find_or_make_cell(
        self, client: MlflowClient, run: CellRun, started: Callable[[], int | None]
    ) -> PublishedRun:
        below = self._tags(self.study_run, run.name)
        return find_or_make_cell(client, self.experiment, run, below, started)

    def _tags(self, parent: str, name: str) -> dict[str, str]:
        own = {names.RUN_NAME: name[: names.LONGEST], names.SETTINGS: names.CURRENT}
        return {names.PARENT: parent, **own, **dict(self.source)}


@lru_cache(maxsize=4)
def _cell_ids(publisher: Publisher) -> dict[str, str]:
    """Ids of the runs of cells that this process knows, by key."""
    return {}


def open_publisher(
    uri: str,
    study: str,
    description: str,
    source: str = "",
    started: Callable[[], int | None] = lambda: None,
    views: Mapping[str, str] | None = None,
) -> Publisher:
    """Publisher to a study's experiment and run, both made where they are missing.

    Args:
        uri: ``sqlite:///FILE`` (relative to the current folder) or ``http(s)://...``.
        study: letters, digits, `.`, `_`, `-`; beside an SQLite file it is a folder's name too.
        source: path of the study's file.
        started: start of a study's run that is made, in ms since 1970; None: now.
        description, views: shown until the study's content is published.

    Raises:
        DeletedExperimentError: the study's experiment was deleted.
        TrackingError: the server cannot be reached, the address is of another kind or holds a
            password, or the name has other characters.
    """
    check_address(uri)
    if not _STUDY_NAME.fullmatch(study):
        raise TrackingError(f"study: must be letters, digits, '.', '_' or '-', but got {study!r}")
    artifacts = None
    if uri.startswith("sqlite:///"):
        database = database_file(uri)
        check_database(database)
        correct_locations(database)
        uri, artifacts = f"sqlite:///{database}", str(artifact_folder(database, study))
    with connect(uri) as client:
        page = {**names.EXPERIMENT_TAGS, names.DESCRIPTION: description, **(views or {})}
        experiment_id = find_or_make_experiment(client, study, artifacts, page)
        origin = source_tags(source)
        tags = {names.RUN_NAME: study, names.DESCRIPTION: description, **origin}
        run = find_or_make_run(client, experiment_id, names.STUDY, study, tags, started)
        return Publisher(uri, experiment_id, run.info.run_id, tuple(origin.items()))
