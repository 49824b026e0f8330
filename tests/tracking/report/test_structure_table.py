import re
from io import StringIO

import pytest
from hand_made import study
from rich.console import Console
from structured import AXES, NARROWING, TRAINED_AXES, costs, trained

from lth_core.analysis.verdict_rule import DEFAULT_RULE
from tracking.report.html import Provenance, page
from tracking.report.structure_table import cost_tables, similarity_tables
from tracking.report.terminal import verdict_table
from tracking.text import MISSING, flops_text

DASH = "\N{EN DASH}"


def printed(records, axes, width=80):
    console = Console(width=width, file=StringIO())
    console.print(verdict_table(records, axes))
    return console.file.getvalue()


def html(records, axes):
    return page("study", records, axes, [], DEFAULT_RULE, Provenance())


def table_of(records, axes=AXES):
    (table,) = cost_tables(records, axes, DEFAULT_RULE)
    return table


def answer(outputs):
    (table,) = similarity_tables(trained(outputs), TRAINED_AXES)
    return table.answer


def test_rows_are_by_family_method_and_branch():
    groups = table_of(costs()).groups
    assert list(groups) == ["Before training", "By training gates", "After training"]
    assert [(row.name, row.differs) for row in groups["By training gates"]] == [
        ("gates", ""), ("gates scratch_e", "scratch_e"),
    ]  # fmt: skip
    later = [{**r, "level": 2} for r in costs() if r["level"]]
    several = table_of([*costs(), *later]).groups["After training"]
    assert [row.differs for row in several if row.name == several[0].name] == [
        "",
        "level 2, ticket",
    ]


def test_a_row_has_shares_accuracy_and_the_cost_of_the_search():
    (row, _) = table_of(costs()).groups["By training gates"]
    assert row.shares == {"flops": "50%", "parameters": "40%"}
    assert row.mark.accuracy == "94.10±0.25"
    assert (row.search_flops, row.search_seconds, row.factor) == ("50", "0.5 s", "20")


def test_the_best_of_all_is_marked_once_and_a_free_search_has_no_factor():
    rows = [row for group in table_of(costs()).groups.values() for row in group]
    assert [row.name for row in rows if row.mark.best] == ["random"]
    assert [row.factor for row in rows] == [MISSING, MISSING, "20", "20", "1", "1"]


def test_latency_is_a_column_where_it_was_measured():
    timed = [
        {**r, "latency_ms": 3.0 if r["level"] else 4.0, "dense_latency_ms": 4.0,
         "latency_device": "a CPU"} for r in costs()
    ]  # fmt: skip
    table = table_of(timed)
    (row, _) = table.groups["By training gates"]
    assert (table.costs, table.device) == (["flops", "parameters", "latency"], "a CPU")
    assert (row.shares["latency"], row.latency) == ("75%", "3 ms")
    assert re.search(r"latency", printed(timed, AXES))
    assert "3 ms" in html(timed, AXES)
    assert "latency" not in table_of(costs()).costs


def test_fewer_replicates_than_planned_are_marked():
    planned = [{**r, "replicates_planned": 4} for r in costs()]
    (row, _) = table_of(planned).groups["By training gates"]
    assert row.mark.short


def test_grown_similarity_is_a_yes_with_its_numbers():
    grown = {
        "0ep": [(1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 2, 3), (3, 1, 2), (2, 3, 1)],
        "1ep": [(1, 2, 3)] * 6,
    }
    text = answer(grown)
    # Without the correlations at both ends, which a line through all points need not follow.
    assert text.startswith("Yes: the correlation between seeds grows from 0ep to 1ep; a line")
    assert re.search(r"rises by \+1.20 \(95% interval .* to .*; 2 rewind points, 6 seeds\)", text)
    text = answer(dict(zip(grown, reversed(grown.values()), strict=True)))
    assert text.startswith("No: the correlation between seeds falls from 0ep to 1ep; a line")


def test_too_few_seeds_are_undecided_and_the_answer_says_why():
    text = answer({"0ep": [(1, 2, 3), (3, 2, 1)], "1ep": [(1, 2, 3), (1, 2, 3)]})
    assert text.startswith(
        "Undecided whether the correlation between seeds grows from 0ep to 1ep: a line"
    )
    assert text.endswith("2 seeds, and an interval needs three seeds).")
    text = answer({"0ep": [(5, 5, 5)] * 3, "1ep": [(1, 2, 3), (1, 2, 3), (3, 1, 2)]})
    assert text == "Undecided: fewer than two rewind points have a similarity between seeds."


def test_rows_of_similarity_have_the_spread_of_costs():
    (table,) = similarity_tables(trained(NARROWING), TRAINED_AXES)
    row = table.rows[1]
    assert (row.point, row.parameters, row.parameters_range) == ("1ep", "43%", f"40{DASH}46")
    assert (row.flops, row.flops_range) == ("50%", f"50{DASH}50")
    assert [row.with_first for row in table.rows[:2]] == ["1.00", "-0.25"]
    assert (row.accuracy, row.search_flops) == ("91.50±2.05", "100")
    assert table.rows[2].interval == "1.00 to 1.00"


@pytest.mark.parametrize(("records", "axes"), [(costs(), AXES), (trained(NARROWING), TRAINED_AXES)])
def test_the_terminal_shows_structures_within_80_columns(records, axes):
    text = printed(records, axes)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "50%" in text


def test_the_terminal_has_one_table_of_methods():
    text = printed(costs(), AXES)
    assert re.search(r"^  gates +50% +40% +94.10±0.25 +0.5 s +20 *$", text, re.M)
    assert re.search(r"^    scratch_e +50% ", text, re.M)
    assert "by density" not in text
    assert "gates: " in text  # its verdict in one line


def test_the_terminal_asks_and_answers_whether_training_narrows():
    text = printed(trained(NARROWING), TRAINED_AXES)
    assert "Does training narrow the structures? prune.score=slimming" in text
    assert re.search(rf"^5ep +1.00 +1.00 to 1.00 +0.1[23] +50% +43% \(40{DASH}46\) ", text, re.M)


def test_the_terminal_keeps_the_table_of_rewind_points():
    both = trained(NARROWING) + trained(NARROWING, "gates")
    text = printed(both, TRAINED_AXES)
    assert text.count("Test accuracy (%) of the ticket, by density") == 2
    assert text.count("Does training narrow") == 2


def test_the_page_has_the_structures_in_place_of_the_methods():
    text = html(costs(), AXES)
    assert "<h2>Structures</h2>" in text
    assert "<h2>Methods</h2>" not in text
    text = html(trained(NARROWING), TRAINED_AXES)
    assert "<h2>Does training narrow the structures?</h2>" in text
    assert "<h2>Methods</h2>" not in text


def test_studies_without_structures_are_as_before():
    text = html(study(), ["seed"])
    assert "<h2>Structures</h2>" not in text
    assert "narrow" not in text


def test_flops_have_three_digits_and_a_prefix():
    assert [flops_text(n) for n in (0, 999, 999.9, 16_541_798_400, 2e27)] == [
        "0", "999", "1 k", "16.5 G", "2e+06 Z",
    ]  # fmt: skip
