"""Structures as text: what they cost and how alike they are, for the terminal and the HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_core.analysis.families import variant_verdicts
from lth_core.analysis.groups import methods
from lth_core.analysis.structures import (
    COSTS,
    Similarity,
    SimilarityPoint,
    StructureRow,
    StructureTable,
    similarities,
    structure_tables,
)
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import words_by_level
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.report.method_table import Mark, dense_accuracies
from tracking.text import (
    MISSING,
    accuracy_text,
    count,
    density_text,
    flops_text,
)


@dataclass(frozen=True, slots=True)
class CostRow:
    """Structures of one method at one budget or level, trained in one way."""

    name: str
    """The method's name, and the branch's but for `ticket`."""
    differs: str
    """Level and branch, those that the method's rows differ in, where the row above has the same
    method; else empty."""
    shares: dict[str, str]
    """Measured shares of the dense network's costs, in percent."""
    latency: str
    """Milliseconds of a forward pass; empty where it was not measured."""
    mark: Mark
    search_flops: str
    search_seconds: str
    factor: str
    """Ratio of the FLOPs of training the dense network to those of the search."""


@dataclass(frozen=True, slots=True)
class CostTable:
    """Structures of all methods, in one cell of the axes that no method determines."""

    label: str
    """The cell's label; empty where there is only one cell."""
    dense: list[str]
    """Accuracies of the dense runs."""
    costs: list[str]
    """Names of the measured costs, of `lth_core.analysis.structures.COSTS`."""
    device: str
    """Device of the measured latency; empty where there is none."""
    groups: dict[str, list[CostRow]]
    """Rows by family."""


@dataclass(frozen=True, slots=True)
class SimilarityRow:
    """Structures of all seeds at one rewind point."""

    point: str
    similarity: str
    """Mean correlation between seeds, in [-1, 1]."""
    interval: str
    """Its 95% interval; empty with fewer than three seeds."""
    with_first: str
    """Mean correlation with the same seed's structure at the first rewind point."""
    flops: str
    """Mean share of the dense network's, in percent."""
    flops_range: str
    """Least and largest share over seeds."""
    parameters: str
    parameters_range: str
    accuracy: str
    """Accuracy of the structures that were trained from scratch."""
    search_flops: str


@dataclass(frozen=True, slots=True)
class SimilarityTable:
    """Similarity of a method's structures after more and more training."""

    label: str
    answer: str
    """Whether the similarity between seeds grows, with the numbers."""
    grows: bool | None
    layers: int
    """Number of layers that are compared."""
    rows: list[SimilarityRow]


def cost_tables(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule
) -> list[CostTable]:
    """Tables of what structures cost and reach, and what finding them costs.

    Args:
        records, axes: as in `lth_core.analysis.structures.structure_tables`.
        rule: as in `tracking.report.html.write_report`.
    """
    return [_costs(table, rule) for table in structure_tables(records, axes)]


def similarity_tables(records: Sequence[Record], axes: Sequence[str]) -> list[SimilarityTable]:
    """Tables of how alike the structures of several seeds are; arguments as in `cost_tables`."""
    found = similarities(records, axes)
    several = len({each.level for each in found}) > 1
    return [_similarity(each, f", level {each.level}" * several) for each in found]


def _costs(table: StructureTable, rule: VerdictRule) -> CostTable:
    variants = list(dict.fromkeys(row.variant for row in table.rows))
    parts = {id(row.cell): row.cell for row in table.rows}
    verdicts = {key: variant_verdicts(part, variants, rule) for key, part in parts.items()}
    best = max(row.accuracy.mean for row in table.rows) if len(table.rows) > 1 else None
    groups: dict[str, list[CostRow]] = {}
    for above, row in zip([None, *table.rows], table.rows, strict=False):
        judged = verdicts[id(row.cell)].get(row.variant, [])
        word = words_by_level(judged).get(row.level, "")
        same = above is not None and above.variant.method == row.variant.method
        marked = _cost_row(
            row, _differing(row, table.rows) if same else "", word, row.accuracy.mean == best
        )
        groups.setdefault(row.variant.family, []).append(marked)
    devices = {r["latency_device"]: None for r in table.cell.records if r.get("latency_device")}
    return CostTable(
        label=table.cell.label,
        dense=dense_accuracies(table.cell),
        costs=[cost for cost in COSTS if any(cost in row.shares for row in table.rows)],
        device=" or ".join(map(str, devices)),
        groups=groups,
    )


def _differing(row: StructureRow, rows: Sequence[StructureRow]) -> str:
    """Level and branch of a row, those that its method's rows differ in: `level 2, finetune`."""
    alike = [other for other in rows if other.variant.method == row.variant.method]
    several_levels = len({other.level for other in alike}) > 1
    several_branches = len({other.variant.branch for other in alike}) > 1
    words = [f"level {row.level}"] * several_levels + [row.variant.branch] * several_branches
    return ", ".join(words)


def _cost_row(row: StructureRow, differs: str, verdict: str, best: bool) -> CostRow:
    cell = row.cell.of_method(row.variant.method)
    rows = cell.levels(row.variant.branch)[row.level]
    return CostRow(
        name=row.variant.name,
        differs=differs,
        shares={cost: density_text(share.mean) for cost, share in row.shares.items()},
        latency="" if row.latency_ms is None else f"{row.latency_ms:.3g} ms",
        mark=Mark(
            accuracy=accuracy_text(row.accuracy),
            best=best,
            worse=False,
            verdict=verdict,
            collapsed=any(record["collapsed_layers"] for record in rows),
            short=cell.is_short(row.accuracy.n),
        ),
        search_flops=flops_text(row.search_flops),
        search_seconds=f"{row.search_seconds:.3g} s",
        factor=f"{row.factor:.3g}" if row.factor else MISSING,
    )


def _similarity(each: Similarity, ending: str) -> SimilarityTable:
    name = each.cell.label or methods(each.cell.records)[0]
    return SimilarityTable(
        label=name + ending,
        answer=_answer(each),
        grows=each.trend.grows if each.trend else None,
        layers=len(each.layers),
        rows=[_similarity_row(point) for point in each.points],
    )


def _similarity_row(point: SimilarityPoint) -> SimilarityRow:
    between, found = point.between_seeds, point.structures
    return SimilarityRow(
        point=point.name,
        similarity=f"{between.mean:.2f}" if between else MISSING,
        interval=_interval(between, 1) if between else "",
        with_first=f"{point.with_first.mean:.2f}" if point.with_first else MISSING,
        flops=density_text(fmean(structure.flops for structure in found)),
        flops_range=_range([structure.flops for structure in found]),
        parameters=density_text(fmean(structure.parameters for structure in found)),
        parameters_range=_range([structure.parameters for structure in found]),
        accuracy=accuracy_text(point.accuracy) if point.accuracy else MISSING,
        search_flops=flops_text(point.search_flops),
    )


def _answer(each: Similarity) -> str:
    """`Yes, ... grows with training before the pruning: by +0.31 ...`, or no, or undecided."""
    trend = each.trend
    if trend is None:
        return "Undecided: fewer than two rewind points have a similarity between seeds."
    # The correlations at both ends may differ in the other direction; the table has them.
    ends = f"from {trend.first} to {trend.last}"
    over = f"{trend.points} rewind points, {count(trend.rise.n, 'seed')}"
    rise = f"a line through all points rises by {trend.rise.mean:+.2f}"
    if trend.rise.low is None:
        return (
            f"Undecided whether the correlation between seeds grows {ends}: {rise} ({over}, and "
            "an interval needs three seeds)."
        )
    rise = f"{rise} (95% interval {_interval(trend.rise, 2)}; {over})"
    if trend.grows is None:
        return f"Undecided whether the correlation between seeds grows {ends}: {rise}."
    word, verb = ("Yes", "grows") if trend.grows else ("No", "falls")
    return f"{word}: the correlation between seeds {verb} {ends}; {rise}."


def _interval(value: Summary, most: float) -> str:
    """`0.12 to 0.50`, cut at -most and most."""
    if value.low is None or value.high is None:
        return ""
    ends = max(value.low, -most), min(value.high, most)
    return " to ".join(f"{end:.2f}" for end in ends)


def _range(shares: Sequence[float]) -> str:
    """Least and largest share in percent."""
    return "\N{EN DASH}".join(f"{100 * end:.3g}" for end in (min(shares), max(shares)))
