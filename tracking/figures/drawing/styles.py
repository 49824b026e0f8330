"""Styles of branches and methods.

A branch has a colour and a marker. A family of methods has a hue, a method a shade and a marker, a
retraining a dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex

from lth_core.analysis.cells import Cell
from lth_core.analysis.families import Variant

DENSE = "#4d4d4d"
STYLES = {
    "dense": (DENSE, ""),
    "ticket": ("#0072b2", "o"),
    "reinit": ("#d55e00", "s"),
    "random_mask": ("#009e73", "^"),
    "shuffled_mask": ("#cc79a7", "v"),
    "inverted_mask": ("#a6761d", "<"),
    "constant_sign": ("#b2182b", ">"),
    "reshuffled": ("#7a9a01", "p"),
    "finetune": ("#e69f00", "D"),
    "lr_rewind": ("#56b4e9", "P"),
    "trained": ("#8c6bb1", "X"),
    "twin": ("#999933", "8"),
    "scratch_e": ("#332288", "^"),
    "scratch_b": ("#117733", "v"),
}
"""Colour and marker by branch; the first colours are Okabe and Ito's, safe for the colour-blind."""
LINE_WIDTHS = {"lr_rewind": 3}
"""At late rewind points lr_rewind equals the ticket, and is drawn below it: it shows as a rim."""
OTHER_STYLES = (("#e7298a", "h"), ("#17becf", "*"), ("#1b1b1b", "d"), ("#66c2a5", "H"))

HUES = {
    "before": ("#08306b", "#41b6f0"),
    "gates": ("#c79a00", "#f0e442"),
    "during": ("#00441b", "#78c850"),
    "after": ("#8c1d04", "#fdae40"),
    "never": ("#4a1486", "#f07ac8"),
}
"""Shades of the first and the last method, by family."""
OTHER_HUE = ("#1b1b1b", "#aaaaaa")
MARKERS = "os^DvP>X<*phd8"
DASHES = {
    "ticket": "-",
    "finetune": (0, (4, 1.5)),
    "lr_rewind": (0, (1, 1.2)),
    "trained": (0, (6, 1.5, 1, 1.5)),
    "scratch_e": (0, (2, 1)),
    "scratch_b": (0, (8, 1.5)),
}


def branch_styles(cells: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Colour and marker by branch; unknown branches come last."""
    others = sorted({name for cell in cells for name in cell.branches} - set(STYLES))
    return {**STYLES, **dict(zip(others, OTHER_STYLES * len(others), strict=False))}


def branch_width(branch: str) -> float:
    """Width of a branch's line, in matplotlib's points."""
    return LINE_WIDTHS.get(branch, 1.6)


def variant_styles(variants: Sequence[Variant]) -> dict[Variant, dict[str, Any]]:
    """Colour, marker and dash by variant; variants of one method differ in the dash."""
    styles: dict[Variant, dict[str, Any]] = {}
    for when in dict.fromkeys(variant.when for variant in variants):
        family = [variant for variant in variants if variant.when == when]
        methods = list(dict.fromkeys(variant.method for variant in family))
        hue = LinearSegmentedColormap.from_list(when, HUES.get(when, OTHER_HUE))
        shades = [to_hex(hue(i / max(len(methods) - 1, 1))) for i in range(len(methods))]
        looks = dict(zip(methods, zip(shades, cycle(MARKERS), strict=False), strict=True))
        for variant in family:
            color, marker = looks[variant.method]
            styles[variant] = {
                "color": color,
                "marker": marker,
                "linestyle": DASHES[variant.branch],
            }
    return styles
