from hand_made import study, taxonomy
from varied import cell, varied

from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from tracking.report.method_table import columns, method_tables

SCORES = ["seed", "prune.score"]


def rows_of(records, rule=DEFAULT_RULE, **more):
    (table,) = method_tables(records, SCORES, rule, **more)
    return {name: marks for group in table.groups.values() for name, marks in group.items()}


def test_a_single_method_has_no_table():
    assert method_tables(study(), ["seed"], DEFAULT_RULE) == []


def test_the_best_of_each_column_is_marked_once():
    rows = rows_of(taxonomy())
    for column in range(5):
        assert [name for name, marks in rows.items() if marks[column].best] == ["random"]


def test_methods_that_are_shown_to_be_worse_than_another_are_marked():
    """Against imp, snip loses 5 points at each seed and synflow 0 to 10, for a p of 0.0001 and 0.1:
    each of three methods is tested against every other at 2.5%."""
    losses = {"imp": (0, 0, 0), "snip": (0.049, 0.05, 0.051), "synflow": (0.0, 0.05, 0.1)}
    records = [
        {
            **r, "final_test_accuracy":
            0.9 - losses[r["method"]][r["seed"]] * (r["branch"] == "ticket"),
        }
        for r in taxonomy(levels=1) if r["method"] in losses
    ]  # fmt: skip

    def worse(found):
        return [name for name, (mark,) in rows_of(found).items() if mark.worse]

    assert worse(records) == ["snip"]
    assert worse([r for r in records if r["seed"] < 2]) == [], "too few for a test"


def test_methods_of_equal_accuracy_are_both_best():
    records = [r for r in taxonomy() if r["method"] in ("random", "snip")]
    for record in records:
        record["final_test_accuracy"] = 0.9
    assert all(mark.best for marks in rows_of(records).values() for mark in marks)


def test_a_mark_that_is_alone_in_its_column_is_not_the_best():
    records = [r for r in taxonomy() if r["level"] < 3 or r["method"] == "snip"]
    assert [mark.best for mark in rows_of(records)["snip"]] == [False] * 5


def test_densities_that_differ_by_rounding_share_a_column():
    records = [
        {**r, "density": r["density"] * (1.02 if r["method"] == "snip" and r["level"] else 1)}
        for r in taxonomy()
    ]
    rows = rows_of(records)
    assert all(len(marks) == 5 and all(marks) for marks in rows.values())


def test_a_method_without_a_density_has_no_mark_there():
    records = [r for r in taxonomy() if not (r["method"] == "snip" and r["level"] in (2, 3))]
    marks = rows_of(records)["snip"]
    assert [mark is None for mark in marks] == [False, True, True, False, False]


def test_a_retraining_is_compared_with_the_dense_run_and_not_with_reinit():
    made = varied(taxonomy(levels=1))
    control = [
        {**r, "branch": "reinit", "final_test_accuracy": 0.1 + r["seed"] / 10_000}
        for r in made
        if r["method"] == "one-shot" and r["branch"] == "ticket"
    ]
    # Its ticket is at 0, finetune 0.1 points below dense, lr_rewind 1.1 below.
    gains = {"ticket": 0.009, "finetune": 0.018, "lr_rewind": 0.018}
    records = [
        {**r, "final_test_accuracy": r["final_test_accuracy"] + gains.get(r["branch"], 0)}
        if r["method"] == "one-shot"
        else r
        for r in made
    ]
    rows = rows_of([*records, *control])
    assert rows["one-shot"][0].verdict == "winning"
    assert rows["one-shot finetune"][0].verdict == "matching"
    assert rows["one-shot lr_rewind"][0].verdict == "not matching"
    without = rows_of(records)
    assert without["one-shot"][0].verdict == "matching"
    assert without["one-shot finetune"][0].verdict == "matching"


def of_methods(count):
    """Methods that are alike: 0.4 points below dense, with p of matching of 0.024 for one alone."""
    names = ["snip", "grasp", "synflow"][:count]
    return [r for name in names for r in cell([-0.4], method=name, **{"prune.score": name})]


def test_the_methods_of_a_table_are_judged_together():
    two, three = rows_of(of_methods(2)), rows_of(of_methods(3))
    assert {marks[0].verdict for marks in two.values()} == {"matching"}
    assert {marks[0].verdict for marks in three.values()} == {"undecided"}
    each = rows_of(of_methods(3), VerdictRule(for_all="none"))
    assert {marks[0].verdict for marks in each.values()} == {"matching"}


def test_another_margin_may_match():
    records = of_methods(2)
    for margin, word in {0.001: "not matching", 0.0035: "undecided", 0.01: "matching"}.items():
        rows = rows_of(records, VerdictRule(margin))
        assert {marks[0].verdict for marks in rows.values()} == {word}


def test_dense_runs_that_differ_are_all_named():
    records = [
        {**r, "final_test_accuracy": 0.5} if (r["branch"], r["method"]) == ("dense", "gmp") else r
        for r in taxonomy()
    ]
    (table,) = method_tables(records, SCORES, DEFAULT_RULE)
    assert table.dense == ["97.00±2.48", "50.00±0.00"]


def test_of_many_densities_the_ends_and_those_that_most_methods_have_are_columns():
    dense_steps, few = [0.8**level for level in range(1, 21)], [0.8**5, 0.8**10, 0.8**20]
    found = columns([dense_steps, few, few, few], most=3)
    assert [column[0] for column in found] == few
    spread = columns([dense_steps, dense_steps], most=5)
    assert (spread[0][0], spread[-1][0]) == (0.8, 0.8**20)
    assert len(spread) == 5
