"""Stop rule: whether a trial ends before its last level, as a pure function of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.studies.schema import Stop


def why_stop(records: Sequence[Mapping[str, Any]], stop: Stop, margin: float) -> str | None:
    """The reason to stop after these records of one trial, or None.

    Args:
        margin: accuracy below dense that still matches. A trial is one replicate, so nothing is
            tested.
    """
    patience = stop.below_matching_for
    if patience is None:
        return None
    dense = next(r["final_test_accuracy"] for r in records if r["branch"] == "dense")
    bound = dense - margin
    tickets = [r["final_test_accuracy"] for r in records if r["branch"] == "ticket"]
    if len(tickets) >= patience and all(accuracy < bound for accuracy in tickets[-patience:]):
        return f"the ticket was below {bound:.4f} for {patience} levels in a row"
    return None
