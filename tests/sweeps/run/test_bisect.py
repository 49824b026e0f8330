"""`lth rewind`: what bisection finds is what the whole grid says, at fewer trainings."""

import json
from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf, context_of, search

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.run.bisect import Bisection
from sweeps.run.trial import run_trial
from sweeps.store.records import TRIALS
from sweeps.studies.schema import Study

CHANGES = {
    "axes.seed": [0, 1, 2],
    "base.train.evaluate_every": "5it",
    "base.prune.fraction": 0.2,
    "base.branches": ["ticket", "reinit", "twin"],
    "base.stability.points": 3,
    "verdict": {"margin": "5 points"},
}
POINTS = list(range(0, 40, 5))


def play(study: Study, found: Bisection, most: int = 10**6) -> int:
    """Run what a search asks for in this process, as Ray would; how many trials that were."""
    waiting = [(number, t) for number in range(len(found.cells)) for t in found.next_trials(number)]
    done = 0
    while waiting and done < most:
        number, trial = waiting.pop(0)
        for _ in run_trial(trial, context_of(study), found.trainer):
            pass
        waiting += [(number, after) for after in found.trial_finished(number)]
        done += 1
    return done


@pytest.mark.long
@pytest.mark.slow
def test_bisection_finds_what_the_whole_grid_says(tiny: StudyOf) -> None:
    study, trainer = tiny(CHANGES), Trainer()
    bisected = Bisection(make_plan(study), trainer)
    ran = play(study, bisected)
    (cell,), answers = bisected.cells, list(bisected.earliest())
    assert (cell.points, cell.grid) == (POINTS, POINTS)
    assert ran == 3 * len(set().union(*cell.responses.values()))
    assert [(a.level, a.finished, a.steps, a.points) for a in answers] == [
        (1, True, 40, 8), (2, True, 40, 8)
    ]  # fmt: skip

    every_point = study.model_copy(update={"axes": {**study.axes, "rewind": POINTS}})
    for _ in search(every_point, trainer):
        pass
    whole = Bisection(make_plan(study), trainer)
    assert play(study, whole) == 0, "all is in the store"
    for answer, known in zip(answers, whole.cells[0].responses.values(), strict=True):
        assert sorted(known) == POINTS
        matching = [point for point in POINTS if known[point].matching]
        if matching == [p for p in POINTS if p >= min(matching, default=0)] or not matching:
            assert answer.earliest == min(matching, default=None)
        assert answer.earliest in (matching or [None])
        assert answer.below not in matching
        assert answer.density == pytest.approx(0.8**answer.level, rel=0.01)
    assert any(a.monotone and a.trainings < a.trainings_grid == 24 for a in answers)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_bounds_said_before_are_never_exceeded_and_shrink_with_what_is_known(
    tiny: StudyOf, levels: int
) -> None:
    study = tiny({**CHANGES, "base.levels": levels})
    found = Bisection(make_plan(study), Trainer())
    monotone, whole = found.bounds()
    looks = {1: 4, 2: 7, 4: 8}[levels]  # of 8 points: a path of ceil(log2 8) + 1 for each level
    assert (monotone.looks, monotone.trials) == (looks, 3 * looks)
    assert monotone.trainings == 3 + 3 * looks * levels
    assert (whole.looks, whole.trainings) == (8, 3 + 24 * levels)
    assert monotone.sentence().startswith(f"at most {looks} looks at 8 rewind points: ")
    first = found.next_trials(0)
    play(study, found, most=len(first))
    rest, _ = Bisection(make_plan(study), found.trainer).bounds()
    assert rest.looks < monotone.looks
    assert rest.trainings == 3 * rest.looks * levels, "dense runs are in the store"
    ran = len(first) + play(study, found)
    assert ran <= (whole if found.cells[0].not_monotone else monotone).trials


def test_probes_restart_the_schedule_where_the_study_does(tiny: StudyOf) -> None:
    study = tiny({**CHANGES, "base.rewind": "10it", "axes.restart_schedule": [False, True]})
    bisected = Bisection(make_plan(study), Trainer())
    by_cell = {
        cell.fields["restart_schedule"]: [t.spec for t in bisected.next_trials(number)]
        for number, cell in enumerate(bisected.cells)
    }
    assert {restart: {s.restart_schedule for s in specs} for restart, specs in by_cell.items()} == {
        False: {False}, True: {True}
    }  # fmt: skip


@pytest.mark.slow
def test_search_goes_on_from_what_the_store_has(tiny: StudyOf) -> None:
    study = tiny(CHANGES)
    at_once, in_two = Bisection(make_plan(study), Trainer()), Bisection(make_plan(study), Trainer())
    ran = play(study, at_once)
    assert play(study, in_two, most=4) == 4
    resumed = Bisection(make_plan(study), in_two.trainer)
    play(study, resumed)
    assert [a.earliest for a in resumed.earliest()] == [a.earliest for a in at_once.earliest()]
    trained = [len(found.trainer.store.digests("trainings")) for found in (at_once, resumed)]
    assert trained[0] == trained[1] == 3 + 2 * ran


@pytest.mark.long
@pytest.mark.slow
def test_points_of_a_swept_study_count_as_looked_at(tiny: StudyOf) -> None:
    study, trainer = tiny(CHANGES | {"axes.rewind": ["0it", "50%"]}), Trainer()
    for _ in search(study, trainer):
        pass
    (cell,) = Bisection(make_plan(study), trainer).cells
    assert cell.grid == [0, 20]
    assert [sorted(points) for points in cell.responses.values()] == [[0, 20], [0, 20]]


def test_a_failed_probe_leaves_its_cell_unfinished(tiny: StudyOf) -> None:
    study = tiny(CHANGES)
    found = Bisection(make_plan(study), Trainer())
    asked = found.next_trials(0)
    for trial in asked[1:]:
        for _ in run_trial(trial, context_of(study), found.trainer):
            pass
    assert [after for _ in asked for after in found.trial_finished(0)] == []
    assert [a.finished for a in found.earliest()] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"axes.seed": [0, 1]},
            "axes.seed: must have at least 3 values for a verdict, but got [0, 1]",
        ),
        (
            {"base.prune.when": "during", "base.branches": ["ticket"]},
            "prune.when: must be after or before, with a level at least, for rewind points to "
            "differ, but got 'during'",
        ),
        (
            {"search": {"algorithm": "random", "trials": 2, "space": {"train.lr": [0.1, 0.2]}}},
            "search.algorithm: must be grid for rewind points to be bisected, but got 'random'",
        ),
    ],
)
def test_what_cannot_be_bisected_is_refused(
    changes: dict[str, object], message: str, tiny_file: StudyFile, lth: Lth
) -> None:
    called = lth("rewind", tiny_file(CHANGES | changes))
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"lth: {message}")


def test_study_that_asks_for_no_verdict_needs_the_seeds_too(tiny_file: StudyFile, lth: Lth) -> None:
    called = lth("rewind", tiny_file({"axes.seed": [0, 1]}))
    assert (called.code, called.out) == (2, "")
    rule = "axes.seed: must have at least 3 values for a verdict, but got [0, 1]"
    assert called.err.startswith(f"lth: {rule}")


@pytest.mark.slow
def test_probes_are_run_and_each_is_asked_for_once(tiny_file: StudyFile, lth: Lth) -> None:
    path = tiny_file(CHANGES)
    called = lth("rewind", path, "--json", "--serial")
    assert called.code == 0
    rows = [json.loads(line) for line in called.out.splitlines()]
    assert [(row["level"], row["finished"]) for row in rows] == [(1, True), (2, True)]

    here = Bisection(make_plan(study_of(path)), Trainer())
    play(study_of(path), here)
    assert [row["earliest"] for row in rows] == [a.earliest for a in here.earliest()]
    for row in rows:  # one meaning at both points: small where it is shown to match
        assert row["earliest"] is None or row["p_matching"] < 0.05
        assert row["below"] is None or row["p_matching_below"] >= 0.05
    assert [json.loads(line) for line in lth("rewind", path, "--json").out.splitlines()] == rows
    where = study_of(path).store
    record = Path(where) / TRIALS / min(open_store(where).digests(TRIALS)) / "entry.json"
    record.write_text("torn")
    table = lth("rewind", path).out
    assert lth("store", "verify").code == 0, "the torn record is stored again"
    assert "matches from" in table
    assert ("bisected" in table) == any(row["monotone"] for row in rows)


def study_of(path: object) -> Study:
    from sweeps.studies.find import find_study

    return find_study(str(path), [])


def test_every_cell_has_its_own_search(tiny: StudyOf) -> None:
    changes = CHANGES | {"axes.prune.fraction": [0.2, 0.5], "axes.rewind": ["0it", "5it", "60%"]}
    found = Bisection(make_plan(tiny(changes)), Trainer())
    assert [cell.fields for cell in found.cells] == [
        {"prune.fraction": 0.2},
        {"prune.fraction": 0.5},
    ]
    for number, cell in enumerate(found.cells):
        asked = found.next_trials(number)
        assert [t.fields["prune.fraction"] for t in asked] == 3 * [cell.fields["prune.fraction"]]
        assert [(t.spec.seed, t.spec.rewind) for t in asked] == [(s, "15it") for s in range(3)]
        assert cell.grid == [0, 5, 24]
        assert cell.points == sorted({*POINTS, 24})
