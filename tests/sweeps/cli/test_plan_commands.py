"""`lth plan`: the trials listed, a part of them, and how long they take."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf

from lth_core.store import open_store
from lth_core.train.timings import store_speed
from sweeps.plan.plan import make_plan

WAYS = Path(__file__).parents[3] / "docs" / "methods.md"
GRID = {"axes.prune.fraction": [0.2, 0.5], "axes.branches": [["ticket"], ["ticket", "reinit"]]}


def test_list_prints_a_line_for_each_trial_and_then_the_plan(
    lth: Lth, tiny_file: StudyFile, tiny: StudyOf
) -> None:
    called = lth("plan", tiny_file(), "--list", "axes.rewind=[0it,10it]")
    trials = make_plan(tiny({"axes.rewind": ["0it", "10it"]})).trials
    assert called.out.splitlines()[:5] == [
        "trial         seed  rewind  levels  trainings  steps",
        f"{trials[0].id}  0     0it     2       5          200",
        f"{trials[1].id}  0     10it    2       5          180",
        f"{trials[2].id}  1     0it     2       5          200",
        f"{trials[3].id}  1     10it    2       5          180",
    ]
    assert called.out.splitlines()[5].startswith("tiny: 4 trials, ")


def test_a_score_of_ones_own_is_found_in_the_folder_where_lth_is_called(
    lth: Lth, tiny_file: StudyFile, here: Path
) -> None:
    docs, *_ = re.findall(r"```python\n(.*?)```", WAYS.read_text(), flags=re.DOTALL)
    (here / "mine.py").write_text(docs)
    path = tiny_file({"base.prune.score": "mine:size_times_travel"})
    called = lth("plan", path)
    assert (called.code, called.err) == (0, "")
    (here / "mine.py").rename(here / "elsewhere.py")
    sys.modules.pop("mine")
    called = lth("plan", path)
    assert called.code == 2
    assert "prune.score: cannot be imported" in called.err
    assert "No module named 'mine'" in called.err


def test_list_as_json_is_an_object_for_each_trial_and_nothing_else(
    lth: Lth, tiny_file: StudyFile, tiny: StudyOf
) -> None:
    rows = [
        json.loads(row) for row in lth("plan", tiny_file(), "--list", "--json").out.split("\n")[:-1]
    ]
    assert rows == [
        {"trial": trial.id, "seed": seed, "levels": 2, "trainings": 5, "steps": 200}
        for seed, trial in enumerate(make_plan(tiny()).trials)
    ]


def test_where_leaves_the_trials_with_these_values_and_counts_them_alone(
    lth: Lth, tiny_file: StudyFile
) -> None:
    path = tiny_file(GRID)
    chosen = [
        "--where",
        "seed=1",
        "--where",
        "prune.fraction=0.20,0.5",
        "--where",
        "branches=[ticket]",
    ]
    said = lth("plan", path, *chosen, "--json").out
    # seed 1: one dense run, two levels of tickets at two fractions
    assert json.loads(said)["trials"] == 2
    assert json.loads(said)["trainings_unique"] == 1 + 2 * 2
    rows = [
        json.loads(row) for row in lth("plan", path, *chosen, "--list", "--json").out.splitlines()
    ]
    assert [(row["seed"], row["prune.fraction"], row["branches"]) for row in rows] == [
        (1, 0.2, ["ticket"]), (1, 0.5, ["ticket"]),
    ]  # fmt: skip


def test_values_of_several_words_are_told_apart_by_their_brackets(
    lth: Lth, tiny_file: StudyFile
) -> None:
    both = ["--where", "branches=[ticket],[ticket,reinit]"]
    assert json.loads(lth("plan", tiny_file(GRID), *both, "--json").out)["trials"] == 8


def test_limit_prints_the_first_trials_and_counts_all(lth: Lth, tiny_file: StudyFile) -> None:
    said = lth("plan", tiny_file(GRID), "--list", "--limit", 3).out.splitlines()
    assert len(said[1:4]) == 3
    assert said[4] == "... 5 more"
    assert said[5].startswith("tiny: 8 trials, ")
    assert len(lth("plan", tiny_file(GRID), "--list", "--limit", 3, "--json").out.splitlines()) == 3
    assert "more" not in lth("plan", tiny_file(GRID), "--list", "--limit", 8).out


def test_where_takes_the_last_part_of_a_field_that_one_axis_has(
    lth: Lth, tiny_file: StudyFile
) -> None:
    file = tiny_file(GRID)
    short = lth("plan", file, "--list", "--where", "fraction=0.2").out
    assert short == lth("plan", file, "--list", "--where", "prune.fraction=0.2").out
    tiny_file({**GRID, "axes.data.fraction": [0.5, 1.0]})
    error = lth("plan", file, "--where", "fraction=0.2").err
    assert "but got 'fraction'; known: " in error
    assert "; did you mean `prune.fraction` or `data.fraction`?" in error


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--where", "train.lr=0.1"], "--where: must name an axis of the study, but got 'train.lr'; known: seed, prune.fraction, branches"),
        (["--where", "seed=7"], "--where: must name values of seed, but got 7; known: 0, 1"),
        (["--where", "seed=0", "--where", "seed=1"], "--where: must name values of seed, but got 1; known: 0"),
        (["--where", "seed"], "--where: must read field=value, but got 'seed'"),
        (["--where", "seed="], "--where: must read field=value, but got 'seed='"),
        (["--where", "seed=[0"], "--where: must have YAML values, but got '[0'"),
        (["--limit", "3"], "--limit: must be given with --list, but got 3"),
    ],
)  # fmt: skip
def test_part_of_a_plan_that_is_not_there_is_refused(
    options: list[str], complaint: str, lth: Lth, tiny_file: StudyFile
) -> None:
    called = lth("plan", tiny_file(GRID), *options)
    assert (called.code, called.out) == (2, "")
    assert called.err == f"lth: {complaint}\n"


def test_only_some_of_many_known_values_are_listed(lth: Lth, tiny_file: StudyFile) -> None:
    called = lth("plan", tiny_file({"axes.seed": list(range(30))}), "--where", "seed=99")
    assert called.err.endswith("17, 18, 19, ...\n")


def test_time_is_of_the_listed_trials_at_the_given_concurrency(
    lth: Lth, tiny_file: StudyFile, tiny: StudyOf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.plan.estimate.LEVEL_SECONDS", 0.0)
    path, plan = tiny_file(), make_plan(tiny())
    assert lth("plan", path, "--at-once", 2).out.endswith(
        "\ntime: about 1 s, 2 at a time; never trained here: mlp 16 on digits\n"
    )
    assert sorted(file.name for file in here.iterdir()) == ["tiny.yaml"]
    store_speed(open_store("lth-store"), next(plan.trials[0].jobs()), 3.0, "cpu")
    assert lth("plan", path, "--at-once", 1).out.endswith("\ntime: about 20 min, 1 at a time\n")
    one = lth("plan", path, "--at-once", 5, "--where", "seed=0", "--json").out
    assert json.loads(one)["time"] == {
        "left": False, "steps": 200, "seconds": 600.0, "at_once": 1, "unknown": {},
        "measured": False, "range": [600.0, 600.0],
    }  # fmt: skip
