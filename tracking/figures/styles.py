"""Looks of ways: a colour a family, a shade and a marker a method, a dash a retraining."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from matplotlib.colors import LinearSegmentedColormap, to_hex

from lth_core.analysis.families import Way

HUES = {
    "before": ("#08306b", "#41b6f0"),
    "during": ("#00441b", "#78c850"),
    "after": ("#8c1d04", "#fdae40"),
    "never": ("#4a1486", "#f07ac8"),
}
"""From the shade of a family's first method to that of its last."""
OTHER_HUE = ("#1b1b1b", "#aaaaaa")
MARKERS = "os^DvP>X<*phd8"
DASHES = {
    "ticket": "-",
    "finetune": (0, (4, 1.5)),
    "lr_rewind": (0, (1, 1.2)),
    "trained": (0, (6, 1.5, 1, 1.5)),
}


def way_styles(ways: Sequence[Way]) -> dict[Way, dict[str, Any]]:
    """Colour, marker and dash of each way; a method's retrainings differ from it in the dash."""
    styles: dict[Way, dict[str, Any]] = {}
    for when in dict.fromkeys(way.when for way in ways):
        family = [way for way in ways if way.when == when]
        named = list(dict.fromkeys(way.method for way in family))
        hue = LinearSegmentedColormap.from_list(when, HUES.get(when, OTHER_HUE))
        shades = [to_hex(hue(i / max(len(named) - 1, 1))) for i in range(len(named))]
        looks = dict(zip(named, zip(shades, cycle(MARKERS), strict=False), strict=True))
        for way in family:
            color, marker = looks[way.method]
            styles[way] = {"color": color, "marker": marker, "linestyle": DASHES[way.branch]}
    return styles
