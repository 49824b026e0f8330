"""What a plan counts, by hand and against what a search then trains."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import StudyOf

from lth_core import Trainer, find_tickets
from lth_core.errors import SpecError
from sweeps.config import Study
from sweeps.plan import Plan, Trial, is_stored, make_plan, summary
from sweeps.reader import parse_study


def cost(study: Study) -> tuple[int, ...]:
    return tuple(summary(make_plan(study)).values())


def test_two_seeds_share_nothing(tiny: StudyOf) -> None:
    # each: one dense, two levels of two branches; 40 steps each
    assert summary(make_plan(tiny())) == {
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
    # 1 seed x rewinding to 0, 10, 30 of 40: four trainings each from there, one dense run
    study = tiny({"axes.seed": [0], "axes.rewind": ["0it", "10it", "30it"]})
    assert cost(study) == (3, 15, 13, 3 * 40 + 4 * (40 + 30 + 10), 40 + 4 * (40 + 30 + 10))


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


def test_optuna_search_plans_an_upper_bound_over_its_samples(tiny: StudyOf) -> None:
    study = tiny(
        {"search": {"algorithm": "optuna", "trials": 3, "space": {"train.lr": [0.1, 0.2]}}}
    )
    assert cost(study) == (3 * 2, 3 * 10, 3 * 10, 3 * 400, 3 * 400)


def test_optuna_search_without_a_space_is_refused(tiny: StudyOf) -> None:
    with pytest.raises(SpecError, match=r"^search\.space: must name what optuna search samples"):
        make_plan(tiny({"search": "optuna"}))


SHARING = {
    "axes.rewind": ["0it", "10it", "30it"],
    "axes.prune.fraction": [0.2, 0.5],
    "axes.seed": [0],
}


def test_shared_dense_run_keeps_the_rewind_points_of_every_trial(tiny: StudyOf) -> None:
    (dense,) = make_plan(tiny(SHARING)).shared_dense()
    assert dense.keep == (10, 30)
    assert (dense.level, dense.first, dense.last) == (0, 0, 40)


def test_dense_run_of_one_trial_is_not_shared(tiny: StudyOf) -> None:
    assert make_plan(tiny()).shared_dense() == []
    pairs = [{"seed": s, "prune.fraction": f} for s, f in ((0, 0.2), (0, 0.5), (1, 0.2))]
    assert [job.seed for job in make_plan(tiny({"axes.pair": pairs})).shared_dense()] == [0]


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
    for job in plan.shared_dense():
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


# Lots

axis = {
    "seed": st.lists(st.integers(0, 2), min_size=1, max_size=3),
    "levels": st.lists(st.integers(0, 3), min_size=1, max_size=3),
    "rewind": st.lists(st.sampled_from(["0it", "5it", "9it"]), min_size=1, max_size=3),
    "prune.fraction": st.lists(st.sampled_from([0.2, 0.5]), min_size=1, max_size=2),
    "branches": st.lists(
        st.sampled_from([["ticket"], ["ticket", "reinit"], ["ticket", "random_mask"]]),
        min_size=1, max_size=3,
    ),
}  # fmt: skip
several = st.dictionaries(st.sampled_from(sorted(axis)), st.none(), min_size=1, max_size=4).flatmap(
    lambda chosen: st.fixed_dictionaries({name: axis[name] for name in chosen})
)


@given(axes=several, keep=st.integers(0, 2**12 - 1))
def test_lots_part_the_trials_so_that_none_waits_for_another(
    axes: dict[str, Any], keep: int
) -> None:
    base = {"train": {"steps": "10it"}, "model": {"widths": [4]}, "levels": 2}
    plan = make_plan(parse_study({"name": "x", "base": base, "axes": axes}))
    missing = [trial for number, trial in enumerate(plan.trials) if not keep >> number & 1]
    lots = plan.lots(missing)
    assert sorted(t.id for lot in lots for t in lot) == sorted(t.id for t in missing)
    trained = [{job.digest for t in lot for job in t.jobs() if job.level} for lot in lots]
    assert sum(map(len, trained)) == len(set().union(*trained)), "two lots train the same"


def test_lots_are_as_many_as_can_run_at_once(tiny: StudyOf) -> None:
    def lots(changes: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
        plan: Plan = make_plan(tiny(changes))
        return [[tuple(t.fields.values()) for t in lot] for lot in plan.lots(plan.trials)]

    assert lots({"axes.prune.fraction": [0.2, 0.5]}) == [
        [(0, 0.2)],
        [(0, 0.5)],
        [(1, 0.2)],
        [(1, 0.5)],
    ]
    assert lots({"axes.levels": [1, 2]}) == [[(0, 1), (0, 2)], [(1, 1), (1, 2)]]


def test_trial_is_named_by_the_start_of_its_digest(tiny: StudyOf) -> None:
    trial: Trial = make_plan(tiny()).trials[0]
    assert trial.digest == trial.spec.digest()
    assert trial.id == trial.digest[:12]
