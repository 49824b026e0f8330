from typing import Any

import pytest

from lth_core.analysis.verdict import Verdict, p_greater, sparsest, summarize, verdicts

DENSE = [0.970, 0.972, 0.974]
BETTER = [0.975, 0.974, 0.976]
WORSE = [0.940, 0.941, 0.939]


def rows(
    level: int,
    branch: str,
    accuracies: list[float],
    *,
    stop: int = 100,
    density: float = 0.2,
    **more: object,
) -> list[dict[str, Any]]:
    return [
        {"level": level, "branch": branch, "seed": seed, "final_test_accuracy": accuracy,
         "early_stop_step": stop, "density": density, "steps": 500, **more}
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def judged(
    ticket: list[float], reinit: list[float] | None = None, *, dense: list[float] = DENSE,
    tolerance: float | None = None, stop: int = 100, steps: int = 500,
) -> Verdict:  # fmt: skip
    records = rows(0, "dense", dense, density=1.0) + rows(
        1, "ticket", ticket, stop=stop, steps=steps
    )
    records += rows(1, "reinit", reinit) if reinit else []
    (verdict,) = verdicts(records, ["seed"], tolerance)
    return verdict


def test_ticket_that_matches_and_beats_reinit_is_winning() -> None:
    verdict = judged(BETTER, WORSE)
    assert verdict.verdict == "winning"
    assert verdict.matching
    assert verdict.p_reinit is not None
    assert verdict.p_reinit < 0.05


def test_ticket_that_does_not_beat_reinit_is_only_matching() -> None:
    assert judged(BETTER, BETTER[::-1]).verdict == "matching"
    assert judged(BETTER).verdict == "matching"
    assert judged(BETTER).p_reinit is None


def test_ticket_below_dense_is_not_matching_though_it_beats_reinit() -> None:
    verdict = judged([0.960, 0.961, 0.958], WORSE)
    assert verdict.verdict == "not matching"
    assert verdict.p_reinit is not None
    assert verdict.p_reinit < 0.05


def test_two_replicates_are_too_few() -> None:
    assert judged(BETTER[:2], WORSE[:2], dense=DENSE[:2]).verdict == "too few replicates"
    assert judged(BETTER[:2], WORSE, dense=DENSE).verdict == "too few replicates"


@pytest.mark.parametrize(
    ("dense", "tolerance", "expected"),
    [
        ([0.970, 0.972, 0.974], None, 0.002),  # one standard deviation of the dense run
        ([0.970, 0.970, 0.970], None, 0.001),  # at least 0.1 points
        ([0.950, 0.970, 0.990], 0.005, 0.005),
        ([0.970, 0.972, 0.974], 0.0, 0.0),
    ],
)
def test_tolerance_is_a_dense_deviation_or_what_is_asked_for(
    dense: list[float], tolerance: float | None, expected: float
) -> None:
    mean = sum(dense) / 3

    def against(distance: float) -> Verdict:
        return judged([mean - distance] * 3, dense=dense, tolerance=tolerance)

    assert against(0.0).tolerance == pytest.approx(expected)
    assert against(expected - 1e-6).matching
    assert not against(expected + 1e-6).matching


def test_ticket_that_trained_longer_than_dense_does_not_match() -> None:
    assert judged(BETTER, steps=500).matching
    assert not judged(BETTER, steps=501).matching


def test_faster_is_an_earlier_mean_early_stop() -> None:
    assert judged(BETTER, stop=99).faster
    assert not judged(BETTER, stop=100).faster


def test_p_value_is_that_of_the_paired_one_sided_t_test() -> None:
    """Differences .01, .02, .03, .02: mean .02, variance 2/3 of .0001, so t = 2 sqrt(6).

    With 3 degrees of freedom, p = 1/2 - (2 sqrt(2) / 9 + atan(2 sqrt(2))) / pi = 0.00813830.
    """
    reinit = [0.90, 0.95, 0.85, 0.93]
    ticket = [0.91, 0.97, 0.88, 0.95]
    assert p_greater(ticket, reinit) == pytest.approx(0.00813830, rel=1e-5)
    assert p_greater(reinit, ticket) == pytest.approx(1 - 0.00813830, rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], 1.0),
        ([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], 0.125),
        ([0.8, 0.7, 0.6], [0.9, 0.8, 0.7], 1.0),
        ([0.9], [0.8], 0.5),
    ],
)
def test_without_variance_the_sign_test_decides(a: list[float], b: list[float], p: float) -> None:
    assert p_greater(a, b) == p


def test_summary_has_the_t_interval() -> None:
    """t(0.975, 2 degrees) = 4.302653, deviation 0.01, over the root of 3."""
    summary = summarize([0.90, 0.91, 0.92])
    assert (summary.n, summary.mean) == (3, pytest.approx(0.91))
    assert summary.std == pytest.approx(0.01)
    half = 4.302653 * 0.01 / 3**0.5
    assert (summary.low, summary.high) == (pytest.approx(0.91 - half), pytest.approx(0.91 + half))
    assert summarize([0.9]).std is None


def test_cells_are_the_axes_without_the_seed() -> None:
    records = [
        row
        for lr, ticket in ((0.1, BETTER), (0.2, WORSE))
        for row in (
            *rows(0, "dense", DENSE, density=1.0, **{"train.lr": lr}),
            *rows(1, "ticket", ticket, density=0.5, **{"train.lr": lr}),
            *rows(2, "ticket", ticket, density=0.25, **{"train.lr": lr}),
        )
    ]
    found = verdicts(records, ["seed", "train.lr"])
    assert [(v.cell, v.level, v.verdict) for v in found] == [
        ({"train.lr": 0.1}, 1, "matching"), ({"train.lr": 0.1}, 2, "matching"),
        ({"train.lr": 0.2}, 1, "not matching"), ({"train.lr": 0.2}, 2, "not matching"),
    ]  # fmt: skip
    assert sparsest(found) == found[1]
    assert sparsest(found[2:]) is None
    assert sparsest(found, words=("winning",)) is None


def test_only_seeds_that_have_both_dense_and_ticket_are_compared() -> None:
    records = rows(0, "dense", [*DENSE, 0.5], density=1.0) + rows(1, "ticket", BETTER)
    (verdict,) = verdicts(records, ["seed"])
    assert verdict.accuracy["dense"].n == verdict.accuracy["ticket"].n == 3
    assert verdict.accuracy["dense"].mean == pytest.approx(0.972)
    assert verdicts(rows(1, "ticket", BETTER), ["seed"]) == []
