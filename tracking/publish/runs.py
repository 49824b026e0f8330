"""MLflow runs, found by a key of ours and made where there are none.

MLflow has no way to make a run only where there is none. So whoever makes one looks again, and of
several with one key the first started stays and the others are deleted: all who look agree which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_core.errors import TrackingError
from tracking.publish import names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

BATCH, OTHERS = 1000, 100
"""Of all, and of params, in one call: MLflow's limits."""
PAGE = 1000
"""Runs in one answer."""

_OURS = {
    names.LEVELS: re.compile(r"[0-9]{1,9}"),
    names.COMPARED: re.compile(r"[0-9]{1,12} [0-9a-f]{64}"),
}
"""How the tags that are counted by look."""


@dataclass(frozen=True)
class Held:
    """A trial's run as MLflow was last seen to hold it; ``started`` in ms."""

    id: str
    started: int
    status: str
    params: frozenset[str]
    tags: Mapping[str, str]

    @property
    def levels(self) -> int:
        """Levels published, the dense run counted."""
        return int(self.tags.get(names.LEVELS, 0))


def experiment_of(client: MlflowClient, study: str, artifacts: str | None) -> str:
    """The id of a study's experiment, made where it is missing.

    Args:
        artifacts: its folder; None leaves the place to the server.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(study)
    if found is None:
        try:
            return str(client.create_experiment(study, artifacts, names.EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(study)  # another publisher was faster
        assert found
    return str(found.experiment_id)


def find_or_make(
    client: MlflowClient, experiment: str, tag: str, value: str, tags: Mapping[str, str]
) -> Run:
    """The one run whose tag has the value."""
    query = f"tags.`{tag}` = '{value}'"
    found = list(search(client, experiment, query))
    if not found:
        client.create_run(experiment, tags={tag: value, **tags})
        found = list(search(client, experiment, query))
    if not found:
        raise TrackingError(f"tracking.uri: the run with {tag} {value} was made, and is not there")
    return only(client, found)


def search(client: MlflowClient, experiment: str, query: str) -> Iterator[Run]:
    """The live runs of an experiment that a query finds, page by page."""
    token = None
    while token != "":
        page = client.search_runs([experiment], query, max_results=PAGE, page_token=token)
        yield from page
        token = page.token or ""


def only(client: MlflowClient, runs: Sequence[Run]) -> Run:
    """The run that stays of those with one key. Its rank never changes and nobody deletes it, so
    that of any number of publishers each comes to the same one."""
    first, *doubles = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    for double in doubles:
        client.delete_run(double.info.run_id)
    return first


def held_of(run: Run) -> Held:
    """What there is to know of a trial's run. Of the tags that we count by, one of another hand is
    as none: what it should tell of is written again."""
    info, data = run.info, run.data
    tags = {k: v for k, v in data.tags.items() if k not in _OURS or _OURS[k].fullmatch(v)}
    return Held(info.run_id, info.start_time, info.status, frozenset(data.params), tags)


def compared(tags: Mapping[str, str]) -> tuple[int, str]:
    """How many times a run was given what is taken from several trials, and the digest of the last.

    Args:
        tags: of `held_of`.
    """
    count, _, digest = tags.get(names.COMPARED, "").rpartition(" ")
    return int(count or 0), digest


def log(
    client: MlflowClient, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]
) -> None:
    """Write in one call, or in several, the last of which has the tags: they say what is there."""
    # MLflow writes params, metrics and tags of a call in this order; its client, given too much
    # for a call, sends the tags with the first.
    if len(metrics) + len(params) + len(tags) > BATCH or len(params) > OTHERS:
        client.log_batch(run_id, metrics, params)
        metrics, params = [], []
    client.log_batch(run_id, metrics, params, tags)
