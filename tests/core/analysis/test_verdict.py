"""The verdict on tickets, from records."""

from dataclasses import replace
from typing import Any

import pytest

from lth_core.analysis.summary import summarize
from lth_core.analysis.verdict import Verdict, best_word, first_open, sparsest, verdicts
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule

DENSE = [0.970, 0.972, 0.974, 0.971, 0.973]
NOISE = [0.0004, -0.0003, 0.0001, 0.0, -0.0002]
"""Of mean 0."""
SIGNIFICANT = 0.05


def rows(
    level: int, branch: str, accuracies: list[float], *, stop: int = 100, **more: object
) -> list[dict[str, Any]]:
    return [
        {"level": level, "branch": branch, "seed": seed, "final_test_accuracy": accuracy,
         "early_stop_step": stop + seed % 2, "density": 0.5**level, "steps": 500, "method": "imp", "when": "after",
         **more}
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def near(distance: float, seeds: int = 5, scale: float = 1.0) -> list[float]:
    """Accuracies at a mean distance from the dense ones of the same seeds."""
    pairs = list(zip(DENSE, NOISE, strict=True))[:seeds]
    return [dense + distance + scale * noise for dense, noise in pairs]


def judged(
    *tickets: list[float],
    reinit: list[list[float]] | None = None,
    rule: VerdictRule = DEFAULT_RULE,
    seeds: int = 5,
    **more: object,
) -> list[Verdict]:
    records = rows(0, "dense", DENSE[:seeds])
    for number, ticket in enumerate(tickets, start=1):
        records += rows(number, "ticket", ticket, **more)  # type: ignore[arg-type]
        records += rows(number, "reinit", reinit[number - 1]) if reinit else []
    return verdicts(records, ["seed"], rule)


def words(found: list[Verdict]) -> list[str]:
    return [verdict.verdict for verdict in found]


@pytest.mark.parametrize(
    ("distance", "word"),
    [
        (0.01, "matching"), (0.0, "matching"), (-0.004, "matching"), (-0.00499, "undecided"),
        (-0.005, "undecided"), (-0.00501, "undecided"), (-0.006, "not matching"),
        (-0.3, "not matching"),
    ],
)  # fmt: skip
def test_level_matches_if_shown_to_be_within_the_margin(distance: float, word: str) -> None:
    assert words(judged(near(distance))) == [word]


def test_margin_is_the_one_that_the_rule_has_whatever_the_dense_runs_vary() -> None:
    """Dense runs vary by 0.16 points; a ticket half a point below them would need three of that."""
    wide, narrow = VerdictRule(margin=0.05), VerdictRule(margin=0.001)
    assert words(judged(near(-0.04), rule=wide)) == ["matching"]
    assert words(judged(near(-0.004), rule=narrow)) == ["not matching"]


def test_steps_before_the_rewind_point_are_the_dense_runs_and_are_not_counted() -> None:
    """A ticket that trains on the whole schedule again takes as many steps as the dense run."""
    found = judged(near(0), rewind_step=100, restart_schedule=True, steps=500)
    assert words(found) == ["matching"]


def test_confidence_is_that_of_each_statement() -> None:
    p = judged(near(-0.0045))[0].p_matching
    assert p is not None
    for confidence, word in ((1 - p.raw - 1e-4, "matching"), (1 - p.raw + 1e-4, "undecided")):
        assert words(judged(near(-0.0045), rule=VerdictRule(confidence=confidence))) == [word]


def test_matching_levels_end_at_the_first_that_is_not_shown_to_match() -> None:
    """A sparser level that would match alone is left undecided."""
    noisy = near(-0.004, scale=30)
    found = judged(near(0), noisy, near(0), near(-0.1))
    assert words(found) == ["matching", "undecided", "undecided", "not matching"]
    assert sparsest(found) == found[0]
    assert first_open(found) == found[1]
    p = [verdict.p_matching for verdict in found]
    assert p[2].raw < SIGNIFICANT < p[2].adjusted == p[1].adjusted == p[1].raw
    # More seeds for the level before decide it.
    assert found[2].seeds_to_decide == found[1].seeds_to_decide


def test_levels_that_do_not_match_start_at_the_sparsest() -> None:
    """A level that is worse alone is undecided, as long as a sparser one is."""
    found = judged(near(0), near(-0.1), near(-0.006, scale=30))
    assert words(found) == ["matching", "undecided", "undecided"]
    assert words(judged(near(0), near(-0.1), near(-0.1))) == [
        "matching", "not matching", "not matching"
    ]  # fmt: skip


def test_levels_of_tickets_that_are_not_trained_are_judged_in_no_order() -> None:
    """Dense masks of untrained weights are as bad as sparse ones; the best lie between."""
    noisy = near(-0.006, scale=30)
    found = judged(near(-0.3), near(0), noisy, near(-0.3), when="never")
    assert words(found) == ["not matching", "matching", "undecided", "not matching"]
    assert (sparsest(found), first_open(found)) == (found[1], None)
    p = found[1].p_matching
    assert p.adjusted == 4 * p.raw, "by Holm over four levels"
    without = judged(near(-0.3), noisy, near(-0.1), when="never")
    assert first_open(without) == without[1], "the best of those that are undecided"
    assert without[1].seeds_to_decide is not None
    alone = judged(near(0), near(-0.0045), when="never", rule=VerdictRule(for_all="none"))
    assert [v.p_matching.raw for v in alone] == [v.p_matching.adjusted for v in alone]


def test_ticket_that_matches_and_beats_reinit_is_winning() -> None:
    found = judged(near(0), near(0), reinit=[near(-0.01, scale=-1), near(0, scale=-1)])
    assert words(found) == ["winning", "matching"]
    assert sparsest(found, words=["winning"]) == found[0]
    assert best_word(found) == "winning"
    assert words(judged(near(0))) == ["matching"]
    assert judged(near(0))[0].p_reinit is None


def test_ticket_is_tested_against_random_masks_as_against_reinit() -> None:
    records = rows(0, "dense", DENSE)
    for level, gain in ((1, 0.01), (2, 0.0)):
        records += rows(level, "ticket", near(0))
        records += rows(level, "reinit", near(-gain, scale=-1))
        records += rows(level, "random_mask", near(-gain, scale=-1))
    found = verdicts(records, ["seed"])
    assert [verdict.p_random for verdict in found] == [verdict.p_reinit for verdict in found]
    assert [v.p_random.adjusted < SIGNIFICANT for v in found if v.p_random] == [True, False]
    without = [row for row in records if row["branch"] != "reinit"]
    assert words(verdicts(without, ["seed"])) == ["matching", "matching"]
    assert judged(near(0))[0].p_random is None


def test_ticket_below_dense_does_not_win_though_it_beats_reinit() -> None:
    (found,) = judged(near(-0.02), reinit=[near(-0.1, scale=-1)])
    assert found.verdict == "not matching"
    assert found.p_reinit is not None
    assert found.p_reinit.adjusted < SIGNIFICANT


def test_winning_is_adjusted_over_the_levels() -> None:
    """Alone, each level wins; of 20 such levels none does."""
    gain = [near(-0.0015, scale=-2)]
    (alone,) = judged(near(0), reinit=gain)
    assert alone.verdict == "winning"
    many = judged(*[near(0)] * 20, reinit=gain * 20)
    assert words(many) == ["matching"] * 20
    assert all(v.p_reinit.adjusted == pytest.approx(20 * v.p_reinit.raw) for v in many)
    assert (many[0].family.levels, many[0].family.methods) == (20, 1)
    each = judged(*[near(0)] * 20, reinit=gain * 20, rule=VerdictRule(for_all="none"))
    assert words(each) == ["winning"] * 20
    assert each[0].p_reinit.adjusted == each[0].p_reinit.raw


def test_methods_are_adjusted_for_together() -> None:
    """With four methods the p of a level is four times as large."""

    def records(count: int) -> list[dict[str, Any]]:
        return [
            row
            for number in range(count)
            for row in (
                *rows(0, "dense", DENSE, method=f"m{number}", **{"prune.score": number}),
                *rows(1, "ticket", near(-0.0045), method=f"m{number}", **{"prune.score": number}),
                *rows(1, "reinit", near(-0.006, scale=-1), method=f"m{number}",
                      **{"prune.score": number}),
            )
        ]  # fmt: skip

    (alone,) = verdicts(records(1), ["seed", "prune.score"])
    four = verdicts(records(4), ["seed", "prune.score"])
    assert [verdict.cell for verdict in four] == [{"prune.score": i} for i in range(4)]
    for verdict in four:
        assert verdict.p_matching.raw == alone.p_matching.raw
        assert verdict.p_matching.adjusted == pytest.approx(4 * alone.p_matching.raw)
        assert verdict.p_reinit.adjusted == pytest.approx(4 * alone.p_reinit.raw)
        assert (verdict.family.levels, verdict.family.methods) == (4, 4)


def test_cells_of_other_axes_are_judged_apart() -> None:
    records = [
        row
        for lr, distance in ((0.1, 0.0), (0.2, -0.1))
        for row in (
            *rows(0, "dense", DENSE, **{"train.lr": lr}),
            *rows(1, "ticket", near(distance), **{"train.lr": lr}),
            *rows(2, "ticket", near(distance), **{"train.lr": lr}),
        )
    ]
    found = verdicts(records, ["seed", "train.lr"])
    assert [(v.cell, v.level, v.verdict) for v in found] == [
        ({"train.lr": 0.1}, 1, "matching"), ({"train.lr": 0.1}, 2, "matching"),
        ({"train.lr": 0.2}, 1, "not matching"), ({"train.lr": 0.2}, 2, "not matching"),
    ]  # fmt: skip
    assert [v.family.levels for v in found] == [2, 2, 2, 2]
    assert sparsest(found) == found[1]
    assert sparsest(found[2:]) is None


def test_rewind_points_are_not_methods() -> None:
    """`imp` at initialization and `imp-rewind` later are one method at two points."""
    records = [
        row
        for rewind, method in (("0it", "imp"), ("5it", "imp-rewind"))
        for row in (
            *rows(0, "dense", DENSE, rewind=rewind, method=method),
            *rows(1, "ticket", near(0), rewind=rewind, method=method),
        )
    ]
    assert [v.family.methods for v in verdicts(records, ["seed", "rewind"])] == [1, 1]


def test_two_replicates_are_too_few() -> None:
    found = judged(near(0, seeds=2), near(0, seeds=5), seeds=2)
    assert words(found) == ["too few replicates"] * 2
    assert (found[0].p_matching, found[0].p_reinit, found[0].p_faster) == (None, None, None)
    assert not found[0].faster


def test_level_with_too_few_replicates_ends_the_matching_levels_and_no_others() -> None:
    found = judged(near(0), near(0, seeds=2), near(0), near(-0.1), near(-0.1, seeds=1))
    assert words(found) == [
        "matching", "too few replicates", "undecided", "not matching", "too few replicates"
    ]  # fmt: skip
    assert found[0].family.levels == 3


def test_two_pairs_with_reinit_do_not_win() -> None:
    (found,) = judged(near(0), reinit=[near(-0.1, seeds=2)])
    assert (found.verdict, found.p_reinit) == ("matching", None)


def test_ticket_that_trained_longer_than_dense_does_not_match() -> None:
    assert words(judged(near(0.01), steps=500)) == ["matching"]
    assert words(judged(near(0.01), steps=501)) == ["not matching"]


def test_faster_is_shown_over_the_seeds() -> None:
    def found(stops: list[int]) -> bool:
        records = rows(0, "dense", DENSE) + rows(1, "ticket", near(0))
        for row, stop in zip(records, [100] * 5 + stops, strict=True):
            row["early_stop_step"] = stop
        (verdict,) = verdicts(records, ["seed"])
        return verdict.faster

    assert found([90, 92, 88, 91, 90])
    assert not found([90, 140, 60, 99, 100])  # earlier on average alone
    assert not found([100] * 5)
    assert found([99] * 5)  # the sign test: 1/32
    assert not found([110, 112, 108, 111, 110])


def test_without_early_stops_all_but_faster_is_judged() -> None:
    records = rows(0, "dense", DENSE) + rows(1, "ticket", near(0)) + rows(1, "reinit", near(-0.1))
    (stopped,) = verdicts(records, ["seed"])
    (found,) = verdicts([{**row, "early_stop_step": None} for row in records], ["seed"])
    assert found == replace(stopped, early_stop={}, p_faster=None)
    assert not found.faster


def test_number_of_seeds_that_would_decide() -> None:
    """For a distance of one deviation, t-quantiles of 0.95 and 0.8 need eight seeds.

    With 7 degrees of freedom they are 1.8946 and 0.8960: 2.7906 < sqrt(8) = 2.8284; with 6 they are
    1.9432 and 0.9057: 2.8489 > sqrt(7) = 2.6458.
    """
    ticket = [DENSE[0], DENSE[1] - 0.001, DENSE[2] - 0.002]
    (found,) = judged(ticket, seeds=3, rule=VerdictRule(margin=0.002))
    assert found.verdict == "undecided"
    assert found.gap.std == pytest.approx(0.001)
    assert found.seeds_to_decide == 8
    assert judged(near(0))[0].seeds_to_decide is None
    assert judged(near(-0.005))[0].seeds_to_decide is None  # never, at the margin itself


def test_no_number_of_seeds_decides_a_level_whose_sequence_cannot_succeed() -> None:
    """A dense level that is worse and a sparser one that is not block each other."""
    found = judged(near(0), near(-0.1), near(0), near(-0.1))
    assert words(found) == ["matching", "undecided", "undecided", "not matching"]
    assert [verdict.seeds_to_decide for verdict in found] == [None] * 4
    noisy = judged(near(0), near(-0.1), near(-0.006, scale=30))
    assert noisy[1].seeds_to_decide == noisy[2].seeds_to_decide > 5, "those of the level after it"
    both = judged(near(-0.004, scale=20), near(-0.004, scale=30))
    assert both[0].seeds_to_decide < both[1].seeds_to_decide
    turned = judged(near(-0.004, scale=30), near(-0.004, scale=20))
    assert turned[0].seeds_to_decide == turned[1].seeds_to_decide == both[1].seeds_to_decide


def test_three_equal_differences_decide_nothing_and_five_do() -> None:
    three = [accuracy + 0.01 for accuracy in DENSE[:3]]
    (found,) = judged(three, seeds=3)
    assert (found.verdict, found.p_matching.raw, found.seeds_to_decide) == ("undecided", 0.125, 5)
    assert words(judged([accuracy + 0.01 for accuracy in DENSE])) == ["matching"]


def test_only_seeds_that_have_both_dense_and_ticket_are_compared() -> None:
    records = rows(0, "dense", [*DENSE, 0.5]) + rows(1, "ticket", near(0))
    (verdict,) = verdicts(records, ["seed"])
    assert verdict.verdict == "too few replicates"  # the sixth seed may have been ended
    assert verdict.accuracy["dense"].n == verdict.accuracy["ticket"].n == 5
    assert verdict.accuracy["dense"].mean == pytest.approx(0.972)
    assert verdicts(rows(1, "ticket", near(0)), ["seed"]) == []


def test_order_of_records_does_not_matter() -> None:
    records = rows(0, "dense", DENSE)
    for number, distance in enumerate((0.0, -0.003, -0.1), start=1):
        records += rows(number, "ticket", near(distance)) + rows(number, "reinit", near(-0.1))
    found = verdicts(records, ["seed"])
    for turned in (records[::-1], records[7:] + records[:7]):
        again = verdicts(turned, ["seed"])
        assert words(again) == words(found)
        for one, other in zip(again, found, strict=True):
            assert one.p_matching.adjusted == pytest.approx(other.p_matching.adjusted)
            assert replace(one.gap, std=0, mean=0) == replace(other.gap, std=0, mean=0)


def test_summary_has_the_t_interval() -> None:
    """t(0.975, 2 degrees) = 4.302653, deviation 0.01, over the root of 3."""
    summary = summarize([0.90, 0.91, 0.92])
    assert (summary.n, summary.mean) == (3, pytest.approx(0.91))
    assert summary.std == pytest.approx(0.01)
    half = 4.302653 * 0.01 / 3**0.5
    assert (summary.low, summary.high) == (pytest.approx(0.91 - half), pytest.approx(0.91 + half))
    assert summarize([0.9]).std is None
