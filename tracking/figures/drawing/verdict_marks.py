"""Verdicts in figures: marks on the ticket's curve, the margin's line, and sentences on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.lines import Line2D

from lth_core.analysis.groups import key_of
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import verdicts
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.figures.drawing.captions import sentences
from tracking.figures.drawing.panels import Panel
from tracking.figures.drawing.styles import DENSE, STYLES
from tracking.text import points_text

MARKED = ("winning", "matching")
"""Verdicts with a mark of their own: a full one, and one filled white."""
COLOR = STYLES["ticket"][0]
"""Colour of the ticket's curve."""


def verdict_words(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule
) -> dict[tuple[str, int], str]:
    """Words of the verdicts, by `key_of` the values of the axes without the seed, and level."""
    return {
        (key_of(list(verdict.cell.values())), verdict.level): verdict.verdict
        for verdict in verdicts(records, axes, rule)
    }


def mark_tickets(
    panel: Panel, x: Sequence[float], means: Sequence[float], words: Sequence[str],
    color: str = COLOR, marker: str = "o", **look: Any,
) -> None:  # fmt: skip
    """Mark the matching and the winning tickets on their curve.

    Args:
        words: the verdict on each.
        color, marker: the curve's.
        look: more arguments of `plot`.
    """
    for word in MARKED:
        if at := [i for i, each in enumerate(words) if each == word]:
            mark = _mark(word, color, marker)
            panel.plot([x[i] for i in at], [means[i] for i in at], linestyle="", **mark, **look)


def mark_handles(words: Collection[str], color: str = COLOR) -> dict[str, Any]:
    """Marks by their names in the legend."""
    return {
        f"{word} ticket": Line2D([], [], linestyle="", **_mark(word, color, "o"))
        for word in MARKED
        if word in words
    }


def _mark(word: str, color: str, marker: str) -> dict[str, Any]:
    return {
        "marker": marker, "markersize": 7.5, "markeredgecolor": color, "markeredgewidth": 1.6,
        "markerfacecolor": color if word == "winning" else "white", "zorder": 3,
    }  # fmt: skip


def margin_below(dense: Summary, margin: float) -> Summary:
    """Mean accuracy (%) less the margin, a fraction; without an interval."""
    return replace(dense, mean=dense.mean - 100 * margin, low=None, high=None)


def draw_margin(panel: Panel, dense: float, margin: float) -> dict[str, Any]:
    """Draw a dense accuracy (%) less the margin as a line; returns it by its name in the legend."""
    look: dict[str, Any] = {"color": DENSE, "linewidth": 1.1, "linestyle": (0, (1, 2))}
    line = panel.axhline(dense - 100 * margin, **look)
    return {f"dense \N{MINUS SIGN} {points_text(margin)}": line}


def marks_text(words: Collection[str], margin: float) -> str:
    """Sentences on the marks, or on why there are none."""
    near = f"shown to be less than {points_text(margin)} below dense"
    if not set(MARKED) & set(words):
        few = set(words) <= {"too few replicates", ""}
        return "Too few seeds for verdicts." if few else "None of these tickets is shown to match."
    return sentences(
        f"\N{WHITE CIRCLE}: {near}." * ("matching" in words),
        f"\N{BLACK CIRCLE}: {near}, and better than reinit." * ("winning" in words),
    )
