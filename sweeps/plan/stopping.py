"""Stop rule: whether a trial ends before its last level, as a pure function of its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from sweeps.studies.schema import Stop


def has_stopped(records: Sequence[Mapping[str, Any]], stop: Stop, margin: float) -> bool:
    """Whether a trial ends after these records of it; False without the dense run's."""
    has_dense = any(record["branch"] == "dense" for record in records)
    return has_dense and levels_before_stop(records, stop, margin) == 0


def levels_before_stop(
    records: Sequence[Mapping[str, Any]], stop: Stop, margin: float
) -> int | None:
    """Number of further levels that a trial runs at least; None where no rule can stop it.

    Args:
        records: its records so far; before the dense run it has none.
        margin: accuracy below dense that still matches. A trial is one replicate, so nothing is
            tested.
    """
    patience = stop.below_matching_for
    if patience is None:
        return None
    if not records:
        return 1 + patience
    dense = next(r["final_test_accuracy"] for r in records if r["branch"] == "dense")
    tickets = [r["final_test_accuracy"] for r in records if r["branch"] == "ticket"]
    below = takewhile(lambda accuracy: accuracy < dense - margin, reversed(tickets))
    return max(0, patience - len(list(below)))
