"""Records whose differences between branches vary a little from seed to seed, as tests need."""

from collections.abc import Mapping, Sequence
from typing import Any

from hand_made import record

DENSE = (0.970, 0.972, 0.968, 0.971, 0.969)
SPREAD = (0.001, -0.001, 0.0005, -0.0005, 0.0)
"""What a seed adds to a difference; 0 in the mean, with a deviation of 0.08 points."""


def varied(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hand-made records of three seeds, their tickets and retrainings changed by 0.01 or 0.02
    points: means and intervals are the same to two digits."""
    return [
        {**r, "final_test_accuracy": r["final_test_accuracy"] + (1, -2, 1)[r["seed"]] / 10_000}
        if r["branch"] in ("ticket", "finetune", "lr_rewind")
        else dict(r)
        for r in records
    ]


def cell(
    gaps: Sequence[float],
    gains: Sequence[float] | None = None,
    seeds: int = 5,
    spread: float = 1.0,
    **more: Any,
) -> list[dict[str, Any]]:
    """Records of one cell, level 1 first.

    Args:
        gaps: mean accuracy of the ticket less that of dense, in points, by level.
        gains: mean accuracy of the ticket less that of reinit; None leaves reinit out.
        seeds: at most five; the means are as given for all five.
        spread: factor of `SPREAD`.
        more: fields of every record.
    """
    found = []
    for seed in range(seeds):
        about = {"seed": seed, "trial": f"trial-{seed}", **more}
        found.append({**record(0, "dense", 0, DENSE[seed]), **about})
        for level, gap in enumerate(gaps, 1):
            # Levels have the same values in another order; reinit does too.
            ticket = DENSE[seed] + gap / 100 + spread * SPREAD[(seed + level) % 5]
            found.append({**record(0, "ticket", level, ticket), **about})
            if gains is not None:
                reinit = ticket - gains[level - 1] / 100 - spread * SPREAD[(seed + 2 * level) % 5]
                found.append({**record(0, "reinit", level, reinit), **about})
    return found
