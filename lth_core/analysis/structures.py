"""Structures of networks that lose channels or neurons: what they cost, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import StatisticsError, correlation, fmean

from lth_core.analysis.cells import Cell, cells, evenly_spaced, open_cells
from lth_core.analysis.families import Variant, variants
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import MOST_LEVELS, rewind_cells, rewind_points
from lth_core.analysis.summary import Summary, summarize, t_975
from lth_core.columns import Record

FROM_SCRATCH = "scratch_e"
"""Branch whose accuracy says how good a structure is, whatever weights it came with."""
BUDGET = "prune.budget"
"""Start of the names of axes whose values are budgets, points of one line in a figure."""
COSTS = {
    "flops": ("flops", "dense_flops"),
    "parameters": ("kept_parameters", "parameters"),
    "latency": ("latency_ms", "dense_latency_ms"),
}
"""Columns of each cost, and of the same cost of the dense network."""


def is_structured(record: Record) -> bool:
    """Whether the record's method removes channels or neurons: it has a cost of the search."""
    return record.get("search_flops") is not None


def share(record: Record, cost: str) -> float | None:
    """A cost of `COSTS` as a share of the dense network's; None where it was not measured."""
    own, dense = (record.get(column) for column in COSTS[cost])
    return None if own is None or not dense else own / dense


# Costs, methods side by side


@dataclass(frozen=True, slots=True)
class StructureRow:
    """Structures of one method at one budget or level, trained in one way: means over seeds."""

    variant: Variant
    cell: Cell
    """Records of all methods at the budget."""
    level: int
    shares: dict[str, Summary]
    """Shares of the dense network's costs, by the names of `COSTS`; only the measured ones."""
    latency_ms: float | None
    accuracy: Summary
    """Final test accuracy, in [0, 1]."""
    search_flops: float
    """FLOPs of finding the structure; those of training it are not counted."""
    search_seconds: float
    factor: float | None
    """FLOPs of the dense run's training, from which methods that train, prune and fine-tune take
    their structure, over those of this search; None where the search costs no FLOPs."""


HALF = 0.5
"""Share of the dense network's FLOPs at which structures are compared in the answer."""


@dataclass(frozen=True, slots=True)
class StructureTable:
    """Structures of all methods, in one cell of the axes that no method determines."""

    cell: Cell
    rows: list[StructureRow]
    """By family, method and branch, costly structures first."""


def structure_tables(records: Sequence[Record], axes: Sequence[str]) -> list[StructureTable]:
    """One table a cell, budgets of an axis side by side; none in a study of several rewind points.

    Args:
        records: the output of `rewinds.merge_rewound_methods`; methods that remove neither channels
            nor neurons are left out.
        axes: dotted names of the study's axes.
    """
    records = [record for record in records if is_structured(record)]
    if rewind_cells(records, axes):
        return []
    budgets = [axis for axis in axes if axis.startswith(BUDGET)]
    compared, tables = variants(records), list[StructureTable]()
    for cell in open_cells(records, [axis for axis in axes if axis not in budgets]):
        parts = cells(cell.records, budgets)
        rows = [row for variant in compared for row in _rows(parts, variant)]
        tables += [StructureTable(cell, rows)] if rows else []
    return tables


def only_structures(records: Sequence[Record], axes: Sequence[str]) -> bool:
    """Whether all methods remove channels or neurons, and are compared by cost or similarity."""
    if {r["method"] for r in records if is_structured(r)} != set(methods(records)):
        return False
    return bool(structure_tables(records, axes) or similarities(records, axes))


def _rows(parts: Sequence[Cell], variant: Variant) -> list[StructureRow]:
    """A variant's rows: of at most `MOST_LEVELS` budgets and levels, evenly spaced, and the one
    nearest to half of the FLOPs.

    Args:
        parts: a cell for each budget.
    """
    rows = [
        _row(part, variant, level, records)
        for part in parts
        for level, records in part.of_method(variant.method).levels(variant.branch).items()
    ]
    costly_first = sorted(rows, key=lambda row: -row.shares["flops"].mean)
    shown = [id(row) for row in evenly_spaced(costly_first, MOST_LEVELS)]
    nearest = min(costly_first, key=lambda row: abs(row.shares["flops"].mean - HALF), default=None)
    return [row for row in costly_first if id(row) in shown or row is nearest]


def _row(part: Cell, variant: Variant, level: int, rows: Sequence[Record]) -> StructureRow:
    dense = {r["trial"]: r["train_flops"] for r in part.records if r["branch"] == "dense"}
    searched = [(dense[r["trial"]], r["search_flops"]) for r in rows if r["trial"] in dense]
    spent = sum(flops for _, flops in searched)
    latencies = [row["latency_ms"] for row in rows if row.get("latency_ms") is not None]
    return StructureRow(
        variant=variant,
        cell=part,
        level=level,
        shares={cost: found for cost in COSTS if (found := _shares(rows, cost))},
        latency_ms=fmean(latencies) if latencies else None,
        accuracy=summarize([row["final_test_accuracy"] for row in rows]),
        search_flops=fmean(row["search_flops"] for row in rows),
        search_seconds=fmean(row["search_seconds"] for row in rows),
        factor=sum(flops for flops, _ in searched) / spent if spent else None,
    )


def _shares(rows: Sequence[Record], cost: str) -> Summary | None:
    shares = [found for row in rows if (found := share(row, cost)) is not None]
    return summarize(shares) if shares else None


# Similarity, after more or less training


@dataclass(frozen=True, slots=True)
class FoundStructure:
    """The structure that one seed's pruning finds at one rewind point."""

    point: str
    """The rewind point as the study spells it: the training before the pruning."""
    step: int
    seed: int
    kept: tuple[float, ...]
    """Share of the dense network's outputs that each of `Similarity.layers` keeps; above 1 in a
    widened network."""
    flops: float
    """Share of the dense network's."""
    parameters: float
    """Share of the dense network's."""
    accuracy: float | None
    """Final test accuracy of `FROM_SCRATCH`, in [0, 1]; None without that branch."""


@dataclass(frozen=True, slots=True)
class SimilarityPoint:
    """Structures of all seeds at one rewind point."""

    name: str
    step: int
    structures: list[FoundStructure]
    between_seeds: Summary | None
    """Mean correlation of two seeds' structures, with the interval of `over_pairs`; n is the number
    of seeds. None where fewer than two structures have a correlation."""
    with_first: Summary | None
    """Correlation with the same seed's structure at the first rewind point; None without any."""
    search_flops: float
    """Mean FLOPs of finding a structure, the training before the pruning included."""

    @property
    def accuracy(self) -> Summary | None:
        """Accuracy of the structures, trained from scratch."""
        reached = [s.accuracy for s in self.structures if s.accuracy is not None]
        return summarize(reached) if reached else None


@dataclass(frozen=True, slots=True)
class Trend:
    """Change of the similarity between seeds from the first rewind point to the last."""

    rise: Summary
    """Rise of the line of least squares through the points, which are evenly spaced, from first to
    last; n is the number of seeds that have a structure at every point."""
    first: str
    last: str
    points: int

    @property
    def grows(self) -> bool | None:
        """True or False where the interval is above or below 0; None where neither is shown."""
        if self.rise.low is None or self.rise.high is None or self.rise.low <= 0 <= self.rise.high:
            return None
        return self.rise.low > 0


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity of all structures of a cell at one level: those of a method, as a rule."""

    cell: Cell
    level: int
    layers: tuple[str, ...]
    structures: list[FoundStructure]
    """By rewind point, then by seed."""
    matrix: list[list[float | None]]
    """Correlation of each two of the structures, in [-1, 1]."""
    points: list[SimilarityPoint]
    trend: Trend | None
    """None where fewer than two points have a similarity between seeds."""


def similarities(records: Sequence[Record], axes: Sequence[str]) -> list[Similarity]:
    """Similarities in a study of several rewind points, of each cell of its other axes and level.

    Layers that lose outputs in no structure of the study are left out: the output layer, and
    linear layers where channels are pruned.

    Args:
        records, axes: as in `structure_tables`.
    """
    layers, found = _pruned_layers(records), list[Similarity]()
    for cell in rewind_cells([r for r in records if is_structured(r)], axes):
        levels = sorted({record["level"] for record in cell.records} - {0})
        for level in evenly_spaced(levels, MOST_LEVELS):
            points = [p for p in _points(cell, level, layers) if p.structures]
            structures = [structure for point in points for structure in point.structures]
            if any(len(point.structures) > 1 for point in points):
                matrix = [[similarity(a, b) for b in structures] for a in structures]
                found.append(
                    Similarity(cell, level, layers, structures, matrix, points, trend_of(points))
                )
    return found


def similarity(one: FoundStructure, other: FoundStructure) -> float | None:
    """Pearson correlation over layers of the shares that two structures keep, in [-1, 1].

    None where one of them keeps the same share of every layer, or has a single layer.
    """
    try:
        return max(-1.0, min(1.0, correlation(one.kept, other.kept)))
    except StatisticsError:
        return None


def over_pairs(values: Mapping[tuple[int, int], float]) -> Summary:
    """Mean over pairs of seeds, with a 95% interval over seeds; n is the number of seeds.

    Pairs share seeds, so they are not independent. The interval is the jackknife's, which leaves
    out one seed at a time with all of its pairs (Arvesen 1969), with Student's t; it needs three
    seeds.

    Args:
        values: a number for every pair of some seeds.
    """
    seeds, mean = sorted({seed for pair in values for seed in pair}), fmean(values.values())
    n = len(seeds)
    if n < 3:
        return Summary(n, mean, None, None, None)
    without = [fmean(v for pair, v in values.items() if seed not in pair) for seed in seeds]
    middle = fmean(without)
    error = sqrt((n - 1) / n * sum((value - middle) ** 2 for value in without))
    half = t_975(n - 1) * error
    return Summary(n, mean, None, mean - half, mean + half)


def trend_of(points: Sequence[SimilarityPoint]) -> Trend | None:
    """Trend of the similarity between seeds; points without any are left out."""
    shown = [point for point in points if point.between_seeds]
    if len(shown) < 2:
        return None
    by_pair = [_between_seeds(point.structures) for point in shown]
    common = set(by_pair[0]).intersection(*by_pair)
    if not common:
        return None
    last = len(shown) - 1
    spread = sum((x - last / 2) ** 2 for x in range(last + 1))
    # The rise is linear in each pair's similarities, so it is a mean over pairs as they are.
    rises = {
        pair: sum(last * (x - last / 2) / spread * values[pair] for x, values in enumerate(by_pair))
        for pair in common
    }
    return Trend(over_pairs(rises), shown[0].name, shown[-1].name, len(shown))


def _between_seeds(structures: Sequence[FoundStructure]) -> dict[tuple[int, int], float]:
    """Similarity of each two seeds' structures at one point; those without any are left out."""
    return {
        (one.seed, other.seed): found
        for one, other in combinations(structures, 2)
        if (found := similarity(one, other)) is not None
    }


def _points(cell: Cell, level: int, layers: Sequence[str]) -> list[SimilarityPoint]:
    points = list[SimilarityPoint]()
    for point in rewind_points(cell):
        dense = {r["seed"]: r for r in point.cell.records if r["branch"] == "dense"}
        tickets = _found_at(point.cell, level)
        scratch = {r["seed"]: r for r in point.cell.levels(FROM_SCRATCH).get(level, [])}
        structures = [
            FoundStructure(
                point=point.name,
                step=point.step,
                seed=seed,
                kept=tuple(
                    ticket["layer_outputs"][name] / dense[seed]["layer_outputs"][name]
                    for name in layers
                    if name in ticket["layer_outputs"]
                ),
                flops=share(ticket, "flops") or 0.0,
                parameters=share(ticket, "parameters") or 0.0,
                accuracy=scratch[seed]["final_test_accuracy"] if seed in scratch else None,
            )
            for seed, ticket in sorted(tickets.items())
            if seed in dense
        ]
        pairs = _between_seeds(structures)
        first = next((earlier.structures for earlier in points if earlier.structures), structures)
        searched = fmean(r["search_flops"] for r in tickets.values()) if tickets else 0.0
        points.append(
            SimilarityPoint(
                name=point.name,
                step=point.step,
                structures=structures,
                between_seeds=over_pairs(pairs) if pairs else None,
                with_first=_same_seeds(structures, first),
                search_flops=searched,
            )
        )
    return points


def _same_seeds(
    structures: Sequence[FoundStructure], others: Sequence[FoundStructure]
) -> Summary | None:
    """Similarity of each seed's structures at two points, over seeds."""
    found = [
        alike
        for one in structures
        for other in others
        if one.seed == other.seed and (alike := similarity(one, other)) is not None
    ]
    return summarize(found) if found else None


def _found_at(cell: Cell, level: int) -> dict[int, Record]:
    """A record of each seed's structure at a level: the ticket's, or one that is trained from
    scratch."""
    return {
        record["seed"]: record
        for branch in (FROM_SCRATCH, "ticket")
        for record in cell.levels(branch).get(level, [])
    }


def _pruned_layers(records: Sequence[Record]) -> tuple[str, ...]:
    """Layers that have another number of outputs in some structure than in the dense network."""
    structured = [record for record in records if is_structured(record)]
    dense = {r["trial"]: r["layer_outputs"] for r in structured if r["branch"] == "dense"}
    pruned = {
        name
        for record in structured
        if record["trial"] in dense
        for name, outputs in record["layer_outputs"].items()
        if outputs != dense[record["trial"]].get(name)
    }
    every = dict.fromkeys(name for record in structured for name in record["layer_outputs"])
    return tuple(name for name in every if name in pruned)
