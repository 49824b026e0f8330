"""The fast way of counting against the obvious one: every job of every trial, by digest."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from tiny import tiny_fields

from lth_core.errors import SpecError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.spec import spec_json
from lth_core.train.timings import speed_key
from sweeps.plan.counting import counts_left
from sweeps.plan.plan import Plan, make_plan
from sweeps.studies.axes import base_values, check_axes, combinations, samples, spec_of
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study

CONTROLS = ["reinit", "random_mask", "shuffled_mask", "inverted_mask", "trained"]
WAYS = [
    {"prune.when": "after", "branches": ["ticket", "finetune", "lr_rewind"]},
    {"prune.when": "after", "branches": ["ticket", "twin"], "prune.one_shot": True},
    {"prune.when": "before", "prune.score": "snip", "branches": ["ticket", "reinit", "twin"]},
    {"prune.when": "during", "prune.grow": "random", "branches": ["ticket", "trained"]},
    {"prune.when": "never", "prune.score": "edge-popup", "branches": ["ticket", "reinit"]},
]
PACES = [
    {"train.schedule": "constant"},
    {"train.schedule": "cosine"},
    {"train.warmup": "5it", "train.batch_size": 30},
]
PAIRS = [
    {"model.width": 1, "levels": 1, "branches": ["ticket"]},
    {"model.width": 0.5, "levels": 1, "branches": ["ticket", "reinit"]},
    {"model.width": 0.25, "levels": 1, "branches": ["ticket", "random_mask"], "rewind": "10it"},
]
AXES: dict[str, list[Any]] = {
    "seed": [0, 1, 2, 1],
    "rewind": ["0it", "10it", "20it", "25%"],
    "restart_schedule": [False, True],
    "prune.fraction": [0.2, 0.5, 0.50],
    "model.width": [0.5, 1],
    "model.depth": [1, 2],
    "train.lr": [0.01, 0.02],
    "train.steps": ["40it", 40, "60it"],
    "levels": [0, 1, 2],
    "data.root": ["/a", "/b"],
    "stability.points": [3, 4],
    "pace": PACES,
    "pair": PAIRS,
}


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """A few axes with a few values each, in any order; perhaps with random samples."""

    def some(values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))

    axes: dict[str, Any] = {"seed": some(AXES["seed"])}
    for name in draw(st.lists(st.sampled_from(sorted(AXES)), max_size=3, unique=True)):
        axes[name] = some(AXES[name])
    if draw(st.booleans()):
        axes["way"] = some(WAYS)
    else:
        orders = st.lists(st.sampled_from(CONTROLS), max_size=3, unique=True)
        axes["branches"] = [["ticket", *draw(orders)] for _ in range(draw(st.integers(1, 2)))]
    said: dict[str, Any] = {"axes": dict(draw(st.permutations(list(axes.items()))))}
    if draw(st.booleans()):
        space = {"train.lr": {"low": 0.1, "high": 0.2}, "prune.output_fraction": [0.1, None]}
        said["search"] = {"algorithm": "random", "trials": 2, "space": space}
    study = parse_study({**tiny_fields(), **said})
    try:
        check_axes(study)
    except SpecError:  # two axes set one field
        reject()
    return study


def every_job(plan: Plan) -> list[Job]:
    return [job for trial in plan.trials for job in trial.jobs()]


quick = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
@quick
@given(studies())
def test_costs_are_those_of_jobs_with_distinct_digests(study: Study) -> None:
    plan = make_plan(study)
    jobs = every_job(plan)
    unique = {job.digest: job.last - job.first for job in jobs}
    assert plan.cost() == {
        "trials": len(plan.trials),
        "trainings_naive": len(jobs),
        "trainings_unique": len(unique),
        "steps_naive": sum(job.last - job.first for job in jobs),
        "steps_unique": sum(unique.values()),
    }


@quick
@given(studies())
def test_sharing_counts_branches_with_distinct_digests(study: Study) -> None:
    plan = make_plan(study)
    found: dict[str, list[Hashable]] = {}
    for trial in plan.trials:
        for branches in levels(trial.spec):
            for branch, job in branches.items():
                found.setdefault(branch, []).append(job.digest)
            if ticket := branches.get("ticket"):
                recipe = ticket.digest if ticket.finds else ticket.mask.digest
                mask = recipe, spec_json(ticket.data), ticket.model, ticket.train
                found.setdefault("mask", []).append(mask)
    assert plan.sharing() == {name: (len({*each}), len(each)) for name, each in found.items()}


@quick
@given(studies())
@pytest.mark.slow
def test_shared_trainings_are_those_that_are_met_twice(study: Study) -> None:
    plan = make_plan(study)
    jobs = every_job(plan)
    met = Counter(job.digest for job in jobs)
    keeps: dict[str, set[int]] = {}
    for job in jobs:
        keeps.setdefault(job.digest, set()).update(job.keep)
    shared = plan.shared()
    assert shared.keys() == {digest for digest, times in met.items() if times > 1}
    assert all(
        job.digest == digest and job.keep == tuple(sorted(keeps[digest]))
        for digest, job in shared.items()
    )


@pytest.mark.slow
@quick
@given(studies())
def test_work_is_the_steps_of_jobs_with_distinct_digests(study: Study) -> None:
    plan = make_plan(study)
    unique = {job.digest: job for job in every_job(plan)}
    expected: Counter[str] = Counter()
    for job in unique.values():
        expected[speed_key(job, "cpu")] += job.last - job.first
    for work in (plan.counts.work, counts_left((trial.spec for trial in plan.trials), ()).work):
        got: Counter[str] = Counter()
        for pace, steps in work.items():
            got[speed_key(pace, "cpu")] += steps
        assert got == expected
    stored = set(list(unique)[::2])
    left = counts_left((trial.spec for trial in plan.trials), stored).work
    assert left.total() == sum(j.last - j.first for d, j in unique.items() if d not in stored)


@quick
@given(studies())
@pytest.mark.slow
def test_trials_are_the_cells_read_one_by_one(study: Study) -> None:
    points = [
        {**sample, **cell}
        for sample in (samples(study) if study.search.algorithm == "random" else [{}])
        for cell in combinations(study)
    ]
    expected: dict[str, Any] = {}
    for fields in points:
        spec = spec_of(base_values(study), fields)
        expected.setdefault(spec.digest(), (fields, spec))
    trials = make_plan(study).trials
    assert [(trial.digest, (trial.fields, trial.spec)) for trial in trials] == [*expected.items()]


@quick
@given(studies())
@pytest.mark.slow
def test_rows_say_of_each_trial_what_it_trains(study: Study) -> None:
    plan = make_plan(study)
    for trial, row in zip(plan.trials, plan.rows(), strict=True):
        jobs = list(trial.jobs())
        assert row["trial"] == trial.id
        assert row["levels"] == trial.spec.levels
        assert row["trainings"] == len(jobs)
        assert row["steps"] == sum(job.last - job.first for job in jobs)
        assert {name: row[name] for name in trial.fields if name != "levels"} == {
            name: value for name, value in trial.fields.items() if name != "levels"
        }
