"""A matplotlib figure with its caption and the values that it draws."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth_core.analysis.summary import Summary
from tracking.text import count

COLUMNS = ("panel", "line", "x", "mean", "low", "high", "n", "note")
"""Columns of a figure's CSV file."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that is drawn: a row of the figure's CSV file, and a hover text in its SVG."""

    panel: Axes
    line: str
    """Name of the line, as in the legend."""
    x: float | str
    value: Summary
    """Its `n` is 0 where it is no mean over seeds."""
    place: tuple[float, float]
    """Position in the panel's own units."""
    note: str = ""
    """More about the value, such as its verdict."""


class StudyFigure(Figure):
    """A matplotlib figure of a study's records."""

    def __init__(self, size: tuple[float, float], **options: Any) -> None:
        super().__init__(size, facecolor="white", **options)
        self.caption = ""
        """Sentences on what is drawn of this study."""
        self.values: list[Value] = []
        """All values drawn."""
        self.x_text, self.unit = "{}", ""
        """Words around an x, such as `density {}%`, and the unit of the values."""

    def hover_text(self, drawn: Value) -> str:
        """A value in words: `ticket, density 12.6%: 96.1 ± 0.4% (5 seeds), winning`."""
        value = drawn.value
        x = drawn.x if isinstance(drawn.x, str) else _digits(drawn.x, 3)
        text = f"{drawn.line}, {self.x_text.format(x)}: {_digits(value.mean, 4)}{_interval(value)}"
        text += self.unit
        seeds = f" ({count(value.n, 'seed')})" * bool(value.n)
        return text + seeds + f", {drawn.note}" * bool(drawn.note)

    def _repr_png_(self) -> bytes:
        """PNG that a notebook shows; it shows figures of pyplot alone by itself."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=80)
        return file.getvalue()

    def csv_text(self) -> str:
        """The values as CSV with `COLUMNS`; `low` and `high` are ends of 95% intervals."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for drawn in self.values:
            value = drawn.value
            numbers = (value.mean, value.low, value.high)
            rows.writerow([
                drawn.panel.get_label(), drawn.line, _rounded(drawn.x),
                *map(_rounded, numbers), value.n or None, drawn.note,
            ])  # fmt: skip
        return text.getvalue()


def record_values(
    panel: Axes,
    line: str,
    places: Sequence[float],
    values: Sequence[Summary],
    names: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
) -> None:
    """Add a line's values to the figure of a panel.

    Args:
        places: the x of each value, in the panel's units.
        names: what stands for the x in texts, such as the names of rewind points.
        notes: a note for each value.
    """
    figure = panel.get_figure(root=True)
    assert isinstance(figure, StudyFigure)
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        x = names[i] if names else float(place)
        note = notes[i] if notes else ""
        figure.values.append(Value(panel, line, x, value, (float(place), value.mean), note))


def _interval(value: Summary) -> str:
    """` ± 0.4`, or both ends of an interval that is cut at a bound: ` (0.35 to 1)`."""
    if value.low is None or value.high is None:
        return ""
    above, below = _digits(value.high - value.mean, 2), _digits(value.mean - value.low, 2)
    if above == below:
        return f" ± {above}"
    return f" ({_digits(value.low, 3)} to {_digits(value.high, 3)})"


def _digits(number: float, digits: int) -> str:
    """Digits of a number, or all before the decimal point where these are more."""
    return f"{number:.0f}" if abs(number) >= 10**digits else f"{number:.{digits}g}"


def _rounded(number: float | str | None) -> float | str | None:
    """Six digits of a number."""
    return float(f"{number:.6g}") if isinstance(number, float) else number
