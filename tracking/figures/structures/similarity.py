"""Similarity of structures between seeds, against the training before the pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lth_core.analysis.groups import free_axes, group_by, methods, values_of
from lth_core.analysis.rewinds import REWIND
from lth_core.analysis.structures import Similarity, similarities
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.lines import draw_values
from tracking.figures.drawing.panels import FAINT, bounds_of, legend, limits, panels, plain
from tracking.figures.drawing.study_figure import StudyFigure
from tracking.figures.drawing.styles import MARKERS

TRAINED = "Training before the pruning (evenly spaced, not to scale)"
CORRELATION = "Correlation between seeds"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def similarity(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Mean correlation between the structures of two seeds, against the rewind point.

    A line a method, a panel a level and cell of the axes that no method determines. None where
    `similarities` has none.
    """
    found = similarities(records, axes)
    if not found:
        return None
    free = [axis for axis in free_axes(records, axes) if axis != REWIND]
    groups = list(group_by(found, lambda s: [s.level, values_of(free)(s.cell.values)]).values())
    titled = [replace(group[0].cell, label=_label(group, free, len(groups))) for group in groups]
    figure, drawn = panels(titled, TRAINED, CORRELATION, x_text="{} of training")
    steps = {point.name: point.step for each in found for point in each.points}
    positions = {name: i for i, name in enumerate(sorted(steps, key=lambda name: steps[name]))}
    names = methods([record for each in found for record in each.cell.records])
    handles, shown = dict[str, Any](), list[Summary]()
    for (panel, _), group in zip(drawn, groups, strict=False):
        panel.axhline(0, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
        for each in group:
            name = methods(each.cell.records)[0]
            look = names.index(name)
            values = {
                positions[p.name] + 0.03 * (look - (len(names) - 1) / 2): cut(p.between_seeds)
                for p in each.points
                if p.between_seeds
            }
            color = COLORS[look % len(COLORS)]
            for x, value in values.items():
                if value.low is not None and value.high is not None:
                    panel.plot([x, x], [value.low, value.high], color=color, linewidth=1.6)
            handles[name] = draw_values(
                panel, name, list(values), list(values.values()), color,
                MARKERS[look % len(MARKERS)], band=False,
                names=[p.name for p in each.points if p.between_seeds],
            )  # fmt: skip
            shown += values.values()
    first = drawn[0][0]
    first.set_xlim(-0.4, len(positions) - 0.6)
    first.set_xticks(list(positions.values()), [plain(name) for name in positions])
    low, _ = limits([*(value.mean for value in shown), 1.0], bounds_of(shown))
    first.set_ylim(max(low, -1.04), 1.04)
    legend(figure, handles)
    figure.caption = sentences(
        "Correlation, over layers, of the shares of channels that the structures of two seeds "
        f"keep, {seeds_text([cell for _, cell in drawn])}, pair by pair.",
        intervals_text(shown, first, "Bars").replace("t-intervals", "intervals of the jackknife"),
    )
    return figure


def cut(value: Summary) -> Summary:
    """The summary of correlations with its interval cut at -1 and 1."""
    if value.low is None or value.high is None:
        return value
    return replace(value, low=max(-1.0, value.low), high=min(1.0, value.high))


def _label(group: Sequence[Similarity], free: Sequence[str], groups: int) -> str:
    """Values of the axes that no method determines, and the level where there are several."""
    cell = group[0].cell
    parts = [f"{axis}={cell.values[axis]}" for axis in free if axis in cell.values]
    return ", ".join([*parts, f"level {group[0].level}"]) if groups > 1 else ""
