"""A trial's run: its levels, one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_core.results import LevelResult
from lth_core.spec import TicketSpec
from tracking.publish import names
from tracking.publish.cell_run import CellRun
from tracking.publish.curve_files import curve_files, spec_file
from tracking.publish.payload import (
    dataset_input,
    finished_ms,
    level_digest,
    level_metrics,
    params,
)
from tracking.publish.runs import PublishedRun, log_datasets, log_in_batches

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Param


@dataclass(frozen=True)
class TrialRun:
    """A trial as an MLflow run."""

    key: str
    """The spec's digest."""
    name: str
    """The run's name in MLflow."""
    fields: Mapping[str, Any]
    """Axis values, written as params."""
    spec: TicketSpec
    cell: CellRun
    """The run above."""


def write_level(
    client: MlflowClient,
    run: TrialRun,
    level: LevelResult,
    records: Sequence[Mapping[str, Any]],
    published: PublishedRun,
    files: Mapping[str, bytes],
    curves: bool,
) -> PublishedRun:
    """Write a level's files, metrics and tags, and with level 0 the spec and the dataset.

    Args:
        published: the trial's run before.
        files: the result of `level_files`.
        curves: whether learning curves are metrics too.

    Returns:
        The trial's run after the call.
    """
    from mlflow.entities import RunTag

    with tempfile.TemporaryDirectory(prefix="lth-") as name:
        root, level_name = Path(name), names.level_folder(level.level)
        (root / level_name).mkdir()
        for file, content in {**files, **curve_files(level, records)}.items():
            (root / level_name / file).write_bytes(content)
        if not level.level:
            (root / "spec.yaml").write_bytes(spec_file(run.spec))
        client.log_artifacts(published.id, name)
    new: list[Param] = []
    if not published.levels:
        log_datasets(client, published.id, [dataset_input(run.spec)])
        # After a kill another version may write the level again, and MLflow refuses changed
        # params.
        new = [p for p in params(run.spec, run.fields) if p.key not in published.params]
    ended = max(published.ended, *(finished_ms(level, branch) for branch in level.results))
    tags = {
        names.TRAINED: str(ended),
        names.LEVELS: " ".join([*published.digests, level_digest(records, curves)]),
        names.METHOD: str(records[0]["method"]),
    }
    metrics = list(level_metrics(level, records, curves))
    log_in_batches(client, published.id, metrics, new, [RunTag(*tag) for tag in tags.items()])
    return replace(
        published,
        params=published.params | {p.key for p in new},
        tags={**published.tags, **tags},
        ended=ended,
    )
