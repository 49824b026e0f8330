import re
from io import StringIO

import pytest
from hand_made import rewound, study, taxonomy
from rich.console import Console
from varied import cell, varied

from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from tracking.report.terminal import MOST_TABLES, verdict_table
from tracking.report.verdict_table import sections

AXES = ["seed", "prune.fraction"]
FRACTION = {"prune.fraction": 0.5}


def planned(records, replicates=4):
    return [{**record, "replicates_planned": replicates} for record in records]


def printed(records, axes=AXES, width=80, rule=DEFAULT_RULE, every_level=False):
    console = Console(width=width, file=StringIO())
    console.print(verdict_table(records, axes, rule, every_level=every_level))
    return console.file.getvalue()


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_table_says_too_few_below_three_replicates(seeds):
    assert "too few" in printed(study(seeds=seeds, **FRACTION))


def test_the_table_of_levels_0_shows_the_dense_run():
    assert "97.00±2.48%" in printed(study(levels=0))


def level_rows(text):
    """The lines of the levels."""
    return [line for line in text.splitlines() if re.match(r" *[\d.]+% ", line)]


def test_the_table_shows_means_with_half_of_their_intervals():
    winner, _ = level_rows(printed(varied(study(**FRACTION))))
    assert winner.split() == [
        "50%", "98.00±2.48", "95.00±2.48", "no", "0.018", "0.018", "winning", "3",
    ]  # fmt: skip


def test_the_table_shows_adjusted_p_beside_raw_p():
    text = printed(cell([0.1, 0, -0.4, -3], [3, 1, 0.1, 0.1]), ["seed"])
    assert re.search(r"^density +ticket +reinit +faster +p +adj. +verdict +n *$", text, re.M)
    assert [line.split()[4:7] for line in level_rows(text)] == [
        ["<0.0001", "<0.0001", "winning"],
        ["<0.0001", "<0.0001", "winning"],
        ["0.01", "0.02", "winning"],
        ["0.01", "0.02", "no"],
    ]


def test_the_table_says_faster_where_it_is_shown():
    # Five tickets that all stop earlier by the same: 1/32, and 1/16 over two levels.
    (one,) = level_rows(printed(cell([0.1], [3]), ["seed"]))
    assert one.split()[3] == "yes"
    assert [line.split()[3] for line in level_rows(printed(cell([0.1, 0.1], [3, 3]), ["seed"]))] == [
        "no", "no",
    ]  # fmt: skip


def test_the_table_has_no_faster_without_early_stops():
    records = [{**record, "early_stop_step": None} for record in cell([0.1], [3])]
    text = printed(records, ["seed"])
    assert re.search(r"^density +ticket +reinit +p +adj. +verdict +n *$", text, re.M)
    (row,) = level_rows(text)
    assert row.split()[3:6] == ["<0.0001", "<0.0001", "winning"]


def test_the_table_names_the_rule_of_the_verdicts():
    text = printed(cell([0.1, -3]), ["seed"])
    assert "Dense 97.00±0.20%; margin 0.5 points, 95% confidence over 2 levels (Holm)" in text
    text = printed(cell([0.1, -3]), ["seed"], rule=VerdictRule(0.01, 0.9, "none"))
    assert "Dense 97.00±0.20%; margin 1 point, 90% confidence at each level, not adjusted" in text
    assert "margin" not in printed(study(seeds=2), ["seed"])


def test_the_table_has_every_word():
    records = cell([0.1, 0.1, -0.45, -3, -3], [3, 0, 3, 3, 3])
    text = printed([r for r in records if r["level"] < 5 or r["seed"] < 2], ["seed"])
    found = [re.search(r"(?:yes|no) +\S+ +\S+ +(.*?) +\d", line) for line in level_rows(text)]
    assert [match and match[1] for match in found] == [
        "winning", "matching", "undecided", "no match", "too few",
    ]  # fmt: skip


def with_controls(records, controls):
    """The records with these controls, all of them as reinit is."""
    kept = [r for r in records if r["branch"] != "reinit"]
    return kept + [{**r, "branch": b} for r in records if r["branch"] == "reinit" for b in controls]


@pytest.mark.parametrize(
    "controls",
    [["reinit"], ["reinit", "random_mask"], ["reinit", "random_mask", "shuffled_mask"]],
    ids=len,
)
def test_the_table_has_whole_numbers_on_one_line_a_level_at_80_columns(controls):
    records = cell([0.1, 0.1, -0.45, -3], [3, 0.08, 3, 3])
    densities = {"3.95%": 0.0395, "1.98%": 0.0198, "0.987%": 0.00987, "0.494%": 0.00494}
    sparse = [1.0, *densities.values()]
    records = [{**r, "density": sparse[r["level"]]} for r in records]
    text = printed(planned(with_controls(records, controls), 6), ["seed"], width=80)
    lines = level_rows(text)
    assert len(lines) == 4
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    for line, density in zip(lines, densities, strict=True):
        assert line.split()[0] == density
        assert line.rstrip().endswith(" 5/6!")
        assert len(re.findall(r"\d\d\.\d\d±\d\.\d\d ", line)) == 1 + len(controls)
    assert "<0.0001" in lines[0]
    assert "undecided" in lines[2]


def test_the_table_says_how_often_tickets_are_better_than_random_masks():
    records = with_controls(cell([0.1, 0.1], [3, 0]), ["random_mask"])
    assert "(Holm); better than random_mask at 1 of 2 levels" in printed(records, ["seed"], 120)
    assert "random_mask" not in printed(cell([0.1, 0.1], [3, 0]), ["seed"])


def test_the_table_of_many_branches_has_adjusted_p_alone():
    controls = ["reinit", "random_mask", "shuffled_mask"]
    records = with_controls(cell([0.1, -0.4], [3, 0.1]), controls)
    text = printed(records, ["seed"])
    assert "adj. p" in text
    assert "faster" not in text
    (section,) = sections(records, ["seed"], DEFAULT_RULE)
    assert [line.split()[5] for line in level_rows(text)] == [
        row.p_reinit.adjusted for row in section.rows
    ]


def test_the_table_of_many_levels_keeps_the_sparsest_match_its_next_and_the_last():
    records = [{**r, "density": 0.8 ** r["level"]} for r in cell([0.0] * 17 + [-30] * 13, seeds=5)]
    text = printed(records, ["seed"])
    rows = re.findall(r"^ *([\d.]+%) ", text, flags=re.MULTILINE)
    assert len(rows) == 20
    assert "10 more levels in the report" in text
    assert {f"{100 * 0.8**level:.3g}%" for level in (1, 17, 18, 30)} <= set(rows)
    (section,) = sections(records, ["seed"], DEFAULT_RULE)
    assert len(section.rows) == 30
    assert section.headline == (
        "Tickets match down to 2.25% density (5 seeds); 1.8% does not match"
    )


def test_the_table_shows_study_names_as_they_are():
    records = [row for name in ("[red]x", "y") for row in study(**{"model.name": name})]
    assert "model.name=[red]x: " in printed(records, ["model.name"])


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
    text = printed(varied(taxonomy()), SCORES)
    assert re.search(r"^ +50% +25% +12.5% +6.25% +3.12% *$", text, flags=re.MULTILINE)
    rows = rows_of(text)
    assert rows["random"][0] == "97.00±2.48○"
    assert rows["snip"][0] == "96.70±2.48○"  # 3/1000 lost at the first level
    order = ["Before training", "  synflow", "During training", "  gmp", "After training",
             "  one-shot ", "  one-shot finetune", "  imp ", "Never trained"]  # fmt: skip
    assert sorted(order, key=text.index) == order


def test_methods_keep_to_80_columns():
    # Headlines are longer, and wrapped.
    table, headlines = printed(varied(taxonomy()), SCORES, 200).split("random: ")
    assert all(len(line.rstrip()) <= 80 for line in table.splitlines())
    assert len(headlines.rstrip().splitlines()) == 18


def test_every_level_is_printed_below_methods_and_rewind_points_where_it_is_asked_for():
    records = varied(taxonomy())
    short, long = (printed(records, SCORES, every_level=every) for every in (False, True))
    assert short.rstrip() in long
    levels = {(r["method"], *(r[axis] for axis in SCORES if axis != "seed"), r["level"])
              for r in records if r["level"]}  # fmt: skip
    assert len(level_rows(long)) == len(level_rows(short)) + len(levels)


def test_methods_that_collapse_or_do_not_match_are_marked():
    rows = rows_of(printed(varied(taxonomy()), SCORES))
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
    records = varied(taxonomy(levels=1))
    control = [
        {**r, "branch": "reinit", "final_test_accuracy": r["final_test_accuracy"] - 0.1}
        for r in taxonomy(levels=1)
        if r["method"] == "random" and r["branch"] == "ticket"
    ]
    rows = rows_of(printed([*records, *control], SCORES))
    assert rows["random"] == ["97.00±2.48●"]
    assert rows["random-erk"] == ["96.90±2.48○"]


def test_methods_are_judged_together():
    def of_methods(*names):
        return [r for name in names for r in cell([-0.4], [0.12], method=name,
                                                  **{"prune.score": name})]  # fmt: skip

    # Alone, p of matching is 0.024: less than 0.05/2, more than 0.05/3.
    alone = printed(of_methods("snip"), ["seed"])
    assert level_rows(alone)[0].split()[-4:] == ["0.014", "0.014", "winning", "5"]
    assert set(map(tuple, rows_of(printed(of_methods("snip", "gmp"), SCORES)).values())) == {
        ("96.60±0.24●",)
    }
    three = of_methods("snip", "gmp", "synflow")
    assert set(map(tuple, rows_of(printed(three, SCORES)).values())) == {("96.60±0.24",)}
    said = re.sub(r"\s+", " ", printed(three, SCORES))
    for name in ("snip", "gmp", "synflow"):
        assert (
            f"{name}: no ticket shown to match (5 seeds); "
            "50% is undecided, about 8 seeds would decide"
        ) in said
    each = rows_of(printed(three, SCORES, rule=VerdictRule(for_all="none")))
    assert set(map(tuple, each.values())) == {("96.60±0.24●",)}


def test_each_cell_of_several_methods_has_one_line():
    text = printed(varied(taxonomy()), SCORES)
    assert "\nsnip: tickets match down to 50% density (3 seeds); 25% does not match " in text
    assert text.count("(3 seeds);") == 18
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
    text = printed(varied(rewound()), REWIND)
    assert re.search(r"^rewind +step +50% +25% *$", text, flags=re.MULTILINE)
    rows = [row.split() for row in text.splitlines() if re.match(r"\d+% +\d+ ", row)]
    assert [row[:2] for row in rows] == [
        ["0%", "0"], ["2%", "8"], ["5%", "20"], ["10%", "40"], ["100%", "400"],
    ]  # fmt: skip
    assert rows[2][2] == "98.00±2.48●"
    assert rows[4][2:] == ["57.00±2.48", "37.00±2.48"]
    assert "one-shot-rewind" not in text


def test_a_line_names_the_earliest_matching_rewind_point_of_each_density():
    lines = [row.rstrip() for row in printed(varied(rewound()), REWIND).splitlines()]
    # At 2% it is two points below the dense run.
    assert "Earliest matching rewind point seen: 5% at 50% density, none at 25%" in lines
    few = printed(rewound(seeds=2), REWIND)
    assert "Earliest matching rewind point: too few replicates" in few


@pytest.mark.slow
def test_rewind_points_with_many_levels_and_cells_keep_to_80_columns():
    tickets = [r for r in varied(rewound()) if r["level"] == 1 or r["branch"] == "dense"]
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
    assert "tickets win down to" in text


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
    assert "down to" not in printed(varied(rewound()), REWIND)
