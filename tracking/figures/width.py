"""Accuracy of the best ticket less the dense run's, against the network's width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator

from lth_core.analysis.cells import Cell, cells
from lth_core.analysis.summary import Summary, summarize
from lth_core.analysis.verdict_rule import DEFAULT_RULE
from lth_core.columns import Record
from tracking.figures.drawing.captions import (
    intervals_text,
    seeds_text,
    sentences,
)
from tracking.figures.drawing.lines import draw_values, name_lines
from tracking.figures.drawing.panels import FAINT, SHADES, bounds_of, limits, panels
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.text import points_text

WIDTH, DEPTH = "model.width", "model.depth"
GAP = "Best ticket less dense (points)"


def width(
    records: Sequence[Record],
    axes: Sequence[str],
    margin: float = DEFAULT_RULE.margin,
) -> StudyFigure | None:
    """Mean accuracy of the best ticket less the dense run's, in points, against width.

    One line a depth, a panel a cell of the other axes; None where each panel has only one width.

    Args:
        margin: accuracy below dense that still matches, a fraction, at which a line is drawn.
    """
    found = cells(records, [axis for axis in axes if axis not in (WIDTH, DEPTH)])
    if WIDTH not in axes or all(len({r[WIDTH] for r in cell.records}) < 2 for cell in found):
        return None
    figure, drawn = panels(
        found, "Width multiplier (log scale)", GAP, x_text="width {}", unit=" points"
    )
    depths = sorted({record.get(DEPTH) or 0 for record in records})
    handles: dict[str, Any] = {}
    shown = list[Summary]()
    for panel, cell in drawn:
        panel.axhline(0, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        panel.axhline(-100 * margin, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        for i, depth in enumerate(depths):
            rows = [r for r in cell.records if (r.get(DEPTH) or 0) == depth]
            gaps = {c.values[WIDTH]: gap for c in cells(rows, [WIDTH]) if (gap := best_gap(c))}
            if not gaps:
                continue
            color = SHADES(0.15 + 0.8 * i / max(1, len(depths) - 1))
            name = f"depth {depth}" if depth else "ticket"
            handles[name] = draw_values(panel, name, list(gaps), list(gaps.values()), color, "o")
            shown += gaps.values()
    first = drawn[0][0]
    first.set_xscale("log")
    first.xaxis.set_major_locator(FixedLocator(sorted({record[WIDTH] for record in records})))
    first.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    first.xaxis.set_minor_locator(NullLocator())
    first.set_ylim(*limits([0.0, *(value.mean for value in shown)], bounds_of(shown)))
    name_lines(figure, drawn, handles)
    figure.caption = sentences(
        "Test accuracy of the best ticket over all densities, less that of the dense run of the "
        f"same seed, {seeds_text(cells(records, axes))}. Dashed: as good as dense; dotted: "
        f"{points_text(margin)} below, where tickets still match. The best of several densities "
        "is a little high by chance.",
        intervals_text(shown, first),
    )
    return figure


def best_gap(cell: Cell) -> Summary | None:
    """Ticket's accuracy less the same seed's dense one, in points, at the level with the highest
    mean."""
    dense = {r["seed"]: r["final_test_accuracy"] for rows in cell.levels("dense").values()
             for r in rows}  # fmt: skip
    gaps = [
        summarize([100 * (r["final_test_accuracy"] - dense[r["seed"]]) for r in paired])
        for rows in cell.levels("ticket").values()
        if (paired := [r for r in rows if r["seed"] in dense])
    ]
    return max(gaps, key=lambda gap: gap.mean, default=None)
