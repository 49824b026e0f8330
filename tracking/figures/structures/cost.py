"""Accuracy of structures against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from matplotlib.ticker import MaxNLocator

from lth_core.analysis.structures import COSTS, StructureRow, StructureTable, structure_tables
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import names_text
from tracking.figures.drawing.lines import ACCURACY
from tracking.figures.drawing.panels import panels
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.structures.points import draw_rows, finish, method_colors

SHARE = "Share of the dense network's (%)"
NAMES = {"flops": "FLOPs", "parameters": "parameters", "latency": "measured latency"}
EQUAL = 0.05
"""Where the shares of all structures differ by less, methods are drawn side by side instead."""


def structures(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean final test accuracy (%) against FLOPs, parameters and measured latency (% of dense).

    None where `structure_tables` has none.
    """
    tables = structure_tables(records, axes)
    drawn_costs = [
        (table, cost)
        for table in tables
        for cost in COSTS
        if any(cost in row.shares for row in table.rows)
    ]
    if not drawn_costs:
        return None
    titled = [replace(table.cell, label=_title(table, cost)) for table, cost in drawn_costs]
    figure, drawn = panels(
        titled, SHARE, ACCURACY, x_text="{}% of the dense network's", unit="%", share_x=False
    )
    names = dict.fromkeys(NAMES[cost] for _, cost in drawn_costs)
    figure.caption = f"Test accuracy of structures against {names_text(list(names))}"
    colors = method_colors([row.variant for table in tables for row in table.rows])
    shown = list[Summary]()
    for (panel, _), (table, cost) in zip(drawn, drawn_costs, strict=False):
        if _equal(table, cost):
            shown += draw_rows(panel, table, _side_by_side(table), colors)
            panel.set_xticks([])
        else:
            shown += draw_rows(panel, table, partial(_place, cost=cost), colors)
            panel.xaxis.set_major_locator(MaxNLocator(6))
    finish(figure, drawn[0][0], tables, shown)
    return figure


def _place(row: StructureRow, cost: str) -> float | None:
    share = row.shares.get(cost)
    return None if share is None else 100 * share.mean


def _means(table: StructureTable, cost: str) -> list[float]:
    return [row.shares[cost].mean for row in table.rows if cost in row.shares]


def _equal(table: StructureTable, cost: str) -> bool:
    """Whether several methods have about one cost, as where it is their budget."""
    means, names = _means(table, cost), {row.variant.method for row in table.rows}
    return len(names) > 1 and max(means) - min(means) < EQUAL


def _title(table: StructureTable, cost: str) -> str:
    """`FLOPs`; `FLOPs, all 49.1 to 50%` where they are equal; after the cell's label."""
    means = _means(table, cost)
    ends = dict.fromkeys(f"{100 * end:.3g}" for end in (min(means), max(means)))
    equal = f", all {' to '.join(ends)}%" * _equal(table, cost)
    return ", ".join(filter(None, (table.cell.label, NAMES[cost] + equal)))


def _side_by_side(table: StructureTable) -> Callable[[StructureRow], float]:
    """Places by method, and within a method by branch."""
    names = list(dict.fromkeys(row.variant.method for row in table.rows))
    branches = list(dict.fromkeys(row.variant.branch for row in table.rows))
    aside = 0.5 / len(branches)
    return lambda row: names.index(row.variant.method) + aside * branches.index(row.variant.branch)
