"""Accuracy of structures against the cost of finding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10

from matplotlib.ticker import FixedLocator, NullLocator

from lth_core.analysis.groups import group_by
from lth_core.analysis.structures import StructureRow, StructureTable, structure_tables
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.lines import ACCURACY
from tracking.figures.drawing.panels import FAINT, panels
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.structures.points import draw_rows, finish, method_colors

ASIDE = 1.07
"""Factor by which the points of methods with about one cost lie apart."""
SEARCH = "FLOPs of finding the structure / FLOPs of training the dense network (log scale)"


def search_cost(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean final test accuracy (%) against the search's FLOPs, a share of the dense training's.

    None where `structure_tables` has none, or no method's search costs FLOPs.
    """
    tables = structure_tables(records, axes)
    spent = [1 / row.factor for table in tables for row in table.rows if row.factor]
    if not spent:
        return None
    figure, drawn = panels(
        [table.cell for table in tables], SEARCH, ACCURACY, x_text="search {} of training", unit="%"
    )
    figure.caption = (
        "Test accuracy of structures against the FLOPs of finding them, over those of training the "
        "dense network; the training of the structure itself is not counted"
    )
    colors = method_colors([row.variant for table in tables for row in table.rows])
    free, shown = min([*spent, 0.1]) / 4, list[Summary]()
    for (panel, _), table in zip(drawn, tables, strict=False):
        panel.axvline(1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        shown += draw_rows(panel, table, _places(table, free), colors)
    first = drawn[0][0]
    first.set_xscale("log")
    most = max([*spent, 1.0])
    first.set_xlim(free / 1.5, most * 1.5)
    decades = [10.0**e for e in range(-9, 4) if free < 10.0**e <= most]
    halves = [5 * x for x in decades if 5 * x < most] if len(decades) < 4 else []
    first.xaxis.set_major_locator(FixedLocator([free, *decades, *halves]))
    first.xaxis.set_minor_locator(NullLocator())
    first.xaxis.set_major_formatter(lambda x, _: "0" if x <= free * 1.01 else f"{x:g}")
    finish(figure, first, tables, shown)
    return figure


def _places(table: StructureTable, free: float) -> Callable[[StructureRow], float | None]:
    """Place of each row: its cost, with methods of about one cost side by side."""
    costs = {
        row.variant.method: cost for row in table.rows if (cost := _cost(row, free)) is not None
    }
    shift = {
        name: ASIDE ** (i - (len(together) - 1) / 2)
        for together in group_by(costs, lambda name: round(log10(costs[name]), 1)).values()
        for i, name in enumerate(together)
    }

    def place(row: StructureRow) -> float | None:
        cost = _cost(row, free)
        return None if cost is None else cost * shift[row.variant.method]

    return place


def _cost(row: StructureRow, free: float) -> float | None:
    """FLOPs of the search over those of the dense training; ``free`` for a search without any."""
    if row.factor:
        return 1 / row.factor
    return free if row.search_flops == 0 else None
