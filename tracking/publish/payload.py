"""Metrics, params, tags and files of levels, specs and verdicts.

Equal arguments give equal entries, and MLflow ignores those that it already has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import save

from lth_core import masks
from lth_core.analysis.verdict import Verdict, sparsest
from lth_core.data import part_sizes
from lth_core.results import LevelResult
from lth_core.spec import TicketSpec, canonical_json, describe, sha256
from lth_core.spec.settings import dotted_settings, setting_text
from tracking.publish import names
from tracking.publish.tickets.files import ticket_files

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param


class Number(NamedTuple):
    """A metric without its time."""

    name: str
    value: float
    step: int = 0


def stamped(numbers: Iterable[Number], stamp: int) -> list[Metric]:
    """Metrics of numbers.

    Args:
        stamp: time in ms; the UI shows the value with the latest.
    """
    from mlflow.entities import Metric

    return [Metric(names.entry_name(n.name), float(n.value), stamp, n.step) for n in numbers]


def branch_numbers(record: Mapping[str, Any], metrics: Mapping[str, str]) -> Iterator[Number]:
    """Numbers `METRIC/BRANCH` of a record, with step = level.

    Args:
        metrics: metric of each column.
    """
    for column, metric in metrics.items():
        if record.get(column) is not None:
            yield Number(f"{metric}/{record['branch']}", record[column], record["level"])


def level_metrics(
    level: LevelResult, records: Sequence[Mapping[str, Any]], curves: bool = False
) -> Iterator[Metric]:
    """Metrics of a level, stamped with the end of its trainings.

    Args:
        curves: whether learning curves and densities of layers are metrics too.
    """
    stamps = {branch: finished_ms(level, branch) for branch in level.results}
    shared = next(r for r in records if r["branch"] == level.branch)
    numbers = (
        Number(metric, shared[column], level.level)
        for column, metric in names.LEVEL_METRICS.items()
        if shared.get(column) is not None
    )
    yield from stamped(numbers, stamps[level.branch])
    for record in records:
        yield from stamped(branch_numbers(record, names.BRANCH_METRICS), stamps[record["branch"]])
    if curves:
        for branch, stamp in stamps.items():
            yield from stamped(_curve_numbers(level, branch), stamp)
        layers = shared["layer_density"].items()
        densities = (Number(f"layer_density/{layer}", d, level.level) for layer, d in layers)
        yield from stamped(densities, stamps[level.branch])


def level_digest(records: Sequence[Mapping[str, Any]], curves: bool = False) -> str:
    """Digest of what is published of a level; the same training, read from the store, has the same.

    Args:
        records: the level's records.
        curves: as for `level_metrics`.
    """
    rows = [[record.get(column) for column in _IDENTITY] for record in records]
    return sha256([rows, curves])[: names.LEVEL_DIGEST]


_IDENTITY = ("branch", *names.LEVEL_METRICS, *names.BRANCH_METRICS, "early_stop_validation_loss",
             "mask_digest", "ticket_digest")  # fmt: skip
"""Columns that differ between two trainings of one spec on machines that round in another way."""


def _curve_numbers(level: LevelResult, branch: str) -> Iterator[Number]:
    curves = level.results[branch].training.curves
    for name in names.CURVES:
        key = f"{names.level_folder(level.level)}/{branch}/{name}"
        values = getattr(curves, name)  # none of validation without validation examples
        for step, value in zip(curves.step, values, strict=bool(values)):
            if value is not None:  # test examples that were not evaluated there
                yield Number(key, value, step)


def finished_ms(level: LevelResult, branch: str) -> int:
    """End of a branch's training in ms since 1970."""
    return int(level.results[branch].training.finished_at * 1000)


def started_ms(level: LevelResult) -> int:
    """Start of a level's first training in ms since 1970."""
    trainings = (result.training for result in level.results.values())
    return int(1000 * min(training.finished_at - training.seconds for training in trainings))


def level_files(level: LevelResult) -> dict[str, bytes]:
    """Files of a level by name: the ticket and what explains it, and its mask as packed bits."""
    ticket = level.ticket
    bits = {f"mask/{name}": masks.pack_bits(m) for name, m in ticket.mask.items()}
    shapes = {name: str(list(m.shape)) for name, m in ticket.mask.items()}
    metadata = {"mask_digest": masks.digest(ticket.mask), **shapes}
    return {
        **ticket_files(ticket),
        "mask.safetensors": save(bits, metadata=metadata),
    }


def params(spec: TicketSpec, fields: Mapping[str, Any]) -> Iterator[Param]:
    """Params of a trial or a cell: its axis values, settings that matter, and the spec's digest.

    Args:
        fields: axis values by dotted field.
    """
    from mlflow.entities import Param

    for key, value in {**dotted_settings(spec), **fields}.items():
        yield Param(names.entry_name(key), setting_text(value)[: names.LONGEST_PARAM])


def dataset_input(spec: TicketSpec) -> DatasetInput:
    """The training examples of a spec, as MLflow's dataset with numbers of examples and digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = spec.data
    dataset = Dataset(
        name=data.name[: names.LONGEST],
        digest=sha256(describe(data))[: names.DATA_DIGEST],
        source_type="code",
        source=canonical_json({"tags": {names.SOURCE: data.name}}),
        profile=canonical_json(part_sizes(data)._asdict()),
    )
    return DatasetInput(dataset, [InputTag(names.SPLIT, "train")])


def verdict_numbers(verdicts: Sequence[Verdict]) -> Iterator[Number]:
    """Numbers of verdicts, with step = level; those that were not tested are left out."""
    for verdict in verdicts:
        values: dict[str, float | None] = {
            "matching": verdict.matching,
            "winning": verdict.verdict == "winning",
        }
        tests = {"p_matching": verdict.p_matching, "p_reinit": verdict.p_reinit,
                 "p_random": verdict.p_random}  # fmt: skip
        for name, p in tests.items():
            if p is not None:
                values |= {name: p.raw, f"{name}_adjusted": p.adjusted}
        for name, value in values.items():
            yield Number(f"{names.VERDICT}/{name}", float(value or 0), verdict.level)


def table_numbers(
    verdicts: Sequence[Verdict], records: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Number]:
    """Numbers for the table of runs: sparsest densities, and accuracies of dense and ticket.

    The table shows all digits, so they are rounded to four.

    Args:
        verdicts: verdicts of the cell, or of all cells.
        records: records of one trial, whose accuracies are given; empty: means over the replicates.
    """
    if not verdicts:
        return
    matching, winning = sparsest(verdicts), sparsest(verdicts, ["winning"])
    shown = matching or min(verdicts, key=lambda verdict: verdict.density)
    ends = {names.SPARSEST_MATCHING: matching, names.SPARSEST_WINNING: winning}
    for name, verdict in ends.items():
        if verdict:
            yield Number(name, _rounded(verdict.density))
    place = {"dense": (names.DENSE_ACCURACY, 0), "ticket": (names.TICKET_ACCURACY, shown.level)}
    own = {(r["branch"], r["level"]): r["final_test_accuracy"] for r in records}
    for branch, (name, level) in place.items():
        if not records:
            yield Number(name, _rounded(shown.accuracy[branch].mean))
        elif (branch, level) in own:  # a trial may have been stopped before
            yield Number(name, _rounded(own[branch, level]))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def dense_numbers(records: Sequence[Mapping[str, Any]]) -> Iterator[Number]:
    """Accuracy of the dense run at each later level, so that charts have it beside the ticket's."""
    dense = [record for record in records if record["branch"] == "dense"]
    for level in sorted({record["level"] for record in records} - {0}) if dense else ():
        yield from branch_numbers({**dense[0], "level": level}, _ACCURACY)


_ACCURACY = {"final_test_accuracy": names.BRANCH_METRICS["final_test_accuracy"]}
