"""Texts of numbers in reports, tables and figures."""

from __future__ import annotations

from collections.abc import Iterable

from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict_rule import VerdictRule

MOST_COLUMNS = 8
"""Largest number of densities in a table of the HTML report."""
MISSING = "\N{EN DASH}"
"""Shown in place of a missing number."""


def accuracy_text(summary: Summary) -> str:
    """Mean in percent, and half of the 95% interval."""
    mean = f"{100 * summary.mean:.2f}"
    if summary.high is None:
        return mean
    half = 100 * (summary.high - summary.mean)
    return f"{mean}±{half:.{2 if half < 9.995 else 1}f}"


def density_text(share: float) -> str:
    """Density in percent, three digits: 0.0352 is `3.52%`."""
    return f"{100 * share:.3g}%"


def count(n: int, noun: str) -> str:
    """Number with its noun: `1 seed`, `2 seeds`."""
    return f"{n} {noun}{'s' * (n != 1)}"


def listed(texts: Iterable[str]) -> str:
    """Texts as a list in a sentence.

    >>> listed(["50%", "30%", "10%"]), listed(["50%"])
    ('50%, 30% and 10%', '50%')
    """
    *others, last = texts
    return f"{', '.join(others)} and {last}" if others else last


def range_text(numbers: Iterable[int]) -> str:
    """Smallest and largest number.

    >>> range_text([3, 5, 4]), range_text([3, 3])
    ('3 to 5', '3')
    """
    ordered = sorted(set(numbers))
    return " to ".join(map(str, dict.fromkeys((ordered[0], ordered[-1]))))


def points_text(share: float, digits: int = 3) -> str:
    """A difference of accuracies: `0.5 points`.

    >>> points_text(0.005), points_text(0.01)
    ('0.5 points', '1 point')
    """
    points = f"{100 * share:.{digits}g}"
    return f"{points} point{'s' * (points != '1')}"


def rule_text(rule: VerdictRule) -> str:
    """`margin 0.5 points, 95% confidence`."""
    return f"margin {points_text(rule.margin)}, {100 * rule.confidence:.4g}% confidence"


def flops_text(flops: float) -> str:
    """FLOPs in three digits with a metric prefix.

    >>> flops_text(16_541_798_400), flops_text(999.9), flops_text(0)
    ('16.5 G', '1 k', '0')
    """
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    value, power = float(f"{flops:.3g}"), 0
    while value >= 1000 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {prefixes[power]}".rstrip()
