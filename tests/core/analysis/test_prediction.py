from math import sqrt

import pytest
from hand_made import record, rewound

from lth_core.analysis.prediction import predictor_correlations, rank_correlation, window
from lth_core.analysis.rewinds import merge_rewound_methods, rewind_cells

AXES = ["rewind", "seed"]
T_QUANTILE = 4.302652729911275
"""At 0.975, with 2 degrees of freedom; `scipy.stats` takes a second to import."""


def correlation_of(records, name, level=1):
    (cell,) = rewind_cells(merge_rewound_methods(records, AXES), AXES)
    (found,) = [
        f for f in predictor_correlations(cell) if (f.predictor.name, f.level) == (name, level)
    ]
    return found


def made(accuracies, predictors, key="rewind_loss"):
    """Tickets of level 1 and dense runs: by seed, accuracies and a predictor at steps 0, 10, ..."""
    found = []
    for seed, (reached, known) in enumerate(zip(accuracies, predictors, strict=True)):
        for i, (accuracy, value) in enumerate(zip(reached, known, strict=True)):
            about = {"rewind": f"{10 * i}it", "rewind_step": 10 * i}
            found.append(record(seed, "ticket", 1, accuracy, **about))
            found.append(record(seed, "dense", 0, 0.9, **about, **{key: value}))
    return found


@pytest.mark.slow
def test_ranks_correlate_as_1_less_6_squares_over_n_times_n_squared_less_1():
    # Ranks 1 2 3 4 5 and 2 1 4 3 5 differ by 1 four times: 1 - 6 * 4 / (5 * 24).
    assert rank_correlation([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == 0.8


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([], [])]
)
def test_few_points_or_a_side_that_never_changes_have_no_correlation(x, y):
    assert rank_correlation(x, y) is None


@pytest.mark.slow
def test_seeds_have_a_correlation_each_and_an_interval_over_them():
    up, mixed = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]
    value = correlation_of(made([up, up, up], [up, mixed, up]), "loss").over_all
    # 1, 0.8, 1: their deviation is 0.2 / sqrt(3).
    assert value.n == 3
    assert value.mean == pytest.approx(2.8 / 3)
    assert value.high - value.mean == pytest.approx(T_QUANTILE * 0.2 / 3)
    assert value.std == pytest.approx(0.2 / sqrt(3))
    four = correlation_of(made([up[:4]] * 3, [up[:4], mixed[:4], up[:4]]), "loss").over_all
    assert (four.n, four.low, four.high) == (3, None, None), "of few points no interval is shown"
    equal = correlation_of(made([up] * 3, [up] * 3), "loss").over_all
    assert (equal.mean, equal.low, equal.high) == (1, None, None)


def test_up_to_the_best_point_late_points_without_steps_to_train_do_not_count():
    rises, falls_late = [1, 2, 3, 4, 5, 6], [0.6, 0.7, 0.8, 0.9, 0.2, 0.1]
    found = correlation_of(made([falls_late] * 3, [rises] * 3), "loss")
    assert found.to_best.mean == 1
    # Ranks of accuracy 3 4 5 6 2 1 against 1 to 6: differences 2 2 2 2 3 5.
    assert found.over_all.mean == pytest.approx(1 - 6 * (4 * 4 + 9 + 25) / (6 * 35))
    assert found.windows == (4, 4)


def test_the_best_point_is_chosen_on_the_other_seeds():
    early, late = {0: 0.5, 10: 0.9, 20: 0.1, 30: 0.1}, {0: 0.5, 10: 0.6, 20: 0.7, 30: 0.8}
    accuracy = {0: early, 1: late, 2: late}
    assert window(accuracy, 0) == {0, 10, 20, 30}
    assert window(accuracy, 1) == {0, 10, 20}  # their means at 10 and 30: 0.75 and 0.45
    assert window({0: late}, 0) == {0, 10, 20, 30}


def test_a_best_point_before_the_third_leaves_three_points():
    falls = [0.9, 0.8, 0.7, 0.6]
    found = correlation_of(made([falls] * 2, [[1, 3, 2, 4]] * 2), "loss")
    assert found.windows == (3, 3)
    assert found.to_best.mean == pytest.approx(-0.5)


def test_the_earliest_of_equally_good_points_ends_the_window():
    assert window({0: dict.fromkeys(range(0, 60, 10), 0.5)}, 0) == {0, 10, 20}


def test_seeds_without_a_correlation_are_left_out_and_none_is_none():
    up = [1, 2, 3, 4]
    assert correlation_of(made([up, up], [up, [7] * 4]), "loss").over_all.n == 1
    silent = correlation_of(made([up, up], [[7] * 4] * 2), "loss")
    assert (silent.to_best, silent.over_all) == (None, None)


def test_points_without_the_predictor_do_not_count():
    records = made([[1, 2, 3, 4]], [[4, 3, 2, 9]])
    records = [{**r, "rewind_loss": None} if r["rewind_step"] == 30 else r for r in records]
    assert correlation_of(records, "loss").over_all.mean == -1


def test_predictors_are_taken_from_where_they_are():
    records = rewound()
    assert correlation_of(records, "the step itself").to_best.mean == 1
    assert correlation_of(records, "distance to the end").to_best.mean == -1
    assert correlation_of(records, "dense barrier, test").to_best.mean == -1
    assert correlation_of(records, "mask overlap", level=2).to_best.mean == 1
    assert correlation_of(records, "dense barrier, test", level=2).windows == (4, 4)
    # Level 2 from 0 to 100%: accuracies rank 2 3 4 5 1, steps 1 2 3 4 5.
    assert correlation_of(records, "the step itself", level=2).over_all.mean == pytest.approx(0)


def test_the_step_itself_is_no_finding_where_nothing_else_is_known():
    records = [{k: v for k, v in r.items() if not k.startswith("rewind_") or k == "rewind_step"}
               for r in rewound() if r["branch"] != "twin"]  # fmt: skip
    (cell,) = rewind_cells(merge_rewound_methods(records, AXES), AXES)
    assert predictor_correlations(cell) == []
