import pytest
from hand_made import REWOUND, rewound, study, taxonomy

from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import (
    MOST_LEVELS,
    merge_rewound_methods,
    rewind_cells,
    rewind_points,
    rewind_series,
    varying_axes,
)
from tracking.figures.drawing.panels import by_level

AXES = ["rewind", "seed"]


def test_a_method_that_goes_through_all_rewind_points_is_one_method():
    assert methods(rewound()) == ["one-shot", "one-shot-rewind"]
    assert methods(merge_rewound_methods(rewound(), AXES)) == ["one-shot"]


def test_only_what_prunes_after_training_has_a_name_of_its_own_when_it_rewinds():
    records = [*rewound(), *rewound(method="my-rewind-score", when="before")]
    assert methods(merge_rewound_methods(records, [*AXES, "prune.when"])) == [
        "one-shot",
        "my-rewind-score",
    ]


def test_the_scope_at_the_end_of_a_name_stays():
    records = [{**r, "method": r["method"] + "-erk"} for r in rewound()]
    assert methods(merge_rewound_methods(records, AXES)) == ["one-shot-erk"]


def test_masks_were_compared_with_methods_by_their_settled_names():
    other = [{**r, "method": r["method"].replace("one-shot", "imp")} for r in rewound()]
    for ours, theirs in zip(mine := rewound(), other, strict=True):
        ours["overlap_methods"] = {theirs["method"]: 0.5}
        ours["overlap_methods_chance"] = {theirs["method"]: 0.1}
    settled = merge_rewound_methods([*mine, *other], [*AXES, "prune.one_shot"])
    assert methods(settled) == ["one-shot", "imp"]
    assert all(r["overlap_methods"] == {"imp": 0.5} for r in settled[: len(mine)])
    assert all(r["overlap_methods_chance"] == {"imp": 0.1} for r in settled[: len(mine)])


def test_one_late_rewind_point_beside_methods_that_do_not_rewind_is_a_method():
    records = [
        {**r, "rewind": "5%" if r["method"] == "imp-rewind" else "0it",
         "rewind_step": 20 if r["method"] == "imp-rewind" else 0}
        for r in taxonomy(levels=1)
    ]  # fmt: skip
    assert merge_rewound_methods(records, ["rewind", "prune.score", "seed"]) == records
    assert rewind_cells(records, ["rewind", "prune.score", "seed"]) == []


@pytest.mark.parametrize("records", [[], study(), rewound()], ids=["none", "plain", "no axis"])
def test_a_study_without_the_axis_keeps_its_methods_and_has_no_rewind_points(records):
    assert merge_rewound_methods(records, ["seed"]) == records
    assert rewind_cells(records, ["seed"]) == []


def test_a_single_rewind_point_is_none_to_compare():
    records = [r for r in rewound() if r["rewind"] == "5%"]
    assert merge_rewound_methods(records, AXES) == records
    assert rewind_cells(records, AXES) == []


def test_rewind_points_come_by_their_steps_with_their_own_records():
    (cell,) = rewind_cells(merge_rewound_methods(rewound()[::-1], AXES), AXES)
    points = rewind_points(cell)
    assert {point.name: point.step for point in points} == REWOUND
    assert [point.name for point in points] == list(REWOUND)
    assert all({r["rewind"] for r in point.cell.records} == {point.name} for point in points)


def test_other_axes_have_cells_of_their_own():
    records = [r for w in (1, 2) for r in rewound(**{"model.width": w})]
    found = rewind_cells(
        merge_rewound_methods(records, [*AXES, "model.width"]), [*AXES, "model.width"]
    )
    assert [cell.label for cell in found] == ["model.width=1", "model.width=2"]


def test_numbers_along_rewind_points_are_means_over_seeds():
    (cell,) = rewind_cells(merge_rewound_methods(rewound(), AXES), AXES)
    values = rewind_series(rewind_points(cell), "twin", 2, "test_barrier", 100)
    assert [value.mean for value in values.values()] == pytest.approx([20.1, 10.1, 6.1, 3.1, 0.1])
    assert all(value.n == 3 for value in values.values())


def test_of_many_levels_some_are_panels_the_first_and_the_last_among_them():
    tickets = [r for r in rewound() if (r["branch"], r["level"]) == ("ticket", 1)]
    many = [{**r, "level": n, "density": 0.8**n} for r in tickets for n in range(1, 21)]
    levels = by_level(rewind_cells(merge_rewound_methods(many, AXES), AXES))
    assert len(levels) == MOST_LEVELS
    assert (levels[0][0], levels[-1][0]) == (1, 20)
    assert levels[0][1].label == "80% of the weights"


def test_columns_that_no_rewind_point_changes_need_no_panel_for_each():
    tickets = [r for r in rewound() if r["branch"] == "ticket"]
    assert varying_axes(tickets, [*AXES, "a"], ["travel_inside"]) == ["seed", "a"]
    assert varying_axes(tickets, AXES, ["travel_inside", "travel"]) == AXES
    assert varying_axes(tickets, ["seed", "a"], ["travel"]) == ["seed", "a"]
    ends = min(r["rewind_step"] for r in tickets), max(r["rewind_step"] for r in tickets)
    two = [{**r, "method": f"imp{'-rewind' * bool(r['rewind_step'])}"}
           for r in tickets if r["rewind_step"] in ends]  # fmt: skip
    assert varying_axes(two, AXES, ["travel"]) == AXES, "methods that rewind differ"
