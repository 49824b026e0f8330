"""MLflow as a projection of finished levels: idempotent, keyed by the spec's digest.

MLflow's database is an SQLite file, or stands behind a server; a server also takes the artifacts,
and puts them where it was told to (``mlflow server --artifacts-destination s3://BUCKET/PREFIX``),
so that the keys of a bucket are on the server alone. Its address never holds a password: a server
that asks for one gets MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD from the environment.
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
from tracking.publish.client import RefusedError, check_address, check_database, speaking
from tracking.publish.payload import (
    level_files,
    level_metrics,
    overlap_metrics,
    params,
    verdict_metrics,
    verdict_tags,
)
from tracking.publish.provenance import git_commit
from tracking.publish.runs import (
    Held,
    compared,
    experiment_of,
    find_or_make,
    held_of,
    log,
    only,
    search,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED"]

RETRIES = 2
"""Of a call, where another publisher writes the same trial at the same moment."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class TrialRun:
    """A trial as an MLflow run.

    key: the spec's digest; fields: axis values, as tags and part of the name.
    """

    key: str
    name: str
    fields: Mapping[str, Any]
    spec: TicketSpec


@dataclass(frozen=True)
class Publisher:
    """Writes to one experiment; goes to workers by value.

    uri: an absolute ``sqlite:///...`` or a server's address.
    experiment, study_run: MLflow's own ids.
    commit: git commit of the folder the sweep was started in.

    What a call returns of a trial's run may be given to the next as ``held``, which then need not
    ask for it; a run that is no longer as it was held is asked for again.
    """

    uri: str
    experiment: str
    study_run: str
    commit: str

    def publish(
        self,
        run: TrialRun,
        level: LevelResult,
        records: Sequence[Mapping[str, Any]],
        held: Held | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Held:
        """Write a level's metrics, curves, mask and ticket; a level already there is left alone.

        Args:
            files: the level's, where they were made before.

        Raises:
            TrackingError: the server cannot be reached or refuses, or it lacks a level before.
        """

        def write(client: MlflowClient, held: Held) -> Held:
            if level.level < held.levels:
                return held
            if level.level > held.levels:
                lack = f"level {level.level} cannot be published before level {held.levels}"
                raise TrackingError(f"tracking.uri: {self.uri}: {run.name}: {lack}")
            return self._write(client, run, level, records, held, files or level_files(level))

        return self._at_last(run, held, write)

    def finish(
        self,
        run: TrialRun,
        status: Status = "FINISHED",
        reason: str = "",
        held: Held | None = None,
    ) -> Held:
        """End a trial's run; one that failed may finish later, one that finished never fails.

        Args:
            reason: why it failed.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        said = without_secrets(reason)[:1000]

        def end(client: MlflowClient, held: Held) -> Held:
            if held.status == "FINISHED" or (held.status, held.tags.get(names.FAILURE)) == (
                status, said,
            ):  # fmt: skip
                return held
            tags = {name: value for name, value in held.tags.items() if name != names.FAILURE}
            if status == "FAILED":
                client.set_tag(held.id, names.FAILURE, said)
                tags[names.FAILURE] = said
            elif names.FAILURE in held.tags:
                client.delete_tag(held.id, names.FAILURE)
            client.set_terminated(held.id, status)
            return replace(held, status=status, tags=tags)

        return self._at_last(run, held, end)

    def runs(self) -> dict[str, Held]:
        """The run of every trial that has one, by its key; doubles are deleted.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            found: dict[str, list[Run]] = defaultdict(list)
            for run in search(client, self.experiment, f"tags.`{names.KEY}` != ''"):
                found[run.data.tags.get(names.KEY, "")].append(run)
            found.pop("", None)  # of nobody's trial, whatever the server found in it
            return {key: held_of(only(client, runs)) for key, runs in found.items()}

    def publish_compared(
        self, held: Held, found: Sequence[Verdict], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write what a trial's levels are beside others: verdicts on those of its cell, overlaps of
        its tickets; the same ones are written once.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        verdicts = [[v.level, v.verdict, v.p_reinit, v.density] for v in found]
        overlaps = [
            [metric.key, metric.step, metric.value] for metric in overlap_metrics(records, 0)
        ]
        digest = sha256([verdicts, overlaps])
        count, known = compared(held.tags)
        if not (found or overlaps) or known == digest:
            return
        # A count is a clock that two who write the same agree on.
        at = count + 1
        stamp = held.started + at
        with speaking(self.uri) as client:
            metrics = [*verdict_metrics(found, stamp), *overlap_metrics(records, stamp)]
            log(client, held.id, metrics, [], list(verdict_tags(found, f"{at} {digest}")))

    def publish_study(
        self,
        digest: str,
        report: Callable[[], Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Finish a study's own run with its report, figures, metrics and tags; the same ones are
        written once.

        Args:
            digest: sha256 of what the report was made from.
            report: the report's file; asked for only where the run lacks it.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        from mlflow.entities import Metric, RunTag

        with speaking(self.uri) as client:
            run = client.get_run(self.study_run)
            count, known = compared(held_of(run).tags)
        if known == digest and run.info.status == "FINISHED":
            return
        file = report() if known != digest else None
        with speaking(self.uri) as client:
            if file:
                self._adopt_trials(client)
                client.log_artifact(self.study_run, str(file))
                # A report that is being written beside this one has hidden files in the folder.
                for figure in sorted((file.parent / "figures").glob("[!.]*")):
                    client.log_artifact(self.study_run, str(figure), "figures")
                # An older version stamped metrics with the time, before it finished the run.
                at = 1 + (count or max(0, (run.info.end_time or 0) - run.info.start_time))
                changed = [
                    Metric(names.metric(key), value, run.info.start_time + at, 0)
                    for key, value in metrics.items()
                    if run.data.metrics.get(names.metric(key)) != value
                ]
                told = {**tags, names.COMPARED: f"{at} {digest}"}
                log(client, self.study_run, changed, [], [RunTag(*said) for said in told.items()])
            client.set_terminated(self.study_run, "FINISHED")

    def _adopt_trials(self, client: MlflowClient) -> None:
        """Put trials below the study's run that were below one since deleted."""
        theirs = f"tags.`{names.KEY}` != '' and tags.`{names.PARENT}` != '{self.study_run}'"
        for run in list(search(client, self.experiment, theirs)):
            client.set_tag(run.info.run_id, names.PARENT, self.study_run)

    def _at_last(
        self,
        run: TrialRun,
        held: Held | None,
        act: Callable[[MlflowClient, Held], Held],
        more: int = RETRIES,
    ) -> Held:
        """Act on the trial's run; again on what it is now, where another publisher was faster."""
        try:
            with speaking(self.uri) as client:
                return act(client, held or self._find_or_make(client, run))
        except RefusedError:
            if not more:
                raise
            return self._at_last(run, None, act, more - 1)

    def _find_or_make(self, client: MlflowClient, run: TrialRun) -> Held:
        tags = {
            names.PARENT: self.study_run,
            names.RUN_NAME: run.name[:250],
            names.COMMIT: self.commit,
            **{f"axis.{field}": str(value) for field, value in run.fields.items()},
        }
        return held_of(find_or_make(client, self.experiment, names.KEY, run.key, tags))

    def _write(
        self,
        client: MlflowClient,
        run: TrialRun,
        level: LevelResult,
        records: Sequence[Mapping[str, Any]],
        held: Held,
        files: Mapping[str, bytes],
    ) -> Held:
        from mlflow.entities import RunTag

        with tempfile.TemporaryDirectory(prefix="lth-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            client.log_artifacts(held.id, folder, names.level_folder(level.level))
        # A kill may have come between, and params cannot be changed: another machine has others.
        new = [p for p in params(run.spec) if not held.levels and p.key not in held.params]
        tags = {names.LEVELS: str(level.level + 1), names.METHOD: str(records[0]["method"])}
        metrics = list(level_metrics(level, records))
        log(client, held.id, metrics, new, [RunTag(*said) for said in tags.items()])
        known = held.params | {p.key for p in new}
        return replace(held, params=known, tags={**held.tags, **tags})


def open_publisher(uri: str, study: str, description: str) -> Publisher:
    """A publisher to a study's experiment and run, both made where they are missing.

    Args:
        uri: ``sqlite:///FILE`` (relative to the current folder) or ``http(s)://...``.
        study: names a folder too, beside an SQLite file: letters, digits, `.`, `_`, `-`.

    Raises:
        TrackingError: the server cannot be reached, the address is of another kind or holds a
            password, or the name is none for a folder.
    """
    check_address(uri)
    if not _SAFE.fullmatch(study):
        raise TrackingError(f"study: must be letters, digits, '.', '_' or '-', but got {study!r}")
    artifacts = None
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
        check_database(database)
        uri, artifacts = f"sqlite:///{database}", str(database.parent / "mlartifacts" / study)
    with speaking(uri) as client:
        experiment_id = experiment_of(client, study, artifacts)
        tags = {names.RUN_NAME: study, "mlflow.note.content": description}
        run = find_or_make(client, experiment_id, names.STUDY, study, tags)
        return Publisher(uri, experiment_id, run.info.run_id, git_commit())
