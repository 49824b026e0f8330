"""Verdicts: tests over replicates paired by seed, pure functions from records to values.

docs/verdict.md explains the rule and has its error rates, which are simulated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import Any

from lth_core.analysis.groups import free_axes, group_by, key_of, methods, values_of
from lth_core.analysis.paired import PairedTest, holm, paired_tests
from lth_core.analysis.rewinds import merge_rewound_methods
from lth_core.analysis.sample_size import MOST_SEEDS, seeds_to_decide
from lth_core.analysis.summary import Summary, summarize
from lth_core.analysis.verdict_rule import DEFAULT_RULE, FEWEST, VerdictRule
from lth_core.columns import Record


@dataclass(frozen=True, slots=True)
class P:
    """p of a one-sided test, and p adjusted over all that is judged together."""

    raw: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class Family:
    """Levels and methods over which the p values of a verdict are adjusted."""

    levels: int
    """Number of levels with a verdict, over all methods."""
    methods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on the ticket of one cell at one level, over the replicates."""

    cell: dict[str, Any]
    """Axis values without the seed."""
    level: int
    density: float
    accuracy: dict[str, Summary]
    """Final test accuracy by branch, `dense` among them, over seeds with both dense and ticket."""
    early_stop: dict[str, Summary]
    """Early-stop step by branch; empty without validation examples."""
    rule: VerdictRule
    family: Family
    gap: PairedTest
    """Accuracy of the ticket less that of dense, by seed."""
    is_trained: bool
    """Whether tickets are trained. Those of weights that are never trained match at medium
    densities if at all, so that no order of the levels can be tested as a sequence."""
    p_matching: P | None
    """p of the ticket being less than the margin below dense; adjusted: the highest p from the
    densest level to this one, or by Holm over the levels where tickets are not trained, times the
    number of methods. None with too few replicates."""
    p_reinit: P | None
    """p of the ticket beating reinit, paired by seed. None with fewer than three pairs."""
    p_random: P | None
    """p of the ticket beating random_mask, as `p_reinit`; no word of the verdict depends on it."""
    p_faster: P | None
    """p of the ticket stopping earlier than dense. None with too few replicates, or without
    validation examples."""
    seeds_to_decide: int | None
    """Number of seeds that would decide an undecided level, and those that are tested before it,
    with a probability of 80% each, if means and deviations stay as they are. None where the level
    is decided, or where no number up to 1,000 would decide it."""
    verdict: str
    """One of `WORDS`."""

    @property
    def matching(self) -> bool:
        """Whether the ticket is shown to match."""
        return self.verdict in MATCHING

    @property
    def faster(self) -> bool:
        """Whether the ticket is shown to stop earlier than dense."""
        return self.p_faster is not None and self.p_faster.adjusted < self.rule.significant


WORDS = ("winning", "matching", "undecided", "not matching", "too few replicates")
"""Words of a verdict, the best first."""
MATCHING = ("matching", "winning")


def verdicts(
    records: Iterable[Record], axes: Sequence[str], rule: VerdictRule = DEFAULT_RULE
) -> list[Verdict]:
    """A verdict for every cell and level above 0, in the records' order.

    Cells that differ in nothing but the method are judged together.

    Args:
        records: as `LevelResult.records`, with every axis by its dotted name.
        axes: dotted names of the study's axes; those but `seed` make a cell.
    """
    records, names = list(records), [axis for axis in axes if axis != "seed"]
    records = merge_rewound_methods(records, axes)
    cells = group_by(records, values_of(names))
    free = values_of(free_axes(records, axes) if len(methods(records)) > 1 else names)
    judged = dict[str, list[Verdict]]()
    for rows in group_by(cells.values(), lambda rows: free(rows[0])).values():
        keys = [key_of(values_of(names)(cell[0])) for cell in rows]
        judged |= zip(keys, judge(rows, names, rule), strict=True)
    return [verdict for key in cells for verdict in judged[key]]


def verdicts_by_cell(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule
) -> Callable[[Sequence[Record]], list[Verdict]]:
    """A function from a cell's records to the verdicts on it, judged with all records.

    Args:
        records, axes: as for `verdicts`.
    """
    setting = values_of([axis for axis in axes if axis != "seed"])
    judged = group_by(verdicts(records, axes, rule), lambda v: list(v.cell.values()))
    return lambda cell: judged.get(key_of(setting(cell[0])), [])


def judge(
    cells: Sequence[Sequence[Record]], names: Sequence[str], rule: VerdictRule
) -> list[list[Verdict]]:
    """The verdicts of cells that are compared with each other: one list a cell.

    Args:
        cells: the records of each.
        names: axes whose values are `Verdict.cell`.
    """
    tested = [_levels(rows) for rows in cells]
    family = Family(
        sum(level.is_enough for levels in tested for level in levels),
        sum(any(level.is_enough for level in levels) for levels in tested),
    )
    together = rule.for_all == "holm"
    reinit = _adjusted([[level.p_reinit for level in levels] for levels in tested], together)
    random = _adjusted([[level.p_random for level in levels] for levels in tested], together)
    faster = _adjusted([[level.p_faster for level in levels] for levels in tested], together)
    sequences = family.methods if together else 1
    return [
        _cell_verdicts({n: rows[0].get(n) for n in names}, levels, rule, family, sequences, *ps)
        for rows, levels, *ps in zip(cells, tested, reinit, random, faster, strict=True)
    ]


def best_word(verdicts: Iterable[Verdict]) -> str:
    """Word of the best verdict; `none` where there are no verdicts."""
    words = {verdict.verdict for verdict in verdicts}
    return next((word for word in WORDS if word in words), "none")


def words_by_level(verdicts: Iterable[Verdict]) -> dict[int, str]:
    """Words of the verdicts on one cell or method, by level."""
    return {verdict.level: verdict.verdict for verdict in verdicts}


def sparsest(verdicts: Iterable[Verdict], words: Sequence[str] = MATCHING) -> Verdict | None:
    """The verdict of lowest density among those with one of the words."""
    return min((v for v in verdicts if v.verdict in words), key=lambda v: v.density, default=None)


def first_open(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The densest verdict on a cell that is not shown matching: there the sequence ends.

    Where tickets are not trained there is no sequence. Then None if any is shown to match; else the
    verdict on the highest accuracy, of the undecided levels if there are any.
    """
    if all(verdict.is_trained for verdict in verdicts):
        return next((v for v in verdicts if not v.matching), None)
    best = max(verdicts, key=lambda v: (v.verdict == "undecided", v.gap.mean))
    return None if sparsest(verdicts) else best


@dataclass(frozen=True, slots=True)
class _Level:
    """A level's replicates and the tests on them, before any adjustment."""

    level: int
    density: float
    accuracy: dict[str, Summary]
    early_stop: dict[str, Summary]
    is_trained: bool
    within_steps: bool
    """Whether no ticket took more steps than a dense run; those before its rewind point are the
    dense run's."""
    reached_by_all: bool
    """Whether every seed with a dense run has a ticket."""
    gap: PairedTest
    """Accuracy of the ticket less that of dense."""
    over_reinit: PairedTest | None
    over_random: PairedTest | None
    sooner: PairedTest | None
    """Early-stop step of dense less that of the ticket; None without validation examples."""

    @property
    def n(self) -> int:
        """Number of seeds that have both dense and ticket."""
        return self.gap.n

    @property
    def is_enough(self) -> bool:
        """Whether the level is tested. A seed that did not reach it, because a stop rule or a loss
        that is not finite ended it, would not match: the others alone would match too often."""
        return self.n >= FEWEST and self.reached_by_all

    @property
    def p_reinit(self) -> float | None:
        return self._p_over(self.over_reinit)

    @property
    def p_random(self) -> float | None:
        return self._p_over(self.over_random)

    def _p_over(self, test: PairedTest | None) -> float | None:
        return test.p_above(0) if test and test.n >= FEWEST and self.is_enough else None

    @property
    def p_faster(self) -> float | None:
        return self.sooner.p_above(0) if self.sooner and self.is_enough else None


def _levels(rows: Iterable[Record]) -> list[_Level]:
    """The levels of a cell that have a seed with dense run and ticket, rising."""
    by_level: dict[int, dict[str, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_level[row["level"]][row["branch"]][row["seed"]] = row
    dense = by_level.pop(0, {}).get("dense", {})
    levels, tables = [], []
    for level, branches in sorted(by_level.items()):
        if seeds := [seed for seed in dense if seed in branches.get("ticket", {})]:
            levels.append(level)
            tables.append({
                branch: {seed: found[seed] for seed in seeds if seed in found}
                for branch, found in {"dense": dense, **branches}.items()
            })  # fmt: skip
    gaps = paired_tests([_differences(t, "ticket", "dense", "final_test_accuracy") for t in tables])
    over_reinit = _tests(tables, "ticket", "reinit", "final_test_accuracy")
    over_random = _tests(tables, "ticket", "random_mask", "final_test_accuracy")
    sooner = _tests(tables, "dense", "ticket", "early_stop_step")
    return [
        _Level(
            level=level,
            density=fmean(row["density"] for row in table["ticket"].values()),
            accuracy=_summaries(table, "final_test_accuracy"),
            early_stop=_summaries(table, "early_stop_step"),
            is_trained=all(row["when"] != "never" for row in table["ticket"].values()),
            within_steps=max(row["steps"] for row in table["ticket"].values())
            <= min(row["steps"] for row in table["dense"].values()),
            reached_by_all=len(table["ticket"]) == len(dense),
            gap=gap,
            over_reinit=reinit,
            over_random=random,
            sooner=earlier,
        )
        for level, table, gap, reinit, random, earlier in zip(
            levels, tables, gaps, over_reinit, over_random, sooner, strict=True
        )
    ]


_Table = Mapping[str, Mapping[int, Record]]
"""Records of a level by branch and seed."""


def _tests(
    tables: Sequence[_Table], branch: str, other: str, column: str
) -> list[PairedTest | None]:
    """Tests of each level on a branch less another; None at a level without a pair."""
    differences = [_differences(table, branch, other, column) for table in tables]
    tests = iter(paired_tests([level for level in differences if level]))
    return [next(tests) if level else None for level in differences]


def _differences(table: _Table, branch: str, other: str, column: str) -> dict[int, float]:
    values, others = (_values(table.get(name, {}), column) for name in (branch, other))
    return {seed: value - others[seed] for seed, value in values.items() if seed in others}


def _summaries(table: _Table, column: str) -> dict[str, Summary]:
    values = {branch: _values(rows, column) for branch, rows in table.items()}
    return {branch: summarize(list(found.values())) for branch, found in values.items() if found}


def _values(rows: Mapping[int, Record], column: str) -> dict[int, float]:
    """Values of a column by seed; early stop is None without validation examples."""
    return {seed: row[column] for seed, row in rows.items() if row[column] is not None}


def _adjusted(cells: Sequence[Sequence[float | None]], together: bool) -> list[list[P | None]]:
    """p values of the levels of each cell, with those adjusted over all cells."""
    every = [p for cell in cells for p in cell if p is not None]
    adjusted = iter(holm(every) if together else every)
    return [[None if p is None else P(p, next(adjusted)) for p in cell] for cell in cells]


def _cell_verdicts(
    cell: dict[str, Any], levels: Sequence[_Level], rule: VerdictRule, family: Family,
    sequences: int, reinit: Sequence[P | None], random: Sequence[P | None],
    faster: Sequence[P | None],
) -> list[Verdict]:  # fmt: skip
    """Verdicts of a cell.

    Args:
        sequences: number of sequences of levels that are tested together.
        reinit, random, faster: adjusted p values by level.
    """
    above = [_p_matching(level, rule) for level in levels]
    below = [level.gap.p_below(-rule.margin) if level.is_enough else 0.0 for level in levels]
    trained = all(level.is_trained for level in levels)
    matching = [min(sequences * p, 1.0) for p in _over_levels(above, trained, rule)]
    worse = [min(sequences * p, 1.0) for p in _over_levels(below[::-1], trained, rule)[::-1]]
    tests = sequences if trained or rule.for_all == "none" else sequences * len(levels)
    found = []
    for i, level in enumerate(levels):
        p_reinit, is_enough = reinit[i], level.is_enough
        if not is_enough:
            word = "too few replicates"
        elif matching[i] < rule.significant:
            wins = p_reinit is not None and p_reinit.adjusted < rule.significant
            word = "winning" if wins else "matching"
        elif not level.within_steps or worse[i] < rule.significant:
            word = "not matching"
        else:
            word = "undecided"
        seeds = None
        if word == "undecided":
            before = _open_before(i, levels, above, below, rule, sequences) if trained else [level]
            needed = [seeds_to_decide(each.gap, rule, tests) for each in before]
            seeds = max(needed) if needed and max(needed) <= MOST_SEEDS else None
        found.append(Verdict(
            cell=cell, level=level.level, density=level.density, accuracy=level.accuracy,
            early_stop=level.early_stop, rule=rule, family=family, gap=level.gap,
            is_trained=trained,
            p_matching=P(above[i], matching[i]) if is_enough else None, p_reinit=p_reinit,
            p_random=random[i], p_faster=faster[i], seeds_to_decide=seeds, verdict=word,
        ))  # fmt: skip
    return found


def _over_levels(ps: Sequence[float], in_sequence: bool, rule: VerdictRule) -> list[float]:
    """p values adjusted over the levels of a cell.

    Args:
        ps: in the order in which levels are tested.
        in_sequence: whether each level is tested at the full 5% as long as all before it succeed,
            which takes an order that was fixed before: for tickets that are trained, by density.
    """
    if in_sequence:
        return list(accumulate(ps, max))
    return holm(ps) if rule.for_all == "holm" else list(ps)


def _p_matching(level: _Level, rule: VerdictRule) -> float:
    """p of the ticket being less than the margin below dense, after no more steps."""
    if not level.is_enough or not level.within_steps:
        return 1.0
    return level.gap.p_above(-rule.margin)


def _open_before(
    i: int, levels: Sequence[_Level], above: Sequence[float], below: Sequence[float],
    rule: VerdictRule, sequences: int,
) -> list[_Level]:  # fmt: skip
    """Levels whose tests must succeed before an undecided level is decided, itself among them; none
    where one of them lies on the other side of the margin, or cannot match, and so never will.

    Args:
        i: position of the undecided level.
        above, below, sequences: as in `_cell_verdicts`.
    """

    def is_above(level: _Level) -> bool:
        return level.gap.mean > -rule.margin

    matches = is_above(levels[i])
    order, ps = (levels[: i + 1], above) if matches else (levels[i:], below[i:])
    found = [
        level for level, p in zip(order, ps, strict=False) if p * sequences >= rule.significant
    ]
    can_match = all(level.is_enough and level.within_steps for level in found) or not matches
    return found if can_match and all(is_above(level) == matches for level in found) else []
