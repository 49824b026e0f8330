"""MLflow as a projection of finished levels: idempotent, keyed by the spec's digest."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from lth_core import masks
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from lth_core.spec import TicketSpec, describe, sha256
from lth_core.verdict import Verdict, best_word, sparsest
from tracking import names
from tracking.about import git_commit, versions
from tracking.client import check_database, speaking

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""Metrics in one call, MLflow's limit."""
PAGE = 1000
"""Runs in one answer."""


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
    """

    uri: str
    experiment: str
    study_run: str
    commit: str

    def publish(
        self, run: TrialRun, level: LevelResult, records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write a level's metrics, curves, mask and ticket; a level already there is left alone.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            run_id, published = self._run(client, run)
            if level.level < published:
                return
            metrics = list(level_metrics(level, records))
            for start in range(0, len(metrics), BATCH):
                client.log_batch(run_id, metrics=metrics[start : start + BATCH])
            self._artifacts(client, run_id, level)
            if not published:
                client.set_tag(run_id, names.METHOD, records[0]["method"])
            client.set_tag(run_id, names.LEVELS, level.level + 1)

    def published(self, run: TrialRun) -> int:
        """Levels that a trial's run has, the dense run counted; 0 where there is no run.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            found = self._find(client, run)
            return found[1] if found else 0

    def finish(self, run: TrialRun) -> None:
        """Mark a trial's run finished.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            run_id, _ = self._run(client, run)
            if client.get_run(run_id).info.status != "FINISHED":
                client.set_terminated(run_id, "FINISHED")

    def publish_verdicts(self, found: Mapping[str, Sequence[Verdict]]) -> None:
        """Write the verdicts on the levels of each trial's cell; what is there already is left.

        Args:
            found: by the trial's key.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            token = None
            while token != "":
                page = client.search_runs([self.experiment], max_results=PAGE, page_token=token)
                for run in page:
                    said = found.get(run.data.tags.get(names.KEY, ""), ())
                    digest = sha256([[v.level, v.verdict, v.p_reinit, v.density] for v in said])
                    if said and run.data.tags.get(names.VERDICTS) != digest:
                        tags, metrics = verdict_tags(said, digest), verdict_metrics(said)
                        client.log_batch(run.info.run_id, metrics=list(metrics), tags=list(tags))
                token = page.token or ""

    def publish_study(
        self, report: Path, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        """Put a study's report and figures on its own run.

        Raises:
            TrackingError: the server cannot be reached or refuses.
        """
        with speaking(self.uri) as client:
            for tag, word in tags.items():
                client.set_tag(self.study_run, tag, word)
            known = client.get_run(self.study_run).data.metrics
            for key, value in metrics.items():
                if known.get(names.metric(key)) != value:
                    client.log_metric(self.study_run, names.metric(key), value)
            client.log_artifact(self.study_run, str(report))
            client.log_artifacts(self.study_run, str(report.parent / "figures"), "figures")
            client.set_terminated(self.study_run, "FINISHED")

    def _run(self, client: MlflowClient, run: TrialRun) -> tuple[str, int]:
        """The trial's run, made where it is missing, and how many levels it has."""
        found = self._find(client, run)
        if found and found[1]:
            return found
        run_id = found[0] if found else self._create(client, run)
        # Again also where the run is there: a kill may have come between.
        client.log_batch(run_id, params=list(_params(run.spec)))
        return run_id, 0

    def _create(self, client: MlflowClient, run: TrialRun) -> str:
        tags = {
            names.KEY: run.key,
            names.PARENT: self.study_run,
            names.RUN_NAME: run.name[:250],
            names.COMMIT: self.commit,
            **{f"axis.{field}": str(value) for field, value in run.fields.items()},
        }
        run_id: str = client.create_run(self.experiment, tags=tags).info.run_id
        return run_id

    def _find(self, client: MlflowClient, run: TrialRun) -> tuple[str, int] | None:
        query = f"tags.`{names.KEY}` = '{run.key}'"
        found = client.search_runs([self.experiment], query, max_results=1)
        if not found:
            return None
        return found[0].info.run_id, int(found[0].data.tags.get(names.LEVELS, 0))

    def _artifacts(self, client: MlflowClient, run_id: str, level: LevelResult) -> None:
        ticket = level.ticket
        with tempfile.TemporaryDirectory(prefix="lth-") as folder:
            ticket.save(Path(folder) / "ticket.safetensors")
            bits = {f"mask/{name}": masks.pack_bits(m) for name, m in ticket.mask.items()}
            shapes = {name: str(list(m.shape)) for name, m in ticket.mask.items()}
            about = {"mask_digest": masks.digest(ticket.mask), **shapes}
            save_file(bits, Path(folder) / "mask.safetensors", metadata=about)
            client.log_artifacts(run_id, folder, names.level_folder(level.level))


def open_publisher(uri: str, study: str, description: str) -> Publisher:
    """A publisher to a study's experiment and run, both made where they are missing.

    Args:
        uri: ``sqlite:///FILE`` (relative to the current folder) or ``http(s)://...``.

    Raises:
        TrackingError: the server cannot be reached, or the address is of another kind.
    """
    artifacts = None
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
        check_database(database)
        uri, artifacts = f"sqlite:///{database}", str(database.parent / "mlartifacts" / study)
    elif not uri.startswith(("http://", "https://")):
        raise TrackingError(
            f"tracking.uri: must be sqlite:///FILE, http://... or null, but got {uri!r}"
        )
    with speaking(uri) as client:
        experiment = client.get_experiment_by_name(study)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(study, artifacts, names.EXPERIMENT_TAGS)
        )
        query = f"tags.`{names.STUDY}` = '{study}'"
        found = client.search_runs([experiment_id], query, max_results=1)
        if found:
            return Publisher(uri, experiment_id, found[0].info.run_id, git_commit())
        tags = {names.STUDY: study, names.RUN_NAME: study, "mlflow.note.content": description}
        made = client.create_run(experiment_id, tags=tags)
        return Publisher(uri, experiment_id, made.info.run_id, git_commit())


def verdict_tags(found: Sequence[Verdict], digest: str) -> Iterator[Any]:
    """The best of a trial's verdicts, and each level's, to filter runs by."""
    from mlflow.entities import RunTag

    yield RunTag(names.VERDICT, best_word(found))
    for verdict in found:
        yield RunTag(f"{names.VERDICT}.{names.level_folder(verdict.level)}", verdict.verdict)
    yield RunTag(names.VERDICTS, digest)


def verdict_metrics(found: Sequence[Verdict]) -> Iterator[Any]:
    """A trial's verdicts as numbers, with step = level."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for verdict in found:
        for name, value in {
            "matching": float(verdict.matching),
            "winning": float(verdict.verdict == "winning"),
            "p_reinit": verdict.p_reinit,
        }.items():
            if value is not None:
                yield Metric(f"{names.VERDICT}/{name}", value, now, verdict.level)
    if best := sparsest(found):
        yield Metric(f"{names.VERDICT}/sparsest_matching_density", best.density, now, best.level)


def level_metrics(level: LevelResult, records: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """A level as MLflow metrics, stamped with its training's end: the same at each call."""
    from mlflow.entities import Metric

    stamps = {b: int(r.training.finished_at * 1000) for b, r in level.results.items()}
    shared = next(r for r in records if r["branch"] == level.branch)
    for name in names.LEVEL_METRICS:
        yield Metric(name, float(shared[name]), stamps[level.branch], level.level)
    for record in records:
        branch = record["branch"]
        for name in names.BRANCH_METRICS:
            if record.get(name) is not None:
                yield Metric(f"{branch}/{name}", float(record[name]), stamps[branch], level.level)
        curves = level.results[branch].training.curves
        for name in names.CURVES:
            key = f"{names.level_folder(level.level)}/{branch}/{name}"
            for step, value in zip(curves.step, getattr(curves, name), strict=True):
                yield Metric(key, float(value), stamps[branch], step)
    for layer, density in shared["layer_density"].items():
        key = names.metric(f"layer_density/{layer}")
        yield Metric(key, float(density), stamps[level.branch], level.level)


def _params(spec: TicketSpec) -> Iterator[Any]:
    from mlflow.entities import Param

    def flat(prefix: str, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in said.items():
            if isinstance(value, dict):
                yield from flat(f"{prefix}{name}.", value)
            else:
                yield f"{prefix}{name}", str(value)

    for key, value in flat("", describe(spec)):
        yield Param(names.metric(key), value)
    yield Param("spec_digest", spec.digest())
    for key, value in versions().items():
        yield Param(f"version.{key}", value)
