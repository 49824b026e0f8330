"""Overlap of tickets' masks, beside the overlap of random masks with the same layer counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import log
from statistics import fmean
from textwrap import wrap
from typing import Any

from matplotlib.colors import Normalize
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from lth_core.analysis.cells import Point, cells, open_cells
from lth_core.analysis.families import Variant, variants
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import varying_axes
from lth_core.analysis.summary import Summary
from lth_core.columns import Record
from tracking.figures.drawing.captions import intervals_text, seeds_text, sentences
from tracking.figures.drawing.lines import (
    DENSITY_TEXT,
    REMAINING,
    draw_line,
    name_lines,
)
from tracking.figures.drawing.panels import (
    FAINT,
    INK,
    SHADES,
    WIDEST,
    Panel,
    color_bar,
    density_scale,
    panels,
    plain,
)
from tracking.figures.drawing.study_figure import StudyFigure, Value
from tracking.figures.drawing.styles import variant_styles

COMPARED_AT = 0.2
"""Density near which methods are compared: sparse, and few networks have collapsed."""
OVERLAP = "Mask overlap (Jaccard, %)"
LINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "overlap_seeds": ("between seeds", "#0072b2", {"marker": "o"}),
    "overlap_seeds_chance": ("by chance", FAINT, {"marker": "", "linestyle": (0, (4, 3))}),
}

Pairs = dict[tuple[str, str], tuple[float, float]]
"""Overlap and its chance level, in percent, by the names of two methods."""


def overlap(records: Sequence[Record], axes: Sequence[str]) -> StudyFigure | None:
    """Overlap (%) of methods with each other at one level, or of seeds against density.

    None where the records have no overlaps.
    """
    tickets = [record for record in records if record["branch"] == "ticket"]
    if len(methods(records)) > 1:
        return _between_methods(tickets, len(open_cells(tickets, axes)))
    measured = [record for record in tickets if record.get("overlap_seeds") is not None]
    return _between_seeds(measured, axes) if measured else None


def _between_seeds(tickets: Sequence[Record], axes: Sequence[str]) -> StudyFigure:
    axes = varying_axes(tickets, axes, ["density", *LINES])
    figure, drawn = panels(cells(tickets, axes), REMAINING, OVERLAP, x_text=DENSITY_TEXT, unit="%")
    handles, shown = dict[str, Any](), list[Point]()
    for panel, cell in drawn:
        for key, (name, color, style) in LINES.items():
            points = [point for point in cell.series("ticket", key, 100) if point.density > 0]
            handles[name] = draw_line(panel, name, points, color, **style)
            shown += points
    density_scale(drawn[0][0], 100 * min((point.density for point in shown), default=1))
    drawn[0][0].set_ylim(0, 100)
    name_lines(figure, drawn, handles)
    figure.caption = sentences(
        "Weights that the tickets of two seeds both keep, as a share of those that either keeps, "
        f"{seeds_text([cell for _, cell in drawn])}; dashed: of random masks with the same counts "
        "in each layer.",
        intervals_text([point.value for point in shown], drawn[0][0]),
    )
    return figure


def compared_level(tickets: Sequence[Record]) -> int | None:
    """Level whose tickets' mean density is nearest to `COMPARED_AT`; None where there is none."""
    densities: dict[int, list[float]] = defaultdict(list)
    for ticket in tickets:
        if ticket.get("overlap_methods") and ticket["density"] > 0:
            densities[ticket["level"]].append(ticket["density"])
    return min(densities, key=lambda n: abs(log(fmean(densities[n]) / COMPARED_AT)), default=None)


def pairs(tickets: Sequence[Record]) -> Pairs:
    """Mean overlaps over all tickets: of two methods, and of a method's seeds."""
    shares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for ticket in tickets:
        method, by_chance = ticket["method"], ticket.get("overlap_methods_chance") or {}
        for other, share in (ticket.get("overlap_methods") or {}).items():
            shares[method, other].append((share, by_chance[other]))
        if ticket.get("overlap_seeds") is not None:
            shares[method, method].append((ticket["overlap_seeds"], ticket["overlap_seeds_chance"]))
    return {
        names: (100 * fmean(share for share, _ in rows), 100 * fmean(c for _, c in rows))
        for names, rows in shares.items()
    }


def _between_methods(tickets: Sequence[Record], settings: int) -> StudyFigure | None:
    level = compared_level(tickets)
    if level is None:
        return None
    tickets = [ticket for ticket in tickets if ticket["level"] == level]
    compared, measured = variants(tickets), pairs(tickets)
    side = min(0.46 * len(compared), WIDEST - 2.9)
    figure = StudyFigure((side + 2.9, side + 1.7), layout=ConstrainedLayoutEngine())
    figure.unit = "%"
    panel = figure.subplots()
    norm = Normalize(0, max(share for share, _ in measured.values()))
    for row, variant in enumerate(compared):
        for column, other in enumerate(compared[: row + 1]):
            if shares := measured.get((variant.method, other.method)):
                names, place = (variant.name, other.name), (column, row)
                _record_pair(figure, panel, names, place, shares)
            _draw_pair(panel, column, row, shares, norm)
    density = 100 * fmean(ticket["density"] for ticket in tickets)
    title = wrap(f"Level {level}: {density:.3g}% of the weights remain", round(10 * (side + 1)))
    panel.set_title("\n".join(title), loc="left", color=INK, fontsize=10)
    _name_sides(panel, compared)
    bar = color_bar(figure, norm, [panel], OVERLAP)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=""))
    figure.caption = (
        "Weights that the tickets of two methods both keep, as a share of those that either keeps: "
        "at the same seed, and on the diagonal between seeds. Small: of random masks with the same "
        "counts in each layer. In percent"
        f"{', mean over the settings' if settings > 1 else ''}."
    )
    return figure


def _record_pair(
    figure: StudyFigure,
    panel: Panel,
    names: tuple[str, str],
    place: tuple[int, int],
    shares: tuple[float, float],
) -> None:
    value = Summary(0, shares[0], None, None, None)
    note = f"{shares[1]:.3g}% by chance"
    figure.values.append(Value(panel, names[0], names[1], value, place, note))


def _draw_pair(
    panel: Panel, column: int, row: int, shares: tuple[float, float] | None, norm: Normalize
) -> None:
    corner = (column - 0.48, row - 0.48)
    color = SHADES(norm(shares[0])) if shares else "#f2f2f2"
    panel.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=color, linewidth=0))
    if shares:
        ink = "white" if norm(shares[0]) > 0.45 else INK
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
        panel.text(column, row - 0.14, f"{shares[0]:.0f}", fontsize=10, **style)
        panel.text(column, row + 0.27, f"{shares[1]:.0f}", fontsize=7, **style)


def _name_sides(panel: Panel, compared: Sequence[Variant]) -> None:
    styles, names = variant_styles(compared), [plain(variant.name) for variant in compared]
    places, end = range(len(names)), len(names) - 0.5
    panel.set(xlim=(-0.5, end), ylim=(end, -0.5), aspect="equal")
    panel.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    panel.set_yticks(places, names, fontsize=9)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
        for label, variant in zip(labels, compared, strict=True):
            label.set_color(styles[variant]["color"])
