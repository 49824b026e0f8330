"""The answer of a study of rewind points: the earliest from which tickets match furthest."""

from __future__ import annotations

from collections.abc import Sequence

from lth_core.analysis.cells import Cell
from lth_core.analysis.rewinds import RewindPoint, rewind_cells, rewind_points, ticket_gain
from lth_core.analysis.verdict import Verdict, sparsest, verdicts_by_cell
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.report.rewind_table import Judged
from tracking.report.verdict_table import NO_VERDICT, TOO_FEW, p_text
from tracking.text import density_text, listed, points_text


def rewind_answer(records: Sequence[Record], axes: Sequence[str], rule: VerdictRule) -> str:
    """To which step one must rewind, in a sentence for each cell of the other axes."""
    found = rewind_cells(records, axes)
    judged = verdicts_by_cell(records, axes, rule)
    answers = [_needed(cell, judged, rule) for cell in found]
    if len(answers) == 1:
        return answers[0]
    return " ".join(f"{cell.label}: {text}" for cell, text in zip(found, answers, strict=True))


def _needed(cell: Cell, judged_of: Judged, rule: VerdictRule) -> str:
    points = rewind_points(cell)
    judged = [judged_of(point.cell.records) for point in points]
    ends = [best.density if (best := sparsest(each)) else None for each in judged]
    matched = [end for end in ends if end is not None]
    first = "0" if points[0].step == 0 else points[0].name
    if not matched:
        words = {verdict.verdict for each in judged for verdict in each}
        if words <= {TOO_FEW}:
            return NO_VERDICT
        shown = "is shown to match" if words & {"undecided", TOO_FEW} else "matches"
        if len(points) == 1:
            return f"Only step {first} was tried; it is not shown to match."
        return f"No rewind point {shown} the dense network."
    sparsest_end = min(matched)
    earliest = next(i for i, end in enumerate(ends) if end == sparsest_end)
    reach = f"down to {density_text(sparsest_end)} of the weights"
    point = points[earliest]
    if len(points) == 1:
        return f"Only step {first} was tried; it matches {reach}."
    if point.step == 0:
        few = [p.name for p, each in zip(points, judged, strict=True) if _too_few(each)]
        but = f" but {listed(few)}, with too few seeds" if few else ""
        return f"Rewinding is not needed: step 0 matches {reach}, as far as any later point{but}."
    if points[0].step == 0:
        end = ends[0]
        compared = f"step 0 only to {density_text(end)}" if end else "step 0 nowhere"
        text = f"step {point.name} is the earliest that matches {reach}, {compared}"
        return _with_gain(text, points[0], point, len(points) - 1, rule)
    return f"Of the points tried, {point.name} is the earliest that matches {reach}."


def _too_few(judged: Sequence[Verdict]) -> bool:
    return all(verdict.verdict == TOO_FEW for verdict in judged)


def _with_gain(
    text: str, start: RewindPoint, point: RewindPoint, later: int, rule: VerdictRule
) -> str:
    """Sentence on the earliest point that matches furthest, and on whether its tickets are better
    than those from step 0: that it matches further may be chance.

    Args:
        later: number of points after step 0, any of which might have been that one.
    """
    test = ticket_gain(start, point)
    p = min(1.0, later * test.p_above(0)) if test else 1.0
    if test is None or p >= 1 - rule.confidence:
        shown = f" (p {p_text(p, rule.significant)})" if test else ""
        return (
            f"Of the points tried, {text}; its tickets are not shown better than step 0's{shown}."
        )
    chance = f"mean over the levels, p {p_text(p, rule.significant)}"
    gain = f"{points_text(test.mean, 2)} better than step 0's ({chance})"
    return f"Rewinding helps: {text}; its tickets are {gain}."
