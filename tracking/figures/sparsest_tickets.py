"""Weights of the sparsest ticket that is shown to match, against width, depth or another number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from matplotlib.transforms import offset_copy

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.groups import distinct, free_axes, methods
from lth_core.analysis.rewinds import merge_rewound_methods
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import Verdict, sparsest, verdicts_by_cell
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import sentences
from tracking.figures.drawing.lines import name_lines
from tracking.figures.drawing.panels import INK, SHADES, Panel, panels
from tracking.figures.drawing.study_figure import StudyFigure, record_values
from tracking.figures.drawing.verdict_marks import COLOR, mark_tickets, marks_text
from tracking.text import density_text

FIRST = ("model.width", "model.depth", "data.fraction")
"""Axes that are put on the x axis before others, in this order."""
NO_NUMBERS = ("seed", "data.split_seed", "rewind", "levels")
"""Axes whose numbers only name what they stand for, or have figures of their own."""
FEWEST_VALUES = 3
"""Least number of values of the x axis in a panel: two show no course."""
MOST_LINES = 6
"""Largest number of lines in a panel."""
MOST_NAMED = 8
"""Most values of the x axis that have a tick each, and densities beside them."""
LOGARITHMIC_FROM = 8
"""Ratio of the largest and the smallest value from which the x axis is logarithmic."""
WEIGHTS = "Prunable weights kept (log scale)"
APART = 5.0
"""Distance between marks of neighbouring lines at one x, in points."""
ROOM = 1.25
"""Factor by which the y axis extends beyond what is drawn."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The sparsest ticket of a cell that is shown to match, and the next that is shown not to.

    x: the cell's value on the x axis.
    prunable: prunable weights of the network.
    best: the verdict on the sparsest matching ticket; None where none is shown to match.
    worse: the verdict on the densest of the sparser ones that is shown not to match; None if none
        is.
    last: lowest density that was tried.
    seeds: number of replicates.
    """

    x: float
    prunable: float
    best: Verdict | None
    worse: Verdict | None
    last: float
    seeds: int

    @property
    def density(self) -> float:
        """Density of the sparsest matching ticket; 1 where none is shown to match."""
        return self.best.density if self.best else 1.0

    @property
    def weights(self) -> float:
        return self.density * self.prunable

    @property
    def lowest(self) -> float:
        """Least number of weights of which it is not shown that they are too few."""
        return max(1.0, (self.worse.density if self.worse else self.last) * self.prunable)

    @property
    def text(self) -> str:
        """`36% winning, 21.6% not matching`."""
        best = f"{density_text(self.density)} {self.best.verdict}" if self.best else "none matching"
        worse = f", {density_text(self.worse.density)} not matching" if self.worse else ""
        return best + worse


def sparsest_tickets(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
) -> StudyFigure | None:
    """Weights kept by the sparsest matching ticket, against an axis of numbers.

    That is width, depth, the share of the data, or else the first axis of numbers; a second one
    gives the lines, and the other axes the panels. None where no panel has three values with
    enough replicates for a verdict.

    Args:
        rule: margin, confidence and adjustment of the verdicts.
    """
    records = merge_rewound_methods(records, axes)
    x, line = x_and_line(records, axes)
    if x is None:
        return None
    found = cells(records, ["seed", *(axis for axis in axes if axis not in (x, line))])
    reaches = _reaches(records, axes, found, x, line, rule)
    kept = [i for i, lines in enumerate(reaches) if _is_course(lines)]
    if not kept:
        return None
    figure, drawn = panels(
        [found[i] for i in kept], x, WEIGHTS, x_text=f"{x} {{}}", unit=" weights"
    )
    names = list(dict.fromkeys(name for i in kept for name in reaches[i]))
    shades = [SHADES(0.15 + 0.8 * i / max(1, len(names) - 1)) for i in range(len(names))]
    colors = shades if len(names) > 1 else [COLOR]
    handles, shown = dict[str, Any](), list[Reach]()
    for (panel, _), i in zip(drawn, kept, strict=False):
        for name, points in reaches[i].items():
            place = names.index(name)
            aside = APART * (place - (len(names) - 1) / 2)
            handles[name] = _draw(panel, name, points, colors[place], aside)
            shown += points
            if len(names) == 1 and len(points) <= MOST_NAMED:
                _name_densities(panel, points)
    _scale(drawn[0][0], shown)
    if len(names) > 1:
        name_lines(figure, drawn, {name: handles[name] for name in names if name in handles})
    words = {reach.best.verdict for reach in shown if reach.best}
    figure.caption = sentences(
        "Weights of the sparsest ticket that is shown to match; dotted: the whole network.",
        marks_text(words, rule.margin) if words else "",
        "\N{MULTIPLICATION SIGN}: no ticket is shown to match."
        * any(reach.best is None for reach in shown),
        "The thin line below leads through undecided densities to the next that is shown not to "
        "match (bar), or to the sparsest tried (arrow).",
    )
    return figure


def x_and_line(records: Sequence[Record], axes: Sequence[str]) -> tuple[str | None, str | None]:
    """The axes of numbers that are drawn along x and as lines; None where there is none.

    Those that set the densities themselves are not among them.
    """
    free = free_axes(records, axes) if len(methods(records)) > 1 else axes
    values = {
        axis: distinct(r.get(axis) for r in records)
        for axis in free
        if axis not in NO_NUMBERS and not axis.startswith("prune.")
    }
    numbers = [
        axis
        for axis, found in values.items()
        if len(found) > 1 and all(type(value) in (int, float) for value in found.values())
    ]
    numbers.sort(key=lambda axis: FIRST.index(axis) if axis in FIRST else len(FIRST))
    x = next((axis for axis in numbers if len(values[axis]) >= FEWEST_VALUES), None)
    others = [axis for axis in numbers if axis != x and len(values[axis]) <= MOST_LINES]
    return x, next(iter(others), None)


def _reaches(
    records: Sequence[Record], axes: Sequence[str], found: Sequence[Cell], x: str, line: str | None,
    rule: VerdictRule,
) -> list[dict[str, list[Reach]]]:  # fmt: skip
    """Reaches along x, for each cell by the name of the line."""
    judged = verdicts_by_cell(records, axes, rule)
    return [
        {
            f"{line.rpartition('.')[2]} {part.values[line]:g}" if line else "ticket": reached
            for part in cells(cell.records, [line] if line else [])
            if (reached := [
                reach
                for each in cells(part.records, [x])
                if (reach := _reach(each.values[x], each, judged(each.records)))
            ])
        }
        for cell in found
    ]  # fmt: skip


def _reach(x: float, cell: Cell, verdicts: Sequence[Verdict]) -> Reach | None:
    """The reach of a cell; None with too few replicates for a verdict."""
    verdicts = [v for v in verdicts if v.p_matching is not None]
    if not verdicts:
        return None
    best = sparsest(verdicts)
    sparser = [v for v in verdicts if best is None or v.density < best.density]
    worse = [v for v in sparser if v.verdict == "not matching"]
    return Reach(
        x,
        cell.records[0]["weights_prunable"],
        best,
        max(worse, key=lambda v: v.density, default=None),
        min(v.density for v in verdicts),
        cell.seeds,
    )


def _is_course(lines: Mapping[str, Sequence[Reach]]) -> bool:
    return any(len(points) >= FEWEST_VALUES for points in lines.values())


def _draw(panel: Panel, name: str, points: Sequence[Reach], color: Any, aside: float) -> Line2D:
    """Draw a line of reaches with the whole network's, some points aside; returns the line."""
    x, weights = [p.x for p in points], [p.weights for p in points]
    panel.plot(x, [p.prunable for p in points], color=color, linewidth=1, linestyle=(0, (1, 2)))
    # Undecided ranges of several lines at one x would hide each other.
    moved = offset_copy(panel.transData, panel.get_figure(root=True), aside, units="points")
    for p in points:
        panel.plot([p.x] * 2, [p.lowest, p.weights], color=color, linewidth=1, transform=moved)
        end = "_" if p.worse else "v"
        panel.plot([p.x], [p.lowest], end, color=color, markersize=5, transform=moved)
    (line,) = panel.plot(x, weights, color=color, linewidth=1.6, transform=moved)
    none = [i for i, p in enumerate(points) if not p.best]
    panel.plot([x[i] for i in none], [weights[i] for i in none], "x", color=color, transform=moved)
    words = [p.best.verdict if p.best else "" for p in points]
    mark_tickets(panel, x, weights, words, color, transform=moved)
    values = [Summary(p.seeds, p.weights, None, None, None) for p in points]
    record_values(panel, name, x, values, notes=[p.text for p in points])
    return line


def _name_densities(panel: Panel, points: Sequence[Reach]) -> None:
    for point in points:
        panel.annotate(
            density_text(point.density), (point.x, point.weights), (6, 5),
            textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip


def _scale(panel: Panel, shown: Sequence[Reach]) -> None:
    """Set the scales of all panels, with a tick at each value of x."""
    values = sorted({reach.x for reach in shown})
    if values[0] > 0 and values[-1] >= LOGARITHMIC_FROM * values[0]:
        panel.set_xscale("log")
    if len(values) <= MOST_NAMED:
        panel.xaxis.set_major_locator(FixedLocator(values))
        panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    low, high = min(reach.lowest for reach in shown), max(reach.prunable for reach in shown)
    panel.set_ylim(low / ROOM, high * ROOM)
