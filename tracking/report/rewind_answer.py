"""The answer of a study of rewind points: the earliest from which tickets match furthest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lth_core.analysis.cells import Cell
from lth_core.analysis.paired import holm
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
        return f"No rewind point {shown} the dense network.{_but_better(points, rule)}"
    sparsest_end = min(matched)
    earliest = next(i for i, end in enumerate(ends) if end == sparsest_end)
    reach = f"down to {density_text(sparsest_end)} of the weights"
    point = points[earliest]
    if len(points) == 1:
        return f"Only step {first} was tried; it matches {reach}."
    if point.step == 0:
        few = [p.name for p, each in zip(points, judged, strict=True) if _too_few(each)]
        but = f" but {listed(few)}, with too few seeds" if few else ""
        text = f"Rewinding is not needed: step 0 matches {reach}, as far as any later point{but}."
        return text + _but_better(points, rule)
    if points[0].step == 0:
        end = ends[0]
        compared = f"step 0 only to {density_text(end)}" if end else "step 0 nowhere"
        text = f"step {point.name} is the earliest that matches {reach}, {compared}"
        return _with_gain(text, points, point, rule)
    return f"Of the points tried, {point.name} is the earliest that matches {reach}."


def _too_few(judged: Sequence[Verdict]) -> bool:
    return all(verdict.verdict == TOO_FEW for verdict in judged)


class _Gain(NamedTuple):
    """Tickets of a rewind point against those of step 0."""

    point: RewindPoint
    mean: float
    """Gain of accuracy, a fraction, mean over the levels."""
    p: float
    """p of no gain, adjusted by Holm over the points."""
    rule: VerdictRule

    @property
    def is_shown(self) -> bool:
        return self.p < self.rule.significant

    @property
    def p_text(self) -> str:
        return f"mean over the levels, adjusted p {p_text(self.p, self.rule.significant)}"

    @property
    def better(self) -> str:
        return f"{points_text(self.mean, 2)} better than step 0's ({self.p_text})"


def _gains(points: Sequence[RewindPoint], rule: VerdictRule) -> list[_Gain]:
    """Gains of the points after step 0, the first; none where no seed has both."""
    tests = [(point, test) for point in points[1:] if (test := ticket_gain(points[0], point))]
    adjusted = holm([test.p_above(0) for _, test in tests])
    return [
        _Gain(point, test.mean, p, rule) for (point, test), p in zip(tests, adjusted, strict=True)
    ]


def _best_shown(gains: Sequence[_Gain]) -> _Gain | None:
    """The largest gain that is shown."""
    return max((gain for gain in gains if gain.is_shown), key=lambda gain: gain.mean, default=None)


def _but_better(points: Sequence[RewindPoint], rule: VerdictRule) -> str:
    """Sentence on a later point that is better than step 0, though it matches no further."""
    best = _best_shown(_gains(points, rule)) if points[0].step == 0 else None
    return f" But tickets of step {best.point.name} are {best.better}." if best else ""


def _with_gain(
    text: str, points: Sequence[RewindPoint], earliest: RewindPoint, rule: VerdictRule
) -> str:
    """Sentence on the earliest point that matches furthest, and on whether its tickets, or those of
    another point, are better than those from step 0: that it matches further may be chance."""
    gains = _gains(points, rule)
    own = next((gain for gain in gains if gain.point is earliest), None)
    if own and own.is_shown:
        return f"Rewinding helps: {text}; its tickets are {own.better}."
    if best := _best_shown(gains):
        return f"Rewinding helps: tickets of step {best.point.name} are {best.better}; {text}."
    shown = f" ({own.p_text})" if own else ""
    return f"Of the points tried, {text}; its tickets are not shown better than step 0's{shown}."
