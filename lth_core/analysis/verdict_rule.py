"""Margin, confidence and adjustment of verdicts; `verdict` in a study file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FEWEST = 3
"""Fewest replicates for a verdict, and fewest pairs for winning."""


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """Margin, confidence and adjustment of verdicts, fixed before a study runs.

    margin: accuracy below dense that still matches, a fraction in (0, 1]; 0.005 is 0.5 points.
    confidence: in (0.5, 1), of each statement over all that it is adjusted for.
    for_all: `holm` adjusts for the levels and methods that are judged together, `none` does not.
        The fixed sequence of matching levels, of tickets that are trained, holds for both.
    """

    margin: float = 0.005
    confidence: float = 0.95
    for_all: Literal["holm", "none"] = "holm"

    @property
    def significant(self) -> float:
        """The p value below which a test succeeds."""
        return 1 - self.confidence


DEFAULT_RULE = VerdictRule()
