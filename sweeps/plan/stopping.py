"""Stop rule: whether a trial ends before its last level, as a pure function of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sweeps.studies.schema import Stop


def why_stop(records: Sequence[Mapping[str, Any]], stop: Stop, margin: float) -> str | None:
    """The reason to stop after these records of one trial, or None.

    Args:
        margin: accuracy below dense that still matches. A trial is one replicate, so nothing is
            tested.
    """
    if stop.below_matching_for is None or levels_before_stop(records, stop, margin):
        return None
    bound = _bound(records, margin)
    return f"the ticket was below {bound:.4f} for {stop.below_matching_for} levels in a row"


def levels_before_stop(
    records: Sequence[Mapping[str, Any]], stop: Stop, margin: float
) -> int | None:
    """Number of further levels that a trial runs at least; None where no rule can stop it.

    Args:
        records: its records so far; before the dense run it has none.
    """
    patience = stop.below_matching_for
    if patience is None:
        return None
    if not records:
        return 1 + patience
    bound = _bound(records, margin)
    tickets = [r["final_test_accuracy"] for r in records if r["branch"] == "ticket"]
    below = takewhile(lambda accuracy: accuracy < bound, reversed(tickets))
    return max(0, patience - len(list(below)))


def _bound(records: Sequence[Mapping[str, Any]], margin: float) -> float:
    """The lowest accuracy that matches the dense run."""
    dense = next(r["final_test_accuracy"] for r in records if r["branch"] == "dense")
    return float(dense - margin)
