"""Verdicts as text, for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.verdict import FEWEST, Verdict, sparsest, verdicts
from lth_core.columns import Record
from tracking.text import MISSING, accuracy_text, count, density_text

TOO_FEW = "too few replicates"
NO_RECORDS = "Nothing has been trained yet."


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
    """Mean early-stop steps of the ticket and of the dense run."""
    faster: str
    p: str
    verdict: str
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
    headline: str
    basis: str
    """The dense accuracy that the ticket is compared with, and the lowest one that matches."""
    branches: list[str]
    """Ticket and controls. The twin is left out: its result is the barrier."""
    barriers: bool
    """Whether barriers were measured."""
    planned: int | None
    """Replicates planned; None where the records lack the number."""
    rows: list[Row]
    """One row a level."""
    best: int | None
    """Position of the sparsest matching row."""


def sections(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None
) -> list[Section]:
    """Sections of the cells, in the order of `cells`."""
    return [_section(cell, tolerance) for cell in cells(records, axes)]


def _section(cell: Cell, tolerance: float | None) -> Section:
    cell_verdicts = verdicts(cell.records, list(cell.values), tolerance)
    dense = cell.series("dense", "final_test_accuracy")
    basis = f"Dense {accuracy_text(dense[0].value)}%" if dense else "The dense run is missing"
    if any(verdict.verdict != TOO_FEW for verdict in cell_verdicts):
        first = cell_verdicts[0]
        floor = first.accuracy["dense"].mean - first.tolerance
        basis += f"; matching from {100 * floor:.2f}% up"
    best, finding = sparsest(cell_verdicts), _finding(cell, cell_verdicts)
    return Section(
        label=cell.label or "All trials",
        headline=f"{cell.label}: {finding}" if cell.label else finding.capitalize(),
        basis=basis,
        branches=[branch for branch in cell.branches if branch not in ("dense", "twin")],
        barriers="twin" in cell.branches,
        planned=cell.planned,
        rows=[_row(cell, verdict) for verdict in cell_verdicts],
        best=cell_verdicts.index(best) if best else None,
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
        return f"too few replicates ({seeds}; a verdict takes {FEWEST})"
    best, winner = sparsest(cell_verdicts), sparsest(cell_verdicts, words=["winning"])
    if best is None:
        last = min(verdict.density for verdict in cell_verdicts)
        return f"no matching ticket down to {density_text(last)} density ({seeds})"
    seeds = counted(best.accuracy["ticket"].n)
    line = f"sparsest matching ticket at {density_text(best.density)} density ({seeds})"
    if best is winner:
        return f"{line}, winning against reinit {_p(best.p_reinit, 'p')}"
    if winner:
        line += f"; sparsest winning one at {density_text(winner.density)}"
        line += f" {_p(winner.p_reinit, 'p')}"
    elif best.p_reinit is not None:
        line += f", not better than reinit {_p(best.p_reinit, 'p')}"
    return line


def _row(cell: Cell, verdict: Verdict) -> Row:
    ticket, dense = verdict.accuracy["ticket"], verdict.accuracy["dense"]
    steps = verdict.early_stop
    barriers = {point.level: point.value for point in cell.series("twin", "test_barrier")}
    return Row(
        level=verdict.level,
        density=density_text(verdict.density),
        accuracy={branch: accuracy_text(summary) for branch, summary in verdict.accuracy.items()},
        beyond_dense=f"{100 * (ticket.mean - dense.mean):+.2f}".replace("-", "\N{MINUS SIGN}"),
        early_stop=f"{steps['ticket'].mean:.0f} / {steps['dense'].mean:.0f}",
        faster="yes" if verdict.faster else "no",
        p=_p(verdict.p_reinit),
        verdict=verdict.verdict,
        replicates=ticket.n,
        short=cell.is_short(ticket.n),
        collapsed=any(r["collapsed_layers"] for r in cell.levels("ticket")[verdict.level]),
        barrier=accuracy_text(barriers[verdict.level]) if verdict.level in barriers else MISSING,
    )


def _p(p: float | None, name: str = "") -> str:
    if p is None:
        return MISSING
    relation = f"{name}=" if name else ""
    return f"{name}<0.001" if p < 0.001 else f"{relation}{p:.3f}"
