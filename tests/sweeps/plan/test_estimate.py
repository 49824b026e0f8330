"""How long a plan takes, from speeds that trainings have left in its store."""

import threading
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf

from lth_core import Trainer
from lth_core.data import part_sizes
from lth_core.errors import StoreError
from lth_core.lottery import levels
from lth_core.spec import TicketSpec
from lth_core.store import open_store
from lth_core.train.timings import passes_per_step, store_speed
from sweeps.plan.estimate import PUBLISHING_START, Estimate, LevelSeconds, duration, estimate
from sweeps.plan.plan import Plan, make_plan

# tiny: 2 seeds of 5 trainings of 40 steps
WIDTHS = {"axes.model.width": [0.5, 1]}


def trained(plan: Plan, *trials: int, seconds: float = 0.5, device: str = "cpu") -> None:
    """Store the speed of the dense runs of these trials: seconds a step."""
    store = open_store(plan.study.store)
    for number in trials:
        store_speed(store, next(plan.trials[number].jobs()), seconds, device)


@pytest.fixture(autouse=True)
def steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are those of steps: levels take no time besides."""
    monkeypatch.setattr("sweeps.plan.estimate.LEVEL_SECONDS", 0.0)


def test_time_is_steps_at_the_speed_of_such_networks_side_by_side(tiny: StudyOf) -> None:
    plan = make_plan(tiny())
    trained(plan, 0)
    found = estimate(plan, at_once=2)
    assert (found.steps, found.seconds, found.at_once) == (400, 100.0, 2)
    assert found.sentence() == "time: about 1 min 40 s, 2 at a time"
    assert estimate(plan, at_once=1).seconds == 200


def test_no_more_trials_than_there_are_run_side_by_side(tiny: StudyOf) -> None:
    plan = make_plan(tiny())
    trained(plan, 0)
    assert estimate(plan, at_once=50).at_once == 2


def test_the_last_trials_leave_cores_idle(tiny: StudyOf) -> None:
    """Three trials of 200 steps, two at a time, take as long as four."""
    plan = make_plan(tiny({"axes.seed": [0, 1, 2]}))
    trained(plan, 0)
    assert estimate(plan, at_once=2).seconds == pytest.approx(2 * 200 * 0.5)
    Trainer(open_store(plan.study.store))(list(plan.trials[0].jobs()))
    left = estimate(plan, at_once=2)
    assert (left.steps, left.at_once) == (400, 2)
    assert left.seconds == pytest.approx(estimate(plan, at_once=1).seconds / 2)


def test_the_start_of_publishing_takes_time_too(tiny: StudyOf) -> None:
    plan = make_plan(tiny({"tracking.uri": "sqlite:///mlflow.db"}))
    trained(plan, 0)
    assert estimate(plan, at_once=2).seconds == 100 + PUBLISHING_START


def test_trial_that_needs_more_than_the_machine_has_runs_alone(tiny: StudyOf) -> None:
    assert estimate(make_plan(tiny({"resources": {"cpu": 100_000}}))).at_once == 1
    assert estimate(make_plan(tiny({"resources": {"cpu": 0.001}}))).at_once == 2


def test_what_is_shared_takes_its_time_once(tiny: StudyOf) -> None:
    plan = make_plan(tiny({"axes.seed": [0], "axes.levels": [1, 2]}))
    trained(plan, 0)
    assert estimate(plan, at_once=1).seconds == 200 * 0.5


def test_networks_that_were_never_trained_are_named_and_their_time_is_a_range(
    tiny: StudyOf,
) -> None:
    plan = make_plan(tiny({**WIDTHS, "base.train.steps": "200000it"}))
    nothing = estimate(plan, at_once=1)
    assert nothing.sentence() == (
        "time: 6 min 50 s to 1 h 10 min, 1 at a time; never trained here: mlp 16 (width 0.5) on digits, "
        "mlp 16 on digits"
    )
    assert nothing.to_json()["seconds"] is None
    trained(plan, 1, seconds=0.01)
    half = estimate(plan, at_once=1)
    low, high = half.unknown_seconds
    assert 0 < low < high / 5
    assert half.to_json() == {
        "left": False, "steps": 4_000_000, "seconds": 20_000.0, "at_once": 1, "measured": False,
        "range": [20_000 + low, 20_000 + high],
        "unknown": {"mlp 16 (width 0.5) on digits": 2_000_000},
    }  # fmt: skip
    assert half.sentence() == (
        "time: 5 h 37 min to 6 h 8 min, 1 at a time; never trained here: "
        "mlp 16 (width 0.5) on digits"
    )


@pytest.mark.slow
def test_speed_of_networks_that_were_never_trained_is_measured_on_request(
    tiny: StudyOf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.active_count()
    monkeypatch.setattr("sweeps.plan.probe.PROBE_SECONDS", 0.2)
    plan = make_plan(tiny(WIDTHS))
    assert not estimate(plan, at_once=1).measured
    found = estimate(plan, at_once=1, probe=True)
    assert (found.unknown, found.measured) == ({}, True)
    assert 800 * 2e-5 < found.seconds < 800 * 0.1
    assert found.sentence().endswith(", 1 at a time; speed measured just now")
    assert list(here.iterdir()) == [], "nothing is stored"
    assert estimate(plan, at_once=2, probe=True).measured
    assert threading.active_count() == threads


def test_speed_on_one_kind_of_device_says_nothing_of_another(tiny: StudyOf) -> None:
    plan = make_plan(tiny({"resources": {"gpu": 0.5}}))
    trained(plan, 0)
    assert estimate(plan).unknown
    trained(plan, 0, device="cuda")
    assert not estimate(plan).unknown


def test_stored_trainings_are_no_remaining_work(tiny: StudyOf) -> None:
    plan = make_plan(tiny())
    trainer = Trainer(open_store(plan.study.store))
    trainer(list(plan.trials[0].jobs())[:3])
    trained(plan, 0)  # in place of the time that it took
    some = estimate(plan, at_once=1)
    assert (some.left, some.steps, some.seconds) == (True, 280, 140.0)
    assert some.sentence() == "left: 280 steps: about 2 min 20 s, 1 at a time"
    for trial in plan.trials:
        trainer(list(trial.jobs()))
    assert estimate(plan).sentence() == "left: nothing"


def test_stored_dense_run_is_trained_again_up_to_a_later_rewind_point(tiny: StudyOf) -> None:
    """Once, up to the last of them, though two trials of each seed lack one."""
    trainer = Trainer(open_store(tiny().store))
    for trial in make_plan(tiny()).trials:
        trainer(list(trial.jobs()))
    later = make_plan(tiny({"axes.rewind": ["0it", "10it", "20it"]}))
    steps = estimate(later).steps
    for trial in later.trials:
        trainer([next(trial.jobs())])
    assert steps - estimate(later).steps == 2 * 20


def test_remaining_work_of_a_large_plan_is_not_looked_up(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.plan.estimate.MOST_LOOKED_UP", 9)
    plan = make_plan(tiny())
    Trainer(open_store(plan.study.store))(list(plan.trials[0].jobs())[:3])
    assert (estimate(plan).left, estimate(plan).steps) == (False, 400)


def test_adaptive_search_takes_about_as_long_as_samples_drawn_at_random(tiny: StudyOf) -> None:
    search = {"algorithm": "optuna", "trials": 9, "space": {"train.lr": [0.1, 0.2]}}
    plan = make_plan(tiny({"search": search}))
    trained(plan, 0)
    found = estimate(plan, at_once=100)
    assert (found.steps, found.at_once) == (800, 4), "two rates and two seeds"


def test_asking_for_the_time_makes_no_store(tiny: StudyOf, here: Path) -> None:
    estimate(make_plan(tiny()))
    assert list(here.iterdir()) == []


def test_store_that_cannot_be_read_leaves_the_time_unknown(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("store s3://a: cannot be reached")

    monkeypatch.setattr("sweeps.plan.estimate.open_store", refuse)
    found = estimate(make_plan(tiny()))
    assert found.sentence() == "time: not known; store s3://a: cannot be reached"
    assert found.to_json()["seconds"] is None


def of(expected: LevelSeconds, spec: TicketSpec) -> list[float]:
    """Expected seconds of a trial's levels."""
    return expected.of(spec, levels(spec))


def test_a_levels_seconds_are_those_of_its_trainings_that_no_level_before_has(
    tiny: StudyOf,
) -> None:
    plan = make_plan(tiny({"axes.seed": [0], "axes.levels": [1, 2], "base.branches": ["ticket"]}))
    trained(plan, 0, seconds=0.5)
    (short, long), store = (trial.spec for trial in plan.trials), open_store(plan.study.store)
    dense, ticket, *_ = (job.digest for job in plan.trials[0].jobs())
    expected = LevelSeconds(store, plan.study.resources, [])
    assert [of(expected, short), of(expected, long)] == [
        [20, 20], [0, 0, 20],
    ]  # fmt: skip
    stored = LevelSeconds(store, plan.study.resources, [dense, ticket])
    assert of(stored, long) == [0, 0, 20]


def test_a_level_takes_time_beside_its_steps(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.plan.estimate.LEVEL_SECONDS", 0.25)
    plan = make_plan(tiny())
    trained(plan, 0)
    number = sum(trial.spec.levels + 1 for trial in plan.trials)
    assert estimate(plan, at_once=1).seconds == 200 + 0.25 * number
    expected = LevelSeconds(open_store(plan.study.store), plan.study.resources, [])
    assert sum(sum(of(expected, trial.spec)) for trial in plan.trials) == 200 + 0.25 * number


def test_a_twin_takes_the_time_of_its_steps_and_of_the_points_between_the_two(
    tiny: StudyOf,
) -> None:
    """Each point takes a forward pass of all training and test examples."""
    changes = {"axes.seed": [0], "base.levels": 1, "base.branches": ["ticket", "twin"]}
    plan = make_plan(tiny({**changes, "base.stability": {"points": 5}}))
    trained(plan, 0, seconds=0.5)
    (trial,), sizes = plan.trials, part_sizes(plan.trials[0].spec.data)
    passes = sum(passes_per_step(trial.spec.train, sizes))
    took = plan.counts.unique_steps + 2 * 5 * (sizes.train + sizes.test) / passes
    assert estimate(plan, at_once=1).seconds == pytest.approx(0.5 * took)
    assert estimate(plan, at_once=1).steps == plan.counts.unique_steps
    expected = LevelSeconds(open_store(plan.study.store), plan.study.resources, [])
    assert sum(of(expected, trial.spec)) == pytest.approx(0.5 * took)


def test_a_level_of_a_wider_network_is_expected_to_take_longer(tiny: StudyOf) -> None:
    changes = {"axes.seed": [0], "axes.model.width": [1, 64], "base.train.steps": "2000it"}
    plan = make_plan(tiny(changes))
    expected = LevelSeconds(open_store(plan.study.store), plan.study.resources, [])
    narrow, wide = (sum(of(expected, trial.spec)) for trial in plan.trials)
    assert 3 * narrow < wide


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (59.4, "59 s"), (90.1, "1 min 30 s"), (594, "9 min 50 s"),
     (599, "10 min 0 s"), (601, "10 min"), (3599, "60 min"), (3600, "1 h 0 min"),
     (7199, "2 h 0 min"), (12_000, "3 h 20 min"), (86_400, "1 d 0 h"), (200_000, "2 d 8 h")],
)  # fmt: skip
def test_duration_is_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_only_a_few_unknown_networks_are_named() -> None:
    unknown = {f"net{number}": 10 for number in range(9)}
    found = Estimate(left=False, steps=90, seconds=0, at_once=1, unknown=unknown)
    assert found.sentence().endswith("net3, net4, ...")


def test_speed_on_a_gpu_is_not_measured_where_there_is_none(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch without CUDA raises an AssertionError where it is used for a GPU."""
    monkeypatch.setattr("sweeps.plan.probe.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("sweeps.plan.probe.Trainer", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    plan = make_plan(tiny(WIDTHS | {"resources": {"gpu": 1}}))
    found = estimate(plan, at_once=1, probe=True)
    assert found.unknown
    assert not found.measured


def test_network_of_a_users_own_is_not_run_for_an_estimate(
    tiny: StudyOf, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.plan.probe.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("sweeps.plan.probe.Trainer.probe", None)
    (here / "its_own.py").write_text(
        "from torch import nn\n"
        "def net(spec, shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.syspath_prepend(str(here))
    found = estimate(make_plan(tiny({"base.model": {"name": "its_own:net"}})), probe=True)
    assert found.unknown
    assert not found.measured


@pytest.mark.slow
def test_levels_that_a_stop_rule_ended_are_not_left(tiny_file: StudyFile, lth: Lth) -> None:
    path = tiny_file({
        "base.levels": 3, "base.prune": {"fraction": 0.95}, "axes.seed": [0, 1, 2],
        "base.branches": ["ticket"], "stop": {"below_matching_for": 1}, "verdict": {"margin": 1e-6},
    })  # fmt: skip
    swept = lth("sweep", path, "--serial")
    assert swept.code == 0, swept
    assert "level 1" in swept.out
    assert "level 3" not in swept.out
    assert "left: nothing" in lth("plan", path).out.splitlines()
