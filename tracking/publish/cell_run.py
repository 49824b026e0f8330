"""Runs of cells, between a study's run and its trials': statistics and verdicts over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lth_core.analysis.cells import Cell
from lth_core.analysis.verdict import Verdict, best_word
from lth_core.spec import TicketSpec
from tracking.publish import names
from tracking.publish.payload import (
    Number,
    dataset_input,
    params,
    table_numbers,
    verdict_numbers,
)
from tracking.publish.runs import (
    PublishedRun,
    find_or_make_run,
    log_datasets,
    log_in_batches,
    published_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class CellRun:
    """A cell as an MLflow run, the parent of its trials' runs."""

    key: str
    """Digest of the spec without its seed, or another name that is unique in the study."""
    name: str
    """The run's name in MLflow."""
    fields: Mapping[str, Any]
    """Axis values without the seed, written as params."""
    spec: TicketSpec | None
    """Spec of one of the trials; None where the trials have no spec in common."""


def find_or_make_cell(
    client: MlflowClient, experiment: str, run: CellRun, tags: Mapping[str, str],
    started: Callable[[], int | None],
) -> PublishedRun:  # fmt: skip
    """The run of a cell, made with its params and its dataset where it is missing.

    Args:
        tags: tags of a run that is made.
        started: as for `find_or_make_run`.
    """
    found = find_or_make_run(client, experiment, names.CELL, run.key, tags, started)
    if run.spec and not found.data.params:
        shared = [param for param in params(run.spec, run.fields) if param.key != "seed"]
        log_in_batches(client, found.info.run_id, [], shared, [])
        log_datasets(client, found.info.run_id, [dataset_input(run.spec)])
    return published_run(found)


def cell_numbers(cell: Cell, verdicts: Sequence[Verdict]) -> Iterator[Number]:
    """Metrics of a cell, with step = level: means, 95% intervals, density and verdicts."""
    yield from accuracy_numbers(cell)
    for branch in cell.branches:
        for point in cell.series(branch, "final_test_accuracy"):
            for end, value in {"low": point.value.low, "high": point.value.high}.items():
                if value is not None:
                    yield Number(f"{names.INTERVAL}/{branch}_{end}", value, point.level)
        for point in cell.series(branch, "early_stop_step"):
            metric = names.BRANCH_METRICS["early_stop_step"]
            yield Number(f"{metric}/{branch}", point.value.mean, point.level)
    yield from density_numbers(cell)
    yield Number("seeds", cell.seeds)
    yield from verdict_numbers(verdicts)
    yield from table_numbers(verdicts)


def accuracy_numbers(cell: Cell, name: str = "") -> Iterator[Number]:
    """Mean accuracy by branch, with step = level; that of the dense run stands at every level.

    Args:
        name: name of the cell, which stands before the branch; empty: none.
    """
    metric = names.BRANCH_METRICS["final_test_accuracy"]
    # MLflow refuses `=` in a metric's name, and a slash begins another group of charts.
    cell_name = f"{name} ".replace("=", " ").replace("/", "_") if name else ""
    levels = sorted({record["level"] for record in cell.records})
    for branch in cell.branches:
        points = cell.series(branch, "final_test_accuracy")
        for point in points:
            yield Number(f"{metric}/{cell_name}{branch}", point.value.mean, point.level)
        if branch == "dense":
            for level in levels[1:] if points else ():
                yield Number(f"{metric}/{cell_name}{branch}", points[0].value.mean, level)


def density_numbers(cell: Cell) -> Iterator[Number]:
    """Mean density, with step = level."""
    points = {p.level: p for b in ("dense", "ticket") for p in cell.series(b, "density")}
    for level, point in sorted(points.items()):
        yield Number(names.LEVEL_METRICS["density"], point.value.mean, level)


def cell_tags(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """Tags of a cell, to filter runs by: the best verdict, and each level's."""
    best = {names.VERDICT: best_word(verdicts)} if verdicts else {}
    return best | {
        f"{names.VERDICT}.{names.level_folder(verdict.level)}": verdict.verdict
        for verdict in verdicts
    }
