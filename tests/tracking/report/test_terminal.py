import re
from io import StringIO

import pytest
from hand_made import record, rewound, study, taxonomy
from rich.console import Console

from tracking.report.terminal import MOST_TABLES, verdict_table
from tracking.report.verdict_table import sections

AXES = ["seed", "prune.fraction"]
FRACTION = {"prune.fraction": 0.5}


def planned(records, replicates=4):
    return [{**record, "replicates_planned": replicates} for record in records]


def printed(records, axes=AXES, width=80):
    console = Console(width=width, file=StringIO())
    console.print(verdict_table(records, axes))
    return console.file.getvalue()


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_table_says_too_few_below_three_replicates(seeds):
    assert "too few" in printed(study(seeds=seeds, **FRACTION))


def test_the_table_of_levels_0_shows_the_dense_run():
    assert "97.00±2.48%" in printed(study(levels=0))


def test_the_table_shows_means_with_half_of_their_intervals():
    (winner,) = [
        row
        for row in printed(study(**FRACTION)).splitlines()
        if "winning " in row + " " and "±" in row
    ]
    assert winner.split() == ["50%", "98.00±2.48", "95.00±2.48", "yes", "0.018", "winning", "3"]


@pytest.mark.parametrize("branches", [["reinit"], ["reinit", "random_mask", "shuffled_mask"]])
def test_the_table_keeps_a_level_on_one_line_at_80_columns(branches):
    records = [r for r in study() if r["branch"] != "reinit"]
    records += [{**r, "branch": b} for r in study() if r["branch"] == "reinit" for b in branches]
    lines = [row for row in printed(planned(records)).splitlines() if re.match(r" *\d+% ", row)]
    assert len(lines) == 2
    assert all(row.rstrip().endswith("3/4!") for row in lines)
    assert all(row.count("±") == 1 + len(branches) for row in lines)


def test_the_table_of_many_levels_keeps_the_sparsest_match_its_next_and_the_last():
    records = [record(s, "dense", 0, (0.96, 0.97, 0.98)[s]) for s in range(3)]
    for level in range(1, 31):
        value = (0.96, 0.97, 0.98) if level <= 17 else (0.5, 0.6, 0.7)
        ticket = [{**record(s, "ticket", 1, value[s]), "level": level} for s in range(3)]
        records += [{**r, "density": 0.8**level} for r in ticket]
    text = printed(records)
    rows = re.findall(r"^ *([\d.]+%) ", text, flags=re.MULTILINE)
    assert len(rows) == 8
    assert {f"{100 * 0.8**level:.3g}%" for level in (1, 17, 18, 30)} <= set(rows)
    (section,) = sections(records, ["seed"], None)
    assert len(section.rows) == 30


def test_the_table_shows_study_names_as_they_are():
    assert "model.name=[red]x" in printed(study(**{"model.name": "[red]x"}), ["model.name"])


def test_the_table_of_nothing_says_so():
    assert "Nothing has been trained yet." in printed([])


def test_the_table_marks_verdicts_on_fewer_replicates_than_planned():
    records = [r for r in study() if r["level"] < 2 or r["seed"] < 2]
    text = printed(planned(records, 3), ["seed"])
    rows = [row.split()[-1] for row in text.splitlines() if re.match(r" *\d+% ", row)]
    assert rows == ["3/3", "2/3!"]
    assert "! fewer replicates than planned" in text
    whole = printed(planned(study(), 3), ["seed"])
    assert "3/3" in whole
    assert "!" not in whole


# Several methods

SCORES = ["seed", "prune.score"]


def rows_of(text):
    """Name and marks of each way."""
    found = re.findall(r"^  (\S.*?) {1,}((?:\S*\d±\S+|\N{EN DASH}).*)$", text, flags=re.MULTILINE)
    return {name.strip(): marks.split() for name, marks in found}


def test_methods_are_rows_by_family_and_densities_columns():
    text = printed(taxonomy(), SCORES)
    assert re.search(r"^ +50% +25% +12.5% +6.25% +3.12% *$", text, flags=re.MULTILINE)
    rows = rows_of(text)
    assert rows["random"][0] == "97.00±2.48○"
    assert rows["snip"][0] == "96.70±2.48○"  # 3/1000 lost at the first level
    order = ["Before training", "  synflow", "During training", "  gmp", "After training",
             "  one-shot ", "  one-shot finetune", "  imp ", "Never trained"]  # fmt: skip
    assert sorted(order, key=text.index) == order


def test_methods_keep_to_80_columns():
    assert all(len(line.rstrip()) <= 80 for line in printed(taxonomy(), SCORES, 200).splitlines())


def test_methods_that_collapse_or_do_not_match_are_marked():
    rows = rows_of(printed(taxonomy(), SCORES))
    assert rows["magnitude-init"][-1].endswith("\N{MULTIPLICATION SIGN}")
    assert rows["random"][-1][-1].isdigit()


def test_methods_on_fewer_replicates_than_planned_are_marked():
    records = planned(taxonomy(), 3)
    assert "!" not in printed(records, SCORES)
    fewer = [r for r in records if r["method"] != "snip" or r["seed"]]
    text = printed(fewer, SCORES)
    rows = rows_of(text)
    assert all(mark.endswith("!") for mark in rows["snip"])
    assert not any(mark.endswith("!") for mark in rows["random"])
    assert "! fewer replicates than planned" in re.sub(r"\s+", " ", text)
    assert "2 of 3 seeds" in text


def test_methods_that_win_are_marked():
    control = [
        {**r, "branch": "reinit", "final_test_accuracy": r["final_test_accuracy"] - 0.1 - i / 1000}
        for i, r in enumerate(taxonomy(levels=1))
        if r["method"] == "random" and r["branch"] == "ticket"
    ]
    assert rows_of(printed([*taxonomy(levels=1), *control], SCORES))["random"] == ["97.00±2.48●"]


def test_each_cell_of_several_methods_has_one_line():
    text = printed(taxonomy(), SCORES)
    assert "snip: sparsest matching ticket at 50% density (3 seeds)" in text
    assert text.count("seeds)") == 18
    assert "faster" not in text


def test_axes_that_no_method_determines_have_tables_of_their_own_up_to_a_few():
    records = [r for w in range(6) for r in taxonomy(seeds=1, levels=1, **{"model.width": w})]
    text = printed(records, [*SCORES, "model.width"])
    assert text.count("dense 96.00") == MOST_TABLES
    assert "model.width=0\n" in re.sub(" +\n", "\n", text)
    assert "2 more tables in the report" in text


# Several rewind points

REWIND = ["rewind", "seed"]


def test_rewind_points_are_rows_and_densities_columns():
    text = printed(rewound(), REWIND)
    assert re.search(r"^rewind +step +50% +25% *$", text, flags=re.MULTILINE)
    rows = [row.split() for row in text.splitlines() if re.match(r"\d+% +\d+ ", row)]
    assert [row[:2] for row in rows] == [
        ["0%", "0"], ["2%", "8"], ["5%", "20"], ["10%", "40"], ["100%", "400"],
    ]  # fmt: skip
    assert rows[2][2] == "98.00±2.48●"
    assert rows[4][2:] == ["57.00±2.48", "37.00±2.48"]
    assert "one-shot-rewind" not in text


def test_a_line_names_the_earliest_matching_rewind_point_of_each_density():
    lines = [row.rstrip() for row in printed(rewound(), REWIND).splitlines()]
    # At 2% it is two points below the dense run, whose deviation of one is the tolerance.
    assert "Earliest matching rewind point seen: 5% at 50% density, none at 25%" in lines
    few = printed(rewound(seeds=2), REWIND)
    assert "Earliest matching rewind point: too few replicates" in few


@pytest.mark.slow
def test_rewind_points_with_many_levels_and_cells_keep_to_80_columns():
    tickets = [r for r in rewound() if r["level"] == 1 or r["branch"] == "dense"]
    records = [
        {**r, "level": level, "density": 0.8**level, "model.width": width}
        if r["level"] else {**r, "model.width": width}
        for r in tickets for width in range(6) for level in range(1, 16)
    ]  # fmt: skip
    text = printed(records, [*REWIND, "model.width"])
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert text.count("dense 97.00") == MOST_TABLES
    assert "2 more tables in the report" in text
    # Levels without a column are told of by a line for each cell.
    assert "sparsest" in text


def test_rewind_points_on_fewer_replicates_than_planned_are_marked():
    records = planned(rewound(), 3)
    assert "!" not in printed(records, REWIND)
    text = printed([r for r in records if r["rewind"] != "5%" or r["seed"]], REWIND)
    rows = {
        row.split()[0]: row.split()[2:] for row in text.splitlines() if re.match(r"\d+% +\d+ ", row)
    }
    assert all(mark.endswith("!") for mark in rows["5%"])
    assert not any(mark.endswith("!") for mark in rows["2%"])
    assert "! fewer replicates than planned" in text


def test_rewind_points_with_all_levels_in_columns_need_no_line_for_each_cell():
    assert "sparsest" not in printed(rewound(), REWIND)
