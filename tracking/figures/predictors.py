"""Correlation of predictors with ticket accuracy, over rewind points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lth_core.analysis.prediction import Correlation, predictor_correlations
from lth_core.analysis.rewinds import rewind_cells
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import seeds_text, sentences
from tracking.figures.drawing.panels import FAINT, Panel, by_level, legend, panels
from tracking.figures.drawing.study_figure import StudyFigure, Value

CORRELATION = "Rank correlation with the ticket's accuracy, over rewind points"
LOOKS: dict[str, dict[str, Any]] = {
    "up to the best point": {"color": "#0072b2", "marker": "o", "markersize": 6},
    "all points": {
        "color": "#8a8a8a",
        "marker": "D",
        "markersize": 4.5,
        "markerfacecolor": "white",
    },
}
UP_TO_BEST = (
    "Filled: only the rewind points up to the best one, which is chosen on the other seeds; later "
    "points leave too few steps to train."
)


def predictors(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Spearman's correlation of each predictor with final test accuracy, a panel a level.

    None where a study has only one rewind point, or the records lack all predictors.
    """
    levels = [
        (level_cell, [each for each in correlations if each.level == level])
        for cell in rewind_cells(records, axes)
        if (correlations := predictor_correlations(cell))
        for level, level_cell in by_level([cell])
    ]
    if not levels:
        return None
    figure, drawn = panels([cell for cell, _ in levels], CORRELATION, "", x_text="{}")
    names = list(dict.fromkeys(each.predictor.name for _, row in levels for each in row))
    handles: dict[str, Any] = {}
    for (panel, _), (_, correlations) in zip(drawn, levels, strict=False):
        panel.axvline(0, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        _draw(figure, panel, correlations, names, handles)
    first = drawn[0][0]
    first.set_xlim(-1.08, 1.08)
    first.set_ylim(len(names) - 0.5, -0.5)
    first.set_yticks(range(len(names)), names)
    legend(figure, {name: handles[name] for name in LOOKS if name in handles})
    figure.caption = sentences(
        "Spearman's rank correlation over rewind points, between a number known at the rewind "
        "point and the final test accuracy of the ticket rewound there, "
        f"{seeds_text([cell for _, cell in drawn])}, with 95% t-intervals.",
        UP_TO_BEST * (next(iter(LOOKS)) in handles),
    )
    return figure


def _draw(
    figure: StudyFigure,
    panel: Panel,
    correlations: Sequence[Correlation],
    names: Sequence[str],
    handles: dict[str, Any],
) -> None:
    """Draw both correlations of each predictor, one above the other in its row."""
    for each in correlations:
        row = names.index(each.predictor.name)
        both = zip(LOOKS.items(), (each.to_best, each.over_all), (-0.14, 0.2), strict=True)
        for (name, look), value, aside in both:
            if value is not None:
                handles[name] = _draw_value(panel, value, row + aside, look)
                place = (value.mean, row + aside)
                figure.values.append(Value(panel, name, each.predictor.name, value, place))


def _draw_value(panel: Panel, value: Summary, y: float, look: dict[str, Any]) -> Any:
    """Draw a mean with its interval, cut at -1 and 1."""
    if value.low is not None and value.high is not None:
        ends = [max(value.low, -1), min(value.high, 1)]
        panel.plot(ends, [y, y], color=look["color"], linewidth=1.4, solid_capstyle="butt")
    (point,) = panel.plot([value.mean], [y], linestyle="", **look)
    return point
