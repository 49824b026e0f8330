"""Stop rule: whether a trial ends before its last level, as a pure function of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lth_core.analysis.verdict import LEAST_TOLERANCE
from sweeps.studies.schema import Stop


def why_stop(
    records: Sequence[Mapping[str, Any]], stop: Stop, tolerance: float | None
) -> str | None:
    """The reason to stop after these records of one trial, or None.

    A trial is one replicate, without a deviation: the default tolerance is 0.1 points.
    """
    patience = stop.below_matching_for
    if patience is None:
        return None
    dense = next(r["final_test_accuracy"] for r in records if r["branch"] == "dense")
    bound = dense - (LEAST_TOLERANCE if tolerance is None else tolerance)
    tickets = [r["final_test_accuracy"] for r in records if r["branch"] == "ticket"]
    if len(tickets) >= patience and all(accuracy < bound for accuracy in tickets[-patience:]):
        return f"the ticket was below {bound:.4f} for {patience} levels in a row"
    return None
