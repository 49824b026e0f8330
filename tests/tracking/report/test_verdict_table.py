import pytest
from hand_made import study, taxonomy
from varied import cell, varied

from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from tracking.report.verdict_table import PText, p_text, sections

AXES = ["seed", "prune.score"]


def of_methods(*names, gaps=(-0.4,), gains=(0.12,)):
    """Methods that are alike; for one alone p of matching is 0.024, p against reinit 0.014."""
    return [r for name in names for r in cell(gaps, gains, method=name, **{"prune.score": name})]


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "1"),
        (0.5, "0.5"),
        (0.123, "0.12"),
        (0.0012, "0.0012"),
        (0.00123, "0.0012"),
        (0.000149, "0.00015"),
        (0.0001, "0.0001"),
        (0.0000999, "<0.0001"),
        (0.0, "<0.0001"),
    ],
)
def test_p_has_two_digits(p, text):
    assert p_text(p, 0.05) == text


@pytest.mark.parametrize(
    ("p", "significant", "text"),
    [
        (0.0499, 0.05, "0.0499"),
        (0.0496123, 0.05, "0.0496"),
        (0.04996, 0.05, "0.04996"),
        (0.0499999, 0.05, "0.0499999"),
        (0.0501, 0.05, "0.05"),
        (0.0501, 1 - 0.95, "0.0501"),
        (0.05, 0.05, "0.05"),
        (0.00996, 0.01, "0.00996"),
        (0.00996, 0.05, "0.01"),
    ],
)
def test_p_near_the_threshold_has_as_many_digits_as_show_its_side(p, significant, text):
    assert p_text(p, significant) == text
    assert (float(text) < significant) == (p < significant)


def test_a_row_has_raw_and_adjusted_p_of_both_tests():
    one = sections(of_methods("snip"), ["seed"], DEFAULT_RULE)[0].rows[0]
    assert (one.p_matching, one.p_reinit) == (PText("0.024", "0.024"), PText("0.014", "0.014"))
    for section in sections(of_methods("snip", "gmp"), AXES, DEFAULT_RULE):
        (row,) = section.rows
        assert row.p_matching == PText("0.024", "0.047")
        assert row.p_reinit == PText("0.014", "0.027")
    for section in sections(of_methods("snip", "gmp"), AXES, VerdictRule(for_all="none")):
        (row,) = section.rows
        assert row.p_matching == PText("0.024", "0.024")
        assert row.p_reinit == PText("0.014", "0.014")


def test_several_methods_need_a_smaller_p_than_one_alone():
    names = ["snip", "gmp", "synflow", "grasp"]
    words = [
        {row.verdict for section in sections(of_methods(*names[:count]), AXES, DEFAULT_RULE)
         for row in section.rows}
        for count in (1, 2, 3)
    ]  # fmt: skip
    assert words == [{"winning"}, {"winning"}, {"undecided"}]
    # Here the margin is met by far, and only p against reinit becomes too large.
    far = [
        {row.verdict for section in sections(of_methods(*names[:count], gaps=[0.1]), AXES,
                                             DEFAULT_RULE) for row in section.rows}
        for count in (3, 4)
    ]  # fmt: skip
    assert far == [{"winning"}, {"matching"}]


def test_cells_of_other_axes_are_not_judged_together():
    records = [r for width in range(4) for r in cell([-0.4], [0.12], **{"model.width": width})]
    found = sections(records, ["seed", "model.width"], DEFAULT_RULE)
    assert [section.rows[0].verdict for section in found] == ["winning"] * 4
    assert {section.basis.split("; ")[1] for section in found} == {
        "margin 0.5 points, 95% confidence over 1 level (Holm)"
    }


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (DEFAULT_RULE, "margin 0.5 points, 95% confidence over 2 levels (Holm)"),
        (VerdictRule(0.0125, 0.999), "margin 1.25 points, 99.9% confidence over 2 levels (Holm)"),
        (
            VerdictRule(for_all="none"),
            "margin 0.5 points, 95% confidence at each level, not adjusted",
        ),
    ],
    ids=["default", "other numbers", "not adjusted"],
)
def test_the_basis_of_one_method_names_margin_confidence_and_levels(rule, text):
    (section,) = sections(cell([0.1, -3]), ["seed"], rule)
    assert section.basis == f"Dense 97.00±0.20%; {text}"


def test_the_basis_names_the_barrier_of_the_dense_network_also_without_tickets():
    dense = [r for r in cell([0.1]) if r["branch"] == "dense"]
    twins = [{**r, "branch": "twin", "test_barrier": 0.01 * r["seed"]} for r in dense]
    twins_of_tickets = [{**r, "level": 1, "test_barrier": 0.9} for r in twins]
    (section,) = sections([*dense, *twins, *twins_of_tickets], ["seed"], DEFAULT_RULE)
    values = [row["test_barrier"] for row in twins]
    mean = 100 * sum(values) / len(values)
    assert section.basis.startswith(f"Dense 97.00±0.20%, barrier between two copies {mean:.2f}±")
    assert section.basis.endswith(" points")


def test_the_basis_of_several_methods_names_all_levels_and_methods():
    found = sections(
        of_methods("snip", "gmp", gaps=[0, 0, -3], gains=[1, 1, 1]), AXES, DEFAULT_RULE
    )
    assert [section.basis for section in found] == [
        "Dense 97.00±0.20%; margin 0.5 points, 95% confidence over 6 levels of 2 methods (Holm)"
    ] * 2
    (one, *rest) = sections(varied(taxonomy()), AXES, DEFAULT_RULE)
    assert len(rest) == 17
    assert one.basis.endswith("95% confidence over 90 levels of 18 methods (Holm)")


def test_the_basis_counts_levels_that_have_enough_replicates():
    records = [r for r in cell([0.1, 0.1, -3]) if r["level"] < 3 or r["seed"] < 2]
    (section,) = sections(records, ["seed"], DEFAULT_RULE)
    assert section.basis.endswith("95% confidence over 2 levels (Holm)")
    (section,) = sections(study(seeds=2), ["seed"], DEFAULT_RULE)
    assert section.basis == "Dense 96.50±6.35%"


def test_an_undecided_row_has_the_number_of_seeds_that_would_decide_it():
    (section,) = sections(cell([0.1, -0.45, -0.5, -3]), ["seed"], DEFAULT_RULE)
    assert [(row.verdict, row.seeds_to_decide) for row in section.rows] == [
        ("matching", ""),
        ("undecided", "about 18 seeds"),
        ("undecided", "not even 1,000 seeds"),
        ("not matching", ""),
    ]


def test_three_replicates_with_equal_differences_are_undecided_and_five_match():
    words = {
        seeds: sections(cell([0.1], seeds=seeds, spread=0), ["seed"], DEFAULT_RULE)[0].rows[0]
        for seeds in (3, 4, 5)
    }
    assert [row.verdict for row in words.values()] == ["undecided", "undecided", "matching"]
    assert [row.p_matching.raw for row in words.values()] == ["0.12", "0.062", "0.031"]
    assert words[3].seeds_to_decide == "about 5 seeds"


def test_the_best_row_is_the_sparsest_matching_one_before_the_first_that_is_not():
    # At level 3 the test alone would succeed.
    (section,) = sections(cell([0.1, -0.45, 0.1]), ["seed"], DEFAULT_RULE)
    assert [row.verdict for row in section.rows] == ["matching", "undecided", "undecided"]
    assert section.best == 0
    assert section.rows[2].p_matching == PText("<0.0001", section.rows[1].p_matching.raw)
