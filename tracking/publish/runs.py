"""MLflow runs, found by a key in a tag and made where they are missing.

MLflow has no call that makes a run only where there is none. So a publisher that has made one
searches again. Where several runs have one key, it keeps the first started and deletes the others;
every publisher chooses the same one.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any

from lth_core.errors import TrackingError
from lth_core.spec import sha256
from tracking.publish import names
from tracking.publish.payload import Number, stamped

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Experiment, Metric, Run

MOST_ITEMS, MOST_PARAMS = 1000, 100
"""MLflow's limits for one call: metrics, params and tags in all, and params alone."""
PAGE = 1000
"""Number of runs in one answer of a search."""

_LEVEL = f"([0-9a-f]{{{names.LEVEL_DIGEST}}}|{re.escape(names.UNKNOWN)})"
_COUNT = re.compile(r"[0-9]{1,4}")
"""The tag of published levels as older versions wrote it: their number."""
_FORMATS = {
    names.LEVELS: re.compile(rf"{_LEVEL}( {_LEVEL})*|{_COUNT.pattern}"),
    names.TRAINED: re.compile(r"[0-9]{1,15}"),
    names.COMPARED: re.compile(r"[0-9]{1,12} [0-9a-f]{64}"),
}
"""Formats of the tags by which a publisher knows what it has written."""


@dataclass(frozen=True)
class PublishedRun:
    """A run of a trial or a cell as MLflow last answered it; times in ms since 1970."""

    id: str
    started: int
    status: str
    params: frozenset[str]
    tags: Mapping[str, str]
    ended: int = 0
    """End of its latest training, or its own; 0: not known."""

    @property
    def digests(self) -> list[str]:
        """Digest of each published level, as of `payload.level_digest`; the dense run's first.
        Those that an older version published are `names.UNKNOWN`."""
        text = self.tags.get(names.LEVELS, "")
        return int(text) * [names.UNKNOWN] if _COUNT.fullmatch(text) else text.split()

    def has(self, level: int, digest: str) -> bool:
        """Whether a level is published with a digest, as far as is known."""
        return level < self.levels and self.digests[level] in (digest, names.UNKNOWN)

    @property
    def levels(self) -> int:
        """Number of levels published, the dense run included."""
        return len(self.digests)


class DeletedExperimentError(TrackingError):
    """The study's experiment was deleted in MLflow, which then refuses runs in it."""


def find_or_make_experiment(
    client: MlflowClient, study: str, artifacts: str | None, tags: Mapping[str, str]
) -> str:
    """Id of a study's experiment, made where it is missing.

    Args:
        artifacts: folder of its artifacts; None: the server's choice.
        tags: tags of an experiment that is made.

    Raises:
        DeletedExperimentError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        try:
            return str(client.create_experiment(study, artifacts, dict(tags)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(study)  # another publisher was faster
        assert experiment
    check_active(client, experiment)
    return str(experiment.experiment_id)


def check_active(client: MlflowClient, experiment: Experiment) -> None:
    """Check that an experiment is not deleted.

    Raises:
        DeletedExperimentError: it was deleted.
    """
    if experiment.lifecycle_stage == "deleted":
        command = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        raise DeletedExperimentError(
            f"tracking.uri: the experiment {experiment.name} was deleted; "
            f"`MLFLOW_TRACKING_URI={shlex.quote(client.tracking_uri)} {command}` restores it"
        )


def find_or_make_run(
    client: MlflowClient, experiment: str, tag: str, value: str, tags: Mapping[str, str],
    started: Callable[[], int | None] = lambda: None,
) -> Run:  # fmt: skip
    """The one run whose tag has the value, made where it is missing.

    Args:
        started: start of a run that is made, in ms since 1970; None: now.
    """
    query = f"tags.`{tag}` = '{value}'"
    runs = list(search_runs(client, experiment, query))
    if not runs:
        client.create_run(experiment, started(), tags={tag: value, **tags})
        runs = list(search_runs(client, experiment, query))
    if not runs:
        raise TrackingError(f"tracking.uri: the run with {tag} {value} was made but is not found")
    return keep_first(client, runs)


def search_runs(client: MlflowClient, experiment: str, query: str) -> Iterator[Run]:
    """Runs of an experiment that match a query, without deleted ones, page by page."""
    token = None
    while token != "":
        page = client.search_runs([experiment], query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token or ""


def keep_first(client: MlflowClient, runs: Sequence[Run]) -> Run:
    """Delete all but the first started of several runs with one key; returns that one.

    Start times never change, so all publishers keep the same run.
    """
    first, *duplicates = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    for duplicate in duplicates:
        client.delete_run(duplicate.info.run_id)
    return first


def runs_by_tag(client: MlflowClient, experiment: str, tag: str) -> dict[str, PublishedRun]:
    """Runs that have a tag, by its value; duplicates are deleted."""
    runs_of: dict[str, list[Run]] = defaultdict(list)
    for run in search_runs(client, experiment, f"tags.`{tag}` != ''"):
        runs_of[run.data.tags.get(tag, "")].append(run)
    runs_of.pop("", None)  # runs without the tag, which a server may return against the query
    return {key: published_run(keep_first(client, runs)) for key, runs in runs_of.items()}


def log_datasets(client: MlflowClient, run_id: str, datasets: list[DatasetInput]) -> None:
    """Record a run's datasets.

    MLflow refuses those that another publisher has recorded since; such a refusal is no error.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, datasets=datasets)
    except MlflowException:
        inputs = client.get_run(run_id).inputs
        if inputs is None or len(inputs.dataset_inputs) < len(datasets):
            raise


def published_run(run: Run) -> PublishedRun:
    """State of a run in MLflow.

    A tag in a wrong format is ignored; what it stands for is then published again.
    """
    info, data = run.info, run.data
    tags = {k: v for k, v in data.tags.items() if k not in _FORMATS or _FORMATS[k].fullmatch(v)}
    params, ended = frozenset(data.params), int(tags.get(names.TRAINED) or info.end_time or 0)
    return PublishedRun(info.run_id, info.start_time, info.status, params, tags, ended)


def resumed(client: MlflowClient, run: PublishedRun) -> PublishedRun:
    """The run, set to RUNNING where it was interrupted or has failed."""
    if run.status not in ("KILLED", "FAILED"):
        return run
    client.update_run(run.id, status="RUNNING")
    return replace(run, status="RUNNING")


def comparison_mark(tags: Mapping[str, str]) -> tuple[int, str]:
    """Number of times that comparisons were written to a run, and the digest of the last.

    Args:
        tags: the run's tags from `published_run`.
    """
    count, _, digest = tags.get(names.COMPARED, "").rpartition(" ")
    return int(count or 0), digest


def write_compared(
    client: MlflowClient, published: PublishedRun, numbers: Sequence[Number],
    tags: Mapping[str, str], prefixes: Collection[str],
) -> None:  # fmt: skip
    """Write comparisons to the run of a trial or a cell; equal ones are written once.

    Args:
        prefixes: as for `changed_metrics`.
    """
    from mlflow.entities import RunTag

    digest = sha256([numbers, tags])
    count, known = comparison_mark(published.tags)
    if not numbers or known == digest:
        return
    # The count serves as the time: two publishers of equal comparisons write equal stamps.
    all_tags = {**tags, names.COMPARED: f"{count + 1} {digest}"}
    stamp = published.started + count + 1
    metrics = (
        changed_metrics(client, client.get_run(published.id), numbers, stamp, prefixes)
        if count
        else stamped(numbers, stamp)
    )
    log_in_batches(client, published.id, metrics, [], [RunTag(*tag) for tag in all_tags.items()])


def changed_metrics(
    client: MlflowClient, run: Run, numbers: Sequence[Number], stamp: int, prefixes: Collection[str]
) -> list[Metric]:
    """Metrics of the numbers that differ from the run's latest, which MLflow's charts would show
    twice, and NaN in place of those that no longer hold.

    Args:
        stamp: their time in ms.
        prefixes: first parts of the names of metrics that the numbers have all of.
    """
    from mlflow.entities import Metric

    new = {(names.entry_name(number.name), number.step): number for number in numbers}
    complete = {key for key in run.data.metrics if key.partition("/")[0] in prefixes}
    latest = {
        (key, metric.step): metric.value
        for key in complete | ({key for key, _ in new} & run.data.metrics.keys())
        for metric in sorted(
            client.get_metric_history(run.info.run_id, key), key=lambda metric: metric.timestamp
        )
    }
    changed = [number for place, number in new.items() if latest.get(place) != number.value]
    gone = [place for place, value in latest.items() if place not in new and not isnan(value)]
    ended = [Metric(key, nan, stamp, step) for key, step in gone if key in complete]
    return [*stamped(changed, stamp), *ended]


def log_in_batches(
    client: MlflowClient, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]
) -> None:
    """Write metrics, params and tags in one call or in several; tags last, because they record what
    was written."""
    # MLflow writes params, metrics and tags of a call in this order. Its client splits a large call
    # and would send the tags with the first part. A user's MLFLOW_ENABLE_ASYNC_LOGGING would send
    # them in any order, and raise no error here.
    if len(metrics) + len(params) + len(tags) > MOST_ITEMS or len(params) > MOST_PARAMS:
        client.log_batch(run_id, metrics, params, synchronous=True)
        metrics, params = [], []
    client.log_batch(run_id, metrics, params, tags, synchronous=True)
