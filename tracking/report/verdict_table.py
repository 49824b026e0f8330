"""Verdicts as text, for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.groups import group_by, key_of
from lth_core.analysis.sample_size import MOST_SEEDS
from lth_core.analysis.verdict import (
    MATCHING,
    P,
    Verdict,
    first_open,
    sparsest,
    verdicts,
)
from lth_core.analysis.verdict_rule import FEWEST, VerdictRule
from lth_core.columns import Record
from lth_core.jobs.branches import NOT_COMPARED
from tracking.text import MISSING, accuracy_text, count, density_text, listed, rule_text

MOST_LISTED = 4
"""Largest number of densities that a sentence lists."""

TOO_FEW = "too few replicates"
NO_VERDICT = f"No verdict yet: a verdict takes {FEWEST} seeds, and all that have a dense run."
NO_RECORDS = "Nothing has been trained yet."


@dataclass(frozen=True, slots=True)
class PText:
    """A p value and the adjusted one, as text."""

    raw: str
    adjusted: str


@dataclass(frozen=True, slots=True)
class Row:
    """A verdict as text: density and accuracies in percent, differences in points."""

    level: int
    density: str
    accuracy: dict[str, str]
    """Mean, and half of the 95% interval, by branch."""
    beyond_dense: str
    """Mean accuracy of the ticket less that of the dense run."""
    early_stop: str
    """Mean early-stop steps of the ticket and of the dense run; empty without them."""
    faster: str
    """`yes` or `no`; empty without early-stop steps."""
    p_matching: PText
    p_reinit: PText
    p_random: PText
    verdict: str
    seeds_to_decide: str
    """Text from `needed_seeds_text`; empty where the level is decided."""
    replicates: int
    """Number of seeds of the verdict."""
    short: bool
    """Whether the replicates are fewer than planned."""
    collapsed: bool
    """Whether the ticket has a layer without weights, in any replicate."""
    barrier: str
    """Rise of test error between the ticket and its twin."""


@dataclass(frozen=True, slots=True)
class Section:
    """A cell as text."""

    label: str
    values: dict[str, str]
    """Texts of the axis values and of the method, by name."""
    finding: str
    """Sentence, without its full stop, on the sparsest matching ticket, and on reinit."""
    winning: str
    """Density of the sparsest winning ticket; empty without one."""
    matching: str
    """Density of the sparsest matching ticket; empty without one."""
    end: str
    """Sentence on the level at which the matching ones end; empty where all match."""
    seeds: str
    """`5`, or `4 of 5` where there are fewer than planned."""
    dense: str
    """Accuracy of the dense runs in percent."""
    basis: str
    """The dense accuracy, the barrier between two copies of the dense network where it was
    measured, the margin, what the verdicts are adjusted over, and how often tickets are shown
    better than random masks."""
    branches: list[str]
    """Ticket and controls. Copies for barriers are left out: their result is the barrier."""
    barriers: bool
    """Whether barriers were measured."""
    early_stops: bool
    """Whether early stops were measured: there are validation examples."""
    planned: int | None
    """Replicates planned; None where the records lack the number."""
    rows: list[Row]
    """One row a level."""
    best: int | None
    """Position of the sparsest matching row."""
    headline: str
    """The finding after the cell's label."""


def sections(records: Sequence[Record], axes: Sequence[str], rule: VerdictRule) -> list[Section]:
    """Sections of the cells, in the order of `cells`."""
    found = group_by(verdicts(records, axes, rule), lambda verdict: list(verdict.cell.values()))
    return [
        _section(cell, found.get(key_of(list(cell.values.values())), []))
        for cell in cells(records, axes)
    ]


def _section(cell: Cell, cell_verdicts: Sequence[Verdict]) -> Section:
    dense = cell.series("dense", "final_test_accuracy")
    basis = f"Dense {accuracy_text(dense[0].value)}%" if dense else "The dense run is missing"
    for point in cell.series("twin", "test_barrier"):
        if point.level == 0:
            basis += f", barrier between two copies {accuracy_text(point.value)} points"
    if any(verdict.verdict != TOO_FEW for verdict in cell_verdicts):
        basis += f"; {_rule_text(cell_verdicts[0])}{_over_random(cell_verdicts)}"
    best, finding = sparsest(cell_verdicts), _finding(cell, cell_verdicts)
    capital = f"{finding[0].upper()}{finding[1:]}"
    winner, end = sparsest(cell_verdicts, words=["winning"]), first_open(cell_verdicts)
    return Section(
        label=cell.label or "All trials",
        values=cell.shown,
        finding=capital,
        winning=density_text(winner.density) if winner else "",
        matching=density_text(best.density) if best else "",
        end=_end(end) if end else "",
        seeds=f"{cell.seeds} of {cell.planned}" if cell.is_short(cell.seeds) else str(cell.seeds),
        dense=accuracy_text(dense[0].value) if dense else MISSING,
        basis=basis,
        branches=[branch for branch in cell.branches if branch not in ("dense", *NOT_COMPARED)],
        barriers="twin" in cell.branches,
        early_stops=any(verdict.early_stop for verdict in cell_verdicts),
        planned=cell.planned,
        rows=[_row(cell, verdict) for verdict in cell_verdicts],
        best=cell_verdicts.index(best) if best else None,
        headline=f"{cell.label}: {finding}" if cell.label else capital,
    )


def _finding(cell: Cell, cell_verdicts: Sequence[Verdict]) -> str:
    """One line on a cell: the sparsest matching ticket, and how it compares with reinit."""

    def counted(replicates: int) -> str:
        if cell.is_short(replicates):
            return f"{replicates} of {count(cell.planned or 0, 'seed')}"
        return count(replicates, "seed")

    if not cell_verdicts:
        return "no ticket yet"
    seeds = counted(max(verdict.accuracy["ticket"].n for verdict in cell_verdicts))
    if all(verdict.verdict == TOO_FEW for verdict in cell_verdicts):
        enough = max(verdict.accuracy["ticket"].n for verdict in cell_verdicts) >= FEWEST
        takes = "every seed that has a dense run" if enough else FEWEST
        return f"too few replicates ({seeds}; a verdict takes {takes})"
    best, winner = sparsest(cell_verdicts), sparsest(cell_verdicts, words=["winning"])
    end = first_open(cell_verdicts)
    if best is None:
        assert end is not None
        return f"no ticket shown to match ({seeds}); {_end(end)}"
    seeds = counted(best.accuracy["ticket"].n)
    line = f"tickets match {reach_text(cell_verdicts)} density ({seeds})"
    if winner:
        line = f"tickets win {reach_text(cell_verdicts, ['winning'])} density ({seeds}"
        line += f", {_p_sentence(winner.p_reinit, winner.rule)})"
        if best is not winner:
            line += f", match {reach_text(cell_verdicts)}"
    elif any(verdict.p_reinit for verdict in cell_verdicts):
        line += ", not shown better there than reinit"
    return f"{line}; {_end(end)}" if end else line


def reach_text(cell_verdicts: Sequence[Verdict], words: Sequence[str] = MATCHING) -> str:
    """Densities of a cell's verdicts with one of the words: `down to 13.4%` where all denser ones
    have it too, else `from 21% to 13.4%`, `at 50% and 30%` or `at 7 densities from 64% to 3%`."""
    order = sorted(cell_verdicts, key=lambda verdict: -verdict.density)
    having = [number for number, verdict in enumerate(order) if verdict.verdict in words]
    found = [density_text(order[number].density) for number in having]
    first, last = having[0], having[-1]
    if len(having) == last + 1 and all(verdict.is_trained for verdict in order):
        return f"down to {found[-1]}"
    if len(having) == last - first + 1 and len(having) > 2:
        return f"from {found[0]} to {found[-1]}"
    if len(having) > MOST_LISTED:
        return f"at {len(having)} densities from {found[0]} to {found[-1]}"
    return f"at {listed(found)}"


def _end(end: Verdict) -> str:
    """Sentence on the level at which the sequence of matching levels ends, or on the best level of
    tickets that are not trained."""
    density = density_text(end.density)
    if not end.is_trained and end.verdict != "undecided":
        density += ", the best,"
    if end.verdict == "undecided":
        return f"{density} is undecided, {needed_seeds_text(end)} would decide"
    if end.verdict == TOO_FEW:
        return f"{density} has too few replicates"
    return f"{density} does not match"


def needed_seeds_text(verdict: Verdict) -> str:
    """Number of seeds that would decide an undecided level: `about 9 seeds`."""
    seeds = verdict.seeds_to_decide
    return f"about {seeds:,} seeds" if seeds else f"not even {MOST_SEEDS:,} seeds"


def _rule_text(verdict: Verdict) -> str:
    """`margin 0.5 points, 95% confidence over 20 levels of 9 methods (Holm)`."""
    rule, family = verdict.rule, verdict.family
    text = rule_text(rule)
    if rule.for_all == "none":
        return f"{text} at each level, not adjusted"
    text += f" over {count(family.levels, 'level')}"
    return f"{text} of {family.methods} methods (Holm)" if family.methods > 1 else f"{text} (Holm)"


def _over_random(cell_verdicts: Sequence[Verdict]) -> str:
    """Number of levels at which tickets are shown better than random masks; empty without these."""
    tested = [verdict.p_random for verdict in cell_verdicts if verdict.p_random]
    better = sum(p.adjusted < cell_verdicts[0].rule.significant for p in tested)
    found = f"better than random_mask at {better} of {count(len(tested), 'level')}"
    return f"; {found}" if tested else ""


def _row(cell: Cell, verdict: Verdict) -> Row:
    ticket, dense = verdict.accuracy["ticket"], verdict.accuracy["dense"]
    steps = verdict.early_stop
    barriers = {point.level: point.value for point in cell.series("twin", "test_barrier")}
    return Row(
        level=verdict.level,
        density=density_text(verdict.density),
        accuracy={branch: accuracy_text(summary) for branch, summary in verdict.accuracy.items()},
        beyond_dense=f"{100 * (ticket.mean - dense.mean):+.2f}".replace("-", "\N{MINUS SIGN}"),
        early_stop=f"{steps['ticket'].mean:.0f} / {steps['dense'].mean:.0f}" if steps else "",
        faster=("yes" if verdict.faster else "no") if steps else "",
        p_matching=_p_text(verdict.p_matching, verdict.rule),
        p_reinit=_p_text(verdict.p_reinit, verdict.rule),
        p_random=_p_text(verdict.p_random, verdict.rule),
        verdict=verdict.verdict,
        seeds_to_decide=needed_seeds_text(verdict) if verdict.verdict == "undecided" else "",
        replicates=ticket.n,
        short=cell.is_short(ticket.n),
        collapsed=any(r["collapsed_layers"] for r in cell.levels("ticket")[verdict.level]),
        barrier=accuracy_text(barriers[verdict.level]) if verdict.level in barriers else MISSING,
    )


def _p_sentence(p: P | None, rule: VerdictRule) -> str:
    text = _p_text(p, rule)
    return f"p against reinit {text.raw}, adjusted {text.adjusted}"


def _p_text(p: P | None, rule: VerdictRule) -> PText:
    if p is None:
        return PText(MISSING, MISSING)
    return PText(p_text(p.raw, rule.significant), p_text(p.adjusted, rule.significant))


def p_text(p: float, significant: float) -> str:
    """p with two digits, or as many as show on which side of a threshold it is.

    >>> p_text(0.0123, 0.05), p_text(0.04996, 0.05), p_text(0.00002, 0.05)
    ('0.012', '0.04996', '<0.0001')
    """
    if p < 0.0001:
        return "<0.0001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 17))
    return next((t for t in texts if (float(t) < significant) == (p < significant)), repr(p))
