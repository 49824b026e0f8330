"""Literal histories: dense 0.95, then the ticket level by level."""

import pytest

from sweeps.plan.stopping import has_stopped, levels_before_stop
from sweeps.studies.schema import Stop


def history(*tickets: float, dense: float = 0.95) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [{"branch": "dense", "level": 0, "final_test_accuracy": dense}]
    for level, accuracy in enumerate(tickets, start=1):
        rows.append({"branch": "reinit", "level": level, "final_test_accuracy": 0.1})
        rows.append({"branch": "ticket", "level": level, "final_test_accuracy": accuracy})
    return rows


@pytest.mark.parametrize(
    ("tickets", "patience", "margin", "stops"),
    [
        ([], 1, 0.005, False),
        ([0.96, 0.95, 0.9451], 1, 0.005, False),  # less than the margin below dense
        ([0.9449], 1, 0.005, True),
        ([0.9449], 2, 0.005, False),
        ([0.94, 0.94], 2, 0.005, True),
        ([0.94, 0.96], 2, 0.005, False),
        ([0.94, 0.96, 0.94], 2, 0.005, False),  # in a row
        ([0.96, 0.94, 0.94], 2, 0.005, True),
        ([0.94, 0.94, 0.96], 2, 0.005, False),  # it has come back
        ([0.94, 0.94], 2, 0.02, False),
        ([0.92, 0.92], 2, 0.02, True),
        ([0.94], 1, 0.0101, False),
        ([0.94], 1, 0.0099, True),
        ([0.1] * 9, None, 0.005, False),  # nobody asked
        ([0.1] * 9, 10, 0.005, False),
    ],
)
def test_trial_stops_after_that_many_levels_below_matching_in_a_row(
    tickets: list[float], patience: int | None, margin: float, stops: bool
) -> None:
    assert has_stopped(history(*tickets), Stop(below_matching_for=patience), margin) == stops


def test_trial_without_its_dense_run_has_not_stopped() -> None:
    assert not has_stopped(history(0.1, 0.1)[1:], Stop(below_matching_for=1), 0.01)
    assert not has_stopped([], Stop(below_matching_for=1), 0.01)


@pytest.mark.parametrize(
    ("tickets", "levels"),
    [
        ([], 3),
        ([0.96], 3),
        ([0.1], 2),
        ([0.1, 0.1, 0.96], 3),
        ([0.96, 0.1, 0.1], 1),
        ([0.1] * 4, 0),
    ],
)
def test_a_trial_runs_at_least_the_levels_that_its_rule_needs_to_stop_it(
    tickets: list[float], levels: int
) -> None:
    stop = Stop(below_matching_for=3)
    assert levels_before_stop(history(*tickets), stop, 0.01) == levels
    assert levels_before_stop([], stop, 0.01) == 4  # the dense run, and three
    assert levels_before_stop(history(*tickets), Stop(), 0.01) is None
