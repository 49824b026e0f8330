import pytest
from hand_made import record, rewound, study
from varied import varied

from lth_core.analysis.rewinds import merge_rewound_methods
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from tracking.report.rewind_table import BarrierText, predictor_tables, rewind_tables

AXES = ["rewind", "seed"]


def table(records, rule=DEFAULT_RULE, **more):
    (found,) = rewind_tables(merge_rewound_methods(records, AXES), AXES, rule, **more)
    return found


def test_a_study_of_one_rewind_point_has_no_table():
    assert rewind_tables(study(), ["seed"], DEFAULT_RULE) == []
    assert predictor_tables(study(), ["seed"]) == []


def test_a_row_is_a_rewind_point_with_a_mark_for_each_density():
    found = table(varied(rewound()))
    assert found.densities == ["50%", "25%"]
    assert [(row.point, row.step) for row in found.rows][1:3] == [("2%", 8), ("5%", 20)]
    words = [[mark.verdict for mark in row.marks] for row in found.rows]
    lost = ["not matching"] * 2
    assert words == [lost, lost, ["winning", lost[0]], ["winning", lost[0]], lost]


def test_a_mark_is_undecided_where_too_few_seeds_have_equal_differences():
    # Three equal differences are chance with a probability of 1/8.
    words = {mark.verdict for row in table(rewound()).rows for mark in row.marks}
    assert words == {"undecided"}
    assert table(rewound()).matching == (
        "Earliest matching rewind point seen: none at 50% density, none at 25%"
    )


def test_marks_follow_the_rule_of_the_study():
    # At 2% the denser ticket is two points below the dense run.
    found = table(varied(rewound()), VerdictRule(margin=0.03))
    assert found.rows[1].marks[0].verdict == "winning"
    assert found.matching == ("Earliest matching rewind point seen: 2% at 50% density, none at 25%")


def test_a_barrier_below_the_threshold_is_stable():
    rows = table(rewound()).rows
    words = ["unstable", "unstable", "stable", "stable", "stable"]
    assert [row.dense.word for row in rows] == words
    assert [row.marks[0].barrier.word for row in rows] == ["unstable", *["stable"] * 4]
    assert rows[0].dense == BarrierText("5.10±0.25", "unstable")  # 5.0, 5.1, 5.2 points
    assert table(rewound(), stable_below=0.06).rows[0].dense.word == "stable"


def test_a_barrier_whose_interval_reaches_the_threshold_is_undecided():
    for mean in (0.015, 0.025):
        varied = [
            {**r, "test_barrier": mean + (r["seed"] - 1) / 100} if r["branch"] == "twin" else r
            for r in rewound()
        ]
        found = table(varied)
        assert {row.dense.word for row in found.rows} == {"undecided"}
        assert found.stable.startswith("Earliest stable rewind point seen: none for dense")
        few = table([row for row in varied if row["seed"] < 2])
        assert {row.dense.word for row in few.rows} == {"stable" if mean < 0.02 else "unstable"}


def test_without_twins_there_is_nothing_of_stability():
    found = table([r for r in rewound() if r["branch"] != "twin"])
    assert not found.barriers
    assert found.stable == ""
    assert found.rows[0].dense is None
    assert found.rows[0].marks[0].barrier is None


def test_a_ticket_that_is_not_there_yet_has_no_mark():
    records = [r for r in rewound() if not (r["rewind"] == "2%" and r["level"] == 2)]
    assert [mark is None for mark in table(records).rows[1].marks] == [False, True]


def test_no_tickets_at_all_leave_the_barriers_of_the_dense_run():
    found = table([r for r in rewound() if r["level"] == 0])
    assert found.matching == "No ticket yet"
    assert found.stable == "Earliest stable rewind point seen: 5% for dense"


def test_a_density_is_about_the_mean_where_rewind_points_differ():
    records = [
        {
            **r,
            "density": r["density"] + r["rewind_step"] / 4000 if r["level"] == 2 else r["density"],
        }
        for r in varied(rewound())
    ]
    found = table(records)
    assert found.densities == ["50%", "about 27.3%"]
    assert found.matching.endswith("none at about 27.3%")


def test_of_many_densities_some_have_columns():
    found = table(rewound(), most=1)
    assert (found.densities, found.left_out) == (["50%"], 1)


@pytest.mark.slow
def test_predictors_are_rows_with_two_correlations_a_density():
    (found,) = predictor_tables(merge_rewound_methods(rewound(), AXES), AXES)
    assert found.densities == ["50%", "25%"]
    assert found.windows == ["4", "4"]
    # All points: distances rank 5 4 3 2 1, accuracies 2 3 4 5 1: 1 - 6 * 40 / 120.
    assert found.rows["distance to the end"][1] == ("\N{MINUS SIGN}1.00", "+0.00")
    assert "curvature" not in found.rows


def test_strongest_predictor_is_named_beside_the_step_where_its_interval_excludes_0():
    losses = [(1, 2, 3, 4, 5, 6), (2, 1, 4, 3, 5, 6), (1, 2, 3, 4, 6, 5)]
    records = [
        record(seed, branch, level, 0.9 + i / 100, rewind=f"{i}it", rewind_step=i, **known)
        for seed, loss in enumerate(losses)
        for i in range(6)
        for branch, level, known in (("ticket", 1, {}), ("dense", 0, {"rewind_loss": loss[i]}))
    ]
    (found,) = predictor_tables(records, AXES)
    assert found.strongest == (
        "Strongest up to the best point, with an interval that excludes 0: loss, +0.94±0.14 at 50% "
        "density; the step itself +1.00"
    )
    (found,) = predictor_tables([r for r in records if r["rewind_step"] < 4], AXES)
    assert found.strongest == (
        "No predictor has a correlation up to the best point whose interval excludes 0: intervals "
        "take 5 points, and seeds that differ"
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_intervals_need_seeds_and_say_nothing_beyond_1(seeds):
    records = rewound(seeds=seeds)
    for r in records:
        if r["branch"] == "dense" and r["seed"] == 1:
            r["rewind_distance"] = {0: 2, 8: 3, 20: 4, 40: 5, 400: 1}[r["rewind_step"]]
    (found,) = predictor_tables(merge_rewound_methods(records, AXES), AXES)
    _, over_all = found.rows["distance to the end"][1]
    assert over_all == ("+0.00" if seeds == 1 else "+0.50±>1")
