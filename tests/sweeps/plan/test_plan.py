"""What a plan counts, by hand and against what a search then trains."""

from collections import Counter
from typing import Any

import pytest
import torch
from tiny import Lth, StudyFile, StudyOf

from lth_core import Trainer, find_tickets
from lth_core.errors import SpecError
from lth_core.models import latency as models_latency
from lth_core.resolve import Pins
from sweeps.plan.plan import Trial, is_stored, make_plan
from sweeps.studies.axes import SpecReader
from sweeps.studies.schema import Study


def cost(study: Study) -> tuple[int, ...]:
    return tuple(make_plan(study).cost().values())


def test_two_seeds_share_nothing(tiny: StudyOf) -> None:
    # each: one dense, two levels of two branches; 40 steps each
    assert make_plan(tiny()).cost() == {
        "trials": 2,
        "trainings_naive": 2 * (1 + 2 * 2),
        "trainings_unique": 2 * (1 + 2 * 2),
        "steps_naive": 2 * 5 * 40,
        "steps_unique": 2 * 5 * 40,
    }


def test_fractions_share_their_dense_run(tiny: StudyOf) -> None:
    # 2 seeds x 3 fractions; 4 trainings beside the dense one
    assert cost(tiny({"axes.prune.fraction": [0.2, 0.3, 0.5]})) == (6, 30, 26, 1200, 26 * 40)


def test_rewind_points_share_their_dense_run_and_save_its_first_steps(tiny: StudyOf) -> None:
    # 1 seed x rewinding to 0, 10, 30 of 40: two tickets each from there, one dense run; two reinits
    # of 40 steps, the first level's the same for all three
    study = tiny({"axes.seed": [0], "axes.rewind": ["0it", "10it", "30it"]})
    tickets = 2 * (40 + 30 + 10)
    assert cost(study) == (3, 15, 11, 3 * 40 + tickets + 6 * 40, 40 + tickets + 4 * 40)


def test_restarting_the_schedule_shares_dense_run_and_first_mask_and_trains_all_steps(
    tiny: StudyOf,
) -> None:
    # 1 seed, from step 10 on or on all 40 steps again: two tickets each; two reinits of 40 steps,
    # the first level's the same for both
    study = tiny({"axes.seed": [0], "base.rewind": "10it", "axes.restart_schedule": [False, True]})
    plan, tickets = make_plan(study), 2 * (30 + 40)
    assert cost(study) == (2, 10, 8, 2 * 40 + tickets + 4 * 40, 40 + tickets + 3 * 40)
    assert plan.sharing() == {"dense": (1, 2), "ticket": (4, 4), "reinit": (3, 4), "mask": (3, 4)}


def test_restarting_the_schedule_at_rewind_point_0_is_the_same_trial(tiny: StudyOf) -> None:
    study = tiny({"axes.restart_schedule": [True, False], "axes.rewind": ["0it", "10it"]})
    plain = tiny({"axes.rewind": ["0it", "10it"]})
    assert len(make_plan(study).trials) == 2 * 3
    assert {t.digest for t in make_plan(plain).trials} < {t.digest for t in make_plan(study).trials}


def test_longer_trial_shares_all_that_the_shorter_one_trains(tiny: StudyOf) -> None:
    assert cost(tiny({"axes.seed": [0], "axes.levels": [1, 2]})) == (2, 3 + 5, 5, 320, 200)


def test_branches_share_the_ticket_only(tiny: StudyOf) -> None:
    study = tiny({"axes.seed": [0], "axes.branches": [["ticket"], ["ticket", "random_mask"]]})
    assert cost(study) == (2, 3 + 5, 5, 320, 200)


def test_lookalike_trials_are_one(tiny: StudyOf) -> None:
    repeated = {"axes.seed": [0, 1, 0], "axes.train.steps": ["40it", 40, "40it"]}
    assert [t.fields["seed"] for t in make_plan(tiny(repeated)).trials] == [0, 1]
    assert cost(tiny({"axes.seed": [0], "axes.train.lr": [0.1, 0.10]}))[0] == 1


def test_where_data_lie_makes_no_other_trial(tiny: StudyOf) -> None:
    assert len(make_plan(tiny({"axes.data.root": ["/a", "/b"]})).trials) == 2  # the seeds


def test_random_search_plans_every_sample_on_every_cell(tiny: StudyOf) -> None:
    study = tiny(
        {
            "search": {
                "algorithm": "random",
                "trials": 3,
                "space": {"train.lr": {"low": 0.1, "high": 0.2}},
            }
        }
    )
    plan = make_plan(study)
    assert [t.fields["seed"] for t in plan.trials] == [0, 1] * 3
    rates = [t.spec.train.lr for t in plan.trials]
    assert rates[0::2] == rates[1::2]
    assert len(set(rates)) == 3
    assert plan.axes == ["seed", "train.lr"]


def test_optuna_search_plans_about_what_samples_drawn_at_random_cost(tiny: StudyOf) -> None:
    """The four combinations, which share the dense runs of each number of steps and seed."""
    space = {"levels": [2, 4], "train.steps": ["40it", "200it"]}
    plan = make_plan(tiny({"search": {"algorithm": "optuna", "trials": 40, "space": space}}))
    assert plan.certainty == "about"
    assert tuple(plan.cost().values()) == (8, 2 * 2 * (5 + 9), 2 * 2 * 9, 14 * 2 * 240, 9 * 2 * 240)


def test_optuna_search_is_planned_though_no_trial_has_the_base_alone(tiny: StudyOf) -> None:
    space = {"train.steps": ["400it", "800it"]}
    base = {"base.rewind": "300it", "search": {"algorithm": "optuna", "space": space}}
    for swept in (False, True):
        assert len(make_plan(tiny(base), swept=swept).trials) == 2 * 2


def test_optuna_search_is_planned_without_the_samples_that_make_no_spec(tiny: StudyOf) -> None:
    """It goes on without them; where none is left, the error is told."""
    space = {"train.warmup": ["0it", "30it"], "train.steps": ["20it", "40it"]}
    search = {"algorithm": "optuna", "space": space}
    assert len(make_plan(tiny({"search": search}), swept=True).trials) == 2 * 3
    with pytest.raises(SpecError, match=r"^axes\.train\.lr"):
        make_plan(tiny({"search": search, "axes.train.lr": [-1]}))


def test_plan_with_a_stop_rule_is_an_upper_bound(tiny: StudyOf) -> None:
    assert make_plan(tiny({"stop": {"below_matching_for": 1}})).certainty == "at most"
    assert make_plan(tiny()).certainty == "exactly"


def test_optuna_search_without_a_space_is_refused(tiny: StudyOf) -> None:
    with pytest.raises(SpecError, match=r"^search\.space: must name what optuna search samples"):
        make_plan(tiny({"search": "optuna"}))


@pytest.mark.parametrize(("space", "message"), [
    ({"levels": {"low": 1, "high": 5}}, r"levels: must be a valid integer, .*, but got 3\.19"),
    ({"train.lr": [0.1, -1]}, "train.lr: must be a positive number, but got -1"),
    ({"rewind": ["0it", "300it"]}, "rewind: must not lie past the end of training"),
])  # fmt: skip
@pytest.mark.parametrize("algorithm", ["optuna", "random"])
def test_samples_that_make_no_spec_are_refused_before_anything_runs(
    algorithm: str, space: dict[str, Any], message: str, tiny: StudyOf
) -> None:
    study = tiny({"search": {"algorithm": algorithm, "trials": 2, "space": space}})
    with pytest.raises(SpecError, match=rf"^search\.space\.{message}"):
        make_plan(study)


@pytest.mark.parametrize("where", ["base.data.validation", "axes.data.validation"])
def test_objective_that_needs_validation_examples_is_refused_where_there_are_none(
    where: str, tiny: StudyOf
) -> None:
    changes = {where: 0 if where.startswith("base") else [0.1, 0]}
    space = {"train.lr": [0.1, 0.2]}
    rule = r"^search\.objective: needs validation examples .*, but got 'early_stop_step'$"
    with pytest.raises(SpecError, match=rule):
        make_plan(tiny({
            "search": {"algorithm": "optuna", "objective": "early_stop_step", "space": space},
            **changes,
        }))  # fmt: skip
    search = {"algorithm": "optuna", "objective": "final_test_accuracy", "space": space}
    assert make_plan(tiny({"search": search, **changes})).trials


def test_verdict_asked_of_too_few_seeds_is_refused_where_trials_are_to_be_run(
    tiny: StudyOf,
) -> None:
    study = tiny({"verdict": {"margin": 0.01}})
    rule = r"^axes\.seed: must have at least 3 values for a verdict, but got \[0, 1\]$"
    with pytest.raises(SpecError, match=rule):
        make_plan(study)
    trials = make_plan(tiny()).trials
    assert make_plan(study, Pins()).trials == trials, "as stored"
    assert make_plan(study, swept=True).trials == trials


def test_budget_of_milliseconds_is_measured_where_trials_are_to_be_run(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[str]()

    def fake(networks: list[Any], shape: tuple[int, ...], **options: Any) -> list[float]:
        measured.append(options["device"])
        return [2.0]

    monkeypatch.setattr(models_latency, "latency", fake)
    neurons = {"base.levels": 1, "base.prune": {"structure": "neurons"}, "base.model.widths": [17]}
    study = tiny({**neurons, "base.prune.budget": {"latency_ms": 1.0}})
    for trials in (make_plan(study, Pins()), make_plan(study, swept=True)):
        assert len(trials.trials) == 2
    assert measured == []
    rule = r"prune\.budget\.latency_ms: must be at least 2, .*, but got 1\.0$"
    with pytest.raises(SpecError, match=rule):
        make_plan(study)
    assert measured == ["cpu"]
    assert make_plan(tiny({**neurons, "base.prune.budget": {"latency_ms": 3.0}})).trials

    study = tiny({**neurons, "base.prune.budget": {"cuda_latency_ms": 3.0}})
    with pytest.raises(SpecError, match=r"^resources\.gpu: must be above 0 .*, but got 0"):
        make_plan(study)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = tiny({**neurons, "base.prune.budget": {"cuda_latency_ms": 3.0}, "resources.gpu": 1})
    assert make_plan(study).trials, "a head without a GPU leaves the check to its workers"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(models_latency, "latency", lambda *_, **__: [5.0])
    with pytest.raises(SpecError, match=r"prune\.budget\.cuda_latency_ms: must be at least"):
        make_plan(study)


@pytest.mark.parametrize(
    "seeds",
    [
        {"axes.seed": [0, 1, 2]},
        {"axes": {"pair": [{"seed": 5}, {"seed": 6}, {"seed": 7}]}},
        {
            "search": {"algorithm": "random", "trials": 2, "space": {"seed": [0, 1, 2, 3]}},
            "axes": {},
        },
    ],
)
def test_verdict_is_taken_of_three_seeds_by_any_axis_or_of_sampled_ones(
    seeds: dict[str, Any], tiny: StudyOf
) -> None:
    assert make_plan(tiny({"verdict": {"confidence": 0.9}, **seeds})).trials


SHARING = {
    "axes.rewind": ["0it", "10it", "30it"],
    "axes.prune.fraction": [0.2, 0.5],
    "axes.seed": [0],
}


def test_shared_dense_run_keeps_the_rewind_points_of_every_trial(tiny: StudyOf) -> None:
    plan = make_plan(tiny(SHARING))
    dense = plan.shared()[next(plan.trials[0].jobs()).digest]
    assert dense.keep == (10, 30)
    assert (dense.level, dense.first, dense.last) == (0, 0, 40)


def test_trainings_of_one_trial_are_not_shared(tiny: StudyOf) -> None:
    assert make_plan(tiny()).shared() == {}
    pairs = [{"seed": s, "prune.fraction": f} for s, f in ((0, 0.2), (0, 0.5), (1, 0.2))]
    shared = make_plan(tiny({"axes": {"pair": pairs}})).shared().values()
    assert [(job.seed, job.level) for job in shared] == [(0, 0)]


def test_trainings_beyond_the_dense_run_are_shared(tiny: StudyOf) -> None:
    shared = make_plan(tiny({"axes.levels": [1, 2], "axes.seed": [0]})).shared().values()
    assert sorted({job.level for job in shared}) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        SHARING,
        {"axes.levels": [1, 2], "axes.branches": [["ticket"], ["ticket", "shuffled_mask"]]},
        {"base.prune.one_shot": True, "axes.prune.fraction": [0.3, 0.6]},
        {"base.levels": 0},
    ],
)
def test_plan_counts_exactly_what_is_then_trained(tiny: StudyOf, changes: dict[str, Any]) -> None:
    plan, trainer = make_plan(tiny(changes)), Trainer()
    steps: Counter[str] = Counter()
    assert not any(is_stored(trial, trainer) for trial in plan.trials)
    for job in plan.shared().values():
        trainer([job])
        steps[job.digest] = job.last - job.first
    for trial in plan.trials:
        for level in find_tickets(trial.spec, trainer):
            for result in level.results.values():
                if not result.reused:
                    assert result.job.digest not in steps, "trained twice"
                    steps[result.job.digest] = result.job.last - result.job.first
    counted = plan.cost()
    assert len(trainer.store.digests("trainings")) == len(steps) == counted["trainings_unique"]
    assert sum(steps.values()) == counted["steps_unique"]
    assert all(is_stored(trial, trainer) for trial in plan.trials)


def test_trial_is_named_by_the_start_of_its_digest(tiny: StudyOf) -> None:
    trial: Trial = make_plan(tiny()).trials[0]
    assert trial.digest == trial.spec.digest()
    assert trial.id == trial.digest[:12]


@pytest.mark.slow
def test_each_command_makes_the_plan_once(
    tiny_file: StudyFile, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted inside `make_plan`, by whatever name it is called; sync has nowhere to publish to."""
    path, made = tiny_file({"axes.seed": [0], "base.levels": 1}), list[object]()

    def reader(*arguments: Any) -> SpecReader:
        made.append(arguments)
        return SpecReader(*arguments)

    monkeypatch.setattr("sweeps.plan.plan.SpecReader", reader)
    for command, code in (
        ("sweep --dry-run", 0), ("sweep --serial", 0), ("report", 0), ("report --json", 0),
        ("plan --list", 0), ("sync", 2),
    ):  # fmt: skip
        made.clear()
        name, *options = command.split()
        called = lth(name, path, *options)
        assert (called.code, len(made)) == (code, 1), (command, called)
