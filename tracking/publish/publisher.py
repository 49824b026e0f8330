"""Publisher of finished levels to MLflow: idempotent, keyed by the spec's digest.

The tracking address is an SQLite file or a server. A server stores the artifacts itself (``mlflow
server --artifacts-destination s3://BUCKET/PREFIX``), so that only the server needs the keys of a
bucket. The address never holds a password: MLflow reads MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD from the environment.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lth_core.analysis.verdict import Verdict
from lth_core.errors import TrackingError
from lth_core.redaction import without_secrets
from lth_core.results import LevelResult
from lth_core.spec import TicketSpec, sha256
from tracking.publish import names
from tracking.publish.client import RefusedError, check_address, check_database, connect
from tracking.publish.locations import artifact_folder, correct_locations, database_file
from tracking.publish.payload import (
    level_files,
    level_metrics,
    params,
    study_metrics,
    verdict_metrics,
    verdict_tags,
    verdict_values,
)
from tracking.publish.provenance import git_commit
from tracking.publish.runs import (
    PublishedRun,
    comparison_mark,
    find_or_make_experiment,
    find_or_make_run,
    keep_first,
    log_in_batches,
    published_run,
    search_runs,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED"]

RETRIES = 2
"""Retries of a refused call: another publisher may write the same trial at the same time."""

_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class TrialRun:
    """A trial as an MLflow run."""

    key: str
    """The spec's digest."""
    name: str
    """The run's name in MLflow."""
    fields: Mapping[str, Any]
    """Axis values, written as tags."""
    spec: TicketSpec


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
    commit: str
    """Git commit of the folder in which the sweep was started."""

    def publish(
        self,
        run: TrialRun,
        level: LevelResult,
        records: Sequence[Mapping[str, Any]],
        published: PublishedRun | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> PublishedRun:
        """Write a level's metrics, curves, mask and ticket; a level already written is skipped.

        Args:
            published: the trial's run, if known.
            files: the result of `level_files`, if known.

        Raises:
            TrackingError: the server cannot be reached or refuses, or an earlier level is missing.
        """

        def write(client: MlflowClient, published: PublishedRun) -> PublishedRun:
            if level.level < published.levels:
                return published
            if level.level > published.levels:
                rule = f"level {level.level} cannot be published before level {published.levels}"
                raise RefusedError(f"tracking.uri: {self.uri}: {run.name}: {rule}")
            return self._write(client, run, level, records, published, files or level_files(level))

        return self._update(run, published, write)

    def finish(
        self,
        run: TrialRun,
        status: Status = "FINISHED",
        reason: str = "",
        published: PublishedRun | None = None,
    ) -> PublishedRun:
        """Set a trial's run to its outcome; a failed run may finish later, not the reverse.

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
            client.set_terminated(published.id, status)
            return replace(published, status=status, tags=tags)

        return self._update(run, published, end)

    def runs(self) -> dict[str, PublishedRun]:
        """Runs of all published trials, by key; duplicates are deleted.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with connect(self.uri) as client:
            runs_of: dict[str, list[Run]] = defaultdict(list)
            for run in search_runs(client, self.experiment, f"tags.`{names.KEY}` != ''"):
                runs_of[run.data.tags.get(names.KEY, "")].append(run)
            runs_of.pop("", None)  # runs without a key, which a server may return against the query
            return {key: published_run(keep_first(client, runs)) for key, runs in runs_of.items()}

    def publish_compared(
        self,
        published: PublishedRun,
        verdicts: Sequence[Verdict],
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write comparisons of a trial with others: verdicts of its cell, overlaps of its tickets,
        and latencies of its networks.

        Equal comparisons are written once.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        values = [[v.level, v.verdict, verdict_values(v), v.density] for v in verdicts]
        numbers = [[metric.key, metric.step, metric.value] for metric in study_metrics(records, 0)]
        digest = sha256([values, numbers])
        count, known = comparison_mark(published.tags)
        if not (verdicts or numbers) or known == digest:
            return
        # The count serves as the time: two publishers of equal comparisons write equal stamps.
        count += 1
        stamp = published.started + count
        with connect(self.uri) as client:
            metrics = [*verdict_metrics(verdicts, stamp), *study_metrics(records, stamp)]
            tags = list(verdict_tags(verdicts, f"{count} {digest}"))
            log_in_batches(client, published.id, metrics, [], tags)

    def publish_study(
        self,
        digest: str,
        report: Callable[[], Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Finish a study's own run with its report, figures, metrics and tags.

        Equal ones are written once.

        Args:
            digest: sha256 of the data that the report is made from.
            report: writes the report and returns its file; called only where the run lacks it.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        from mlflow.entities import Metric, RunTag

        with connect(self.uri) as client:
            run = client.get_run(self.study_run)
            count, known = comparison_mark(published_run(run).tags)
        if known == digest and run.info.status == "FINISHED":
            return
        file = report() if known != digest else None
        with connect(self.uri) as client:
            if file:
                self._adopt_trials(client)
                client.log_artifact(self.study_run, str(file))
                # Hidden files belong to another process that is writing the same report.
                for figure in sorted((file.parent / "figures").glob("[!.]*")):
                    client.log_artifact(self.study_run, str(figure), "figures")
                # An older version stamped metrics with the time, before it finished the run.
                count = 1 + (count or max(0, (run.info.end_time or 0) - run.info.start_time))
                changed = [
                    Metric(names.entry_name(key), value, run.info.start_time + count, 0)
                    for key, value in metrics.items()
                    if run.data.metrics.get(names.entry_name(key)) != value
                ]
                all_tags = {**tags, names.COMPARED: f"{count} {digest}"}
                log_in_batches(
                    client, self.study_run, changed, [], [RunTag(*tag) for tag in all_tags.items()]
                )
            client.set_terminated(self.study_run, "FINISHED")

    def _adopt_trials(self, client: MlflowClient) -> None:
        """Make the study's run the parent of trials whose parent was deleted."""
        orphans = f"tags.`{names.KEY}` != '' and tags.`{names.PARENT}` != '{self.study_run}'"
        for run in list(search_runs(client, self.experiment, orphans)):
            client.set_tag(run.info.run_id, names.PARENT, self.study_run, synchronous=True)

    def _update(
        self,
        run: TrialRun,
        published: PublishedRun | None,
        change: Callable[[MlflowClient, PublishedRun], PublishedRun],
        retries: int = RETRIES,
    ) -> PublishedRun:
        """Change the trial's run; where another publisher was faster, retry on its new state."""
        try:
            with connect(self.uri) as client:
                return change(client, published or self._find_or_make(client, run))
        except RefusedError:
            if not retries:
                raise
            return self._update(run, None, change, retries - 1)

    def _find_or_make(self, client: MlflowClient, run: TrialRun) -> PublishedRun:
        tags = {
            names.PARENT: self.study_run,
            names.RUN_NAME: run.name[:250],
            names.COMMIT: self.commit,
            **{
                names.entry_name(f"axis.{field}"): str(value)[: names.LONGEST_TAG]
                for field, value in run.fields.items()
            },
        }
        return published_run(find_or_make_run(client, self.experiment, names.KEY, run.key, tags))

    def _write(
        self,
        client: MlflowClient,
        run: TrialRun,
        level: LevelResult,
        records: Sequence[Mapping[str, Any]],
        published: PublishedRun,
        files: Mapping[str, bytes],
    ) -> PublishedRun:
        from mlflow.entities import RunTag

        with tempfile.TemporaryDirectory(prefix="lth-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(published.id, folder, names.level_folder(level.level))
        # After a kill another machine may write the level again. Its params may differ (device,
        # versions), and MLflow refuses changed params.
        new = [
            p for p in params(run.spec) if not published.levels and p.key not in published.params
        ]
        tags = {names.LEVELS: str(level.level + 1), names.METHOD: str(records[0]["method"])}
        metrics = list(level_metrics(level, records))
        log_in_batches(client, published.id, metrics, new, [RunTag(*tag) for tag in tags.items()])
        known = published.params | {p.key for p in new}
        return replace(published, params=known, tags={**published.tags, **tags})


def open_publisher(uri: str, study: str, description: str) -> Publisher:
    """Publisher to a study's experiment and run, both made where they are missing.

    Args:
        uri: ``sqlite:///FILE`` (relative to the current folder) or ``http(s)://...``.
        study: letters, digits, `.`, `_`, `-`; beside an SQLite file it is a folder's name too.

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
        experiment_id = find_or_make_experiment(client, study, artifacts)
        tags = {names.RUN_NAME: study, "mlflow.note.content": description}
        run = find_or_make_run(client, experiment_id, names.STUDY, study, tags)
        return Publisher(uri, experiment_id, run.info.run_id, git_commit())
