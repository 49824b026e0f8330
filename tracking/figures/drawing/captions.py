"""Sentences on what is drawn of a study, for captions."""

from __future__ import annotations

from collections.abc import Sequence

from lth_core.analysis.cells import Cell
from lth_core.analysis.summary import Summary
from tracking.figures.drawing.panels import Panel
from tracking.text import range_text


def seeds_text(cells: Sequence[Cell]) -> str:
    """Number of seeds that the means are of.

    `means over 5 seeds`, `means over 3 to 5 seeds`, or `of one seed`.
    """
    counts = range_text(count for cell in cells for count in cell.fewest_and_most_seeds)
    return "of one seed" if counts == "1" else f"means over {counts} seeds"


def intervals_text(values: Sequence[Summary], panel: Panel, mark: str = "Bands") -> str:
    """Sentence on the intervals that are drawn; empty without any.

    Args:
        panel: one whose y axis the values have; intervals that leave it are cut.
    """
    ends = [end for v in values for end in (v.low, v.high) if end is not None]
    if not ends:
        return ""
    low, high = sorted(map(float, panel.get_ylim()))
    cut = "; wide ones are cut" * (min(ends) < low or max(ends) > high)
    return f"{mark} are 95% t-intervals{cut}."


def names_text(names: Sequence[str]) -> str:
    """Names in a row: `ticket, reinit and random_mask`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def sentences(*texts: str) -> str:
    """The texts that are not empty, as one."""
    return " ".join(filter(None, texts))
