"""Packs of trials: how they are formed, and that a sweep of packs is the sweep of its trials."""

import json
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf, context_of, search

from lth_core import Trainer
from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
from lth_core.store import open_store
from lth_core.train.pack.forward import Way
from lth_core.train.pack.size import SIZES, PackSpeeds, measure, past_the_best
from sweeps.plan.packs import packs_of
from sweeps.plan.plan import Trial, make_plan
from sweeps.run.worker import config_trials, item_config, item_names, reports
from sweeps.store.records import load_records
from sweeps.studies.schema import Resources, Study

SEEDS = {"axes.seed": [0, 1, 2, 3, 4]}
LEARNED = {"base.prune": {"when": "never", "score": "edge-popup", "fraction": 0.5, "lr": 0.05}}
"""A method whose levels do not depend on each other."""
BOTH = ["ticket", "random_mask"]


def sizes(study: Study, pack: Any, at_once: int, trainer: Trainer | None = None) -> list[int]:
    trials = make_plan(study).trials
    packs = packs_of(trials, Resources(pack=pack), trainer or Trainer(), at_once)
    return [len(pack) for pack in packs]


def test_trials_of_one_program_form_packs_that_leave_no_worker_without_one(tiny: StudyOf) -> None:
    study = tiny(SEEDS)
    assert sizes(study, 4, 1) == [4, 1]
    assert sizes(study, 4, 2) == [3, 2]
    assert sizes(study, 4, 8) == [1] * 5
    assert sizes(study, 1, 1) == [1] * 5
    assert sizes(tiny({**SEEDS, "axes.prune.fraction": [0.2, 0.5]}), 99, 1) == [10]
    assert sizes(tiny({**SEEDS, "axes.train.batch_size": [30, 60]}), 99, 1) == [5, 5]
    assert sizes(tiny({**SEEDS, "axes.levels": [1, 4]}), 99, 1) == [5, 5]
    channels = {"base.prune": {"structure": "channels", "scope": "global"}}
    assert sizes(tiny({**SEEDS, **channels, "base.model": {"name": "resnet-8"}}), 99, 1) == [1] * 5


def test_auto_is_one_trial_unless_a_measurement_gains_and_more_on_a_gpu(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, measured = tiny(SEEDS), list[int]()
    assert sizes(study, "auto", 1) == [1] * 5  # 800 steps are not worth a measurement

    def measure(make: Any, device: Any, alone: Any) -> PackSpeeds:
        measured.append(1)
        return PackSpeeds(Way.STACKED, {1: 100.0, 2: 150.0, 4: 145.0})

    monkeypatch.setattr("lth_core.train.pack.size.measure", measure)
    long, trainer = tiny({**SEEDS, "base.train.steps": "1000it"}), Trainer()
    assert sizes(long, "auto", 1, trainer) == [2, 2, 1]
    assert sizes(long, "auto", 1, Trainer(trainer.store)) == [2, 2, 1]  # stored
    assert measured == [1]
    large = tiny({**SEEDS, "base.train.steps": "1000it", "base.model": {"widths": [3000]}})
    assert sizes(large, "auto", 1) == [1] * 5
    trials = make_plan(study).trials
    on_gpu = packs_of(trials, Resources(pack="auto", gpu=1), trainer, 1)
    assert [len(pack) for pack in on_gpu] == [5]


def test_measurement_grows_until_larger_sizes_are_slower(tiny: StudyOf) -> None:
    (trial, *_), trainer = make_plan(tiny()).trials, Trainer(device="cpu")
    found = measure(lambda: trainer._prepare(next(trial.jobs())).task, trainer.device)
    speeds = found.steps_per_second
    assert found.way is Way.STACKED
    assert list(speeds) == list(SIZES[: len(speeds)])
    assert len(speeds) > 1
    assert min(speeds.values()) > 0
    ends = [past_the_best(list(speeds.values())[:n]) for n in range(1, len(speeds) + 1)]
    assert not any(ends[:-1])
    assert ends[-1] or len(speeds) == len(SIZES)


def test_levels_that_train_at_once_count_as_jobs_of_a_pack(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of such levels fewer trials fill a pack, unless dense runs gain by packs, too."""

    measured: dict[bool, int] = {}
    steps = {False: 5 * 40, True: 5 * 2 * 40}

    def size(trainer: Trainer, job: Job, count: int) -> int:
        assert count == steps[bool(job.finds)]
        return measured[bool(job.finds)]

    monkeypatch.setattr(Trainer, "pack_size", size)
    study = tiny(SEEDS | LEARNED | {"base.branches": ["ticket"]})
    for dense, expected in ((1, [2, 2, 1]), (3, [3, 2])):
        measured |= {False: dense, True: 4}
        assert sizes(study, "auto", 1) == expected


def rows_of(study: Study, trials: Any) -> dict[str, list[dict[str, Any]]]:
    rows = load_records(open_store(study.store), study.name, trials)
    return {t.id: [row for row in rows if row["trial"] == t.id] for t in trials}


@pytest.mark.slow
def test_a_sweep_of_packs_stores_the_records_of_its_trials(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    changes = {"axes.seed": [0, 1, 2], "axes.prune.fraction": [0.2, 0.5], "resources.pack": 4}
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 0, called
    assert "18/18 levels" in called.out
    study = tiny(changes)
    trials = make_plan(study).trials
    packed = rows_of(study, trials)
    alone = {trial.id: rows for trial, rows in search(study, Trainer())}
    assert packed.keys() == alone.keys()
    for name, rows in alone.items():
        assert [(r["level"], r["branch"], r["training_digest"]) for r in packed[name]] == [
            (r["level"], r["branch"], r["training_digest"]) for r in rows
        ]
        for one, other in zip(packed[name], rows, strict=True):
            assert one["density"] == other["density"]
            assert abs(one["final_test_accuracy"] - other["final_test_accuracy"]) < 0.05
    # Each training is made once: the dense runs of three seeds, and five of each trial's.
    assert sum(not row["reused"] for rows in packed.values() for row in rows) == 3 + 6 * 4
    again = lth("sweep", tiny_file(changes), "--serial")
    assert again.code == 0
    assert {n: [r["training_digest"] for r in rs] for n, rs in rows_of(study, trials).items()} == {
        n: [r["training_digest"] for r in rs] for n, rs in packed.items()
    }


def work_of(study: Study) -> tuple[list[Trial], dict[str, Any]]:
    trials = list(make_plan(study).trials)
    return trials, item_config([(trial, ()) for trial in trials])


@pytest.mark.slow
def test_levels_of_a_pack_are_reported_together_and_a_stopped_trial_leaves_it(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny({"axes.seed": [0, 1, 2]})
    trials, config = work_of(study)
    stopped = trials[1].id

    def levels_before_stop(records: list[dict[str, Any]], *rule: Any) -> int | None:
        ended = records and (records[-1]["trial"], records[-1]["level"]) == (stopped, 1)
        return 0 if ended else None

    for module in ("sweeps.plan.stopping", "sweeps.run.worker"):
        monkeypatch.setattr(f"{module}.levels_before_stop", levels_before_stop)
    trainer = Trainer(pack=3)
    *levels, last = reports(config, context_of(study), trainer)
    assert [(report["level"], report["of"]) for report in levels] == [
        (level, trial.id)
        for level in range(3)
        for trial in trials
        if level < 2 or trial.id != stopped
    ]
    assert last == {"failed": [], "done": True}
    # Nothing of the stopped trial's next level: 3 dense runs, and 2 branches of 3 and 2 trials.
    assert len(trainer.store.digests("trainings")) == 3 + 2 * 3 + 2 * 2
    assert item_names(config) == [trial.id for trial in trials]
    assert [trial.id for trial, _ in config_trials(config)] == item_names(config)
    assert json.dumps(config)


@pytest.mark.slow
def test_independent_levels_of_one_trial_train_together_and_are_reported_one_by_one(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny({**LEARNED, "axes.seed": [0], "base.levels": 5, "base.branches": BOTH})
    (trial,), config = work_of(study)
    trained = watched_packs(monkeypatch)
    trainer = Trainer(open_store(study.store), pack=4)
    *levels, last = reports(config, context_of(study), trainer)
    assert [report["level"] for report in levels] == list(range(6))
    assert last == {"failed": [], "done": True}
    tickets, controls = [1, 2, 3, 4], [1, 2, 3, 4]
    assert trained == [tickets, controls]  # level 5 is alone
    rows = rows_of(study, [trial])[trial.id]
    assert not any(row["reused"] for row in rows)
    ((_, alone),) = search(study, Trainer())
    same = ("level", "branch", "training_digest", "density", "steps")
    assert [[row[k] for k in same] for row in rows] == [[row[k] for k in same] for row in alone]


@pytest.mark.slow
def test_no_level_is_trained_that_a_stop_rule_may_skip(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = {"stop": {"below_matching_for": 2}}
    study = tiny({**LEARNED, **stop, "axes.seed": [0], "base.levels": 5, "base.branches": BOTH})
    _, config = work_of(study)
    trained = watched_packs(monkeypatch)
    *levels, last = reports(config, context_of(study), Trainer(pack=4))
    assert [report["level"] for report in levels] == [0, 1, 2]  # both tickets are below
    assert last == {"failed": [], "done": True}
    assert trained == [[1, 2], [1, 2]]


@pytest.mark.slow
def test_a_later_level_that_fails_leaves_the_levels_before_it_in_a_pack(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny({**LEARNED, "axes.seed": [0, 1], "base.levels": 2, "base.branches": ["ticket"]})
    _, config = work_of(study)
    prepare = Trainer._prepare

    def fail(trainer: Trainer, job: Job, points: Any = ()) -> Any:
        if job.level == 2:
            raise KeyError("the score of level 2")
        return prepare(trainer, job, points)

    monkeypatch.setattr(Trainer, "_prepare", fail)
    trained = watched_packs(monkeypatch)
    *levels, last = reports(config, context_of(study), Trainer(pack=4))
    assert [report["level"] for report in levels] == [0, 0, 1, 1]
    assert [pack for pack in trained if set(pack) < {0, 1}] == [[0, 0], [1, 1]]
    assert len(last["failed"]) == 2


def watched_packs(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Levels of the jobs in each pack that is trained from now on."""
    trained, train = list[list[int]](), Trainer._train_pack

    def watch(trainer: Trainer, jobs: Any) -> None:
        trained.append([job.level for job in jobs])
        train(trainer, jobs)

    monkeypatch.setattr(Trainer, "_train_pack", watch)
    return trained


@pytest.mark.slow
def test_a_trial_that_fails_leaves_the_others_of_its_pack(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny(
        {"axes.seed": [0, 1], "axes.train.lr": [0.01, 1e30], "base.train.optimizer": "sgd"}
    )
    trials, config = work_of(study)
    *levels, last = reports(config, context_of(study), Trainer(pack=4))
    failed = [trial.id for trial in trials if trial.fields["train.lr"] > 1]
    assert sorted(name for name, _ in last["failed"]) == sorted(failed)
    assert all("loss is not finite" in why for _, why in last["failed"])
    assert len(levels) == 2 * 3


@pytest.mark.slow
def test_what_fails_in_a_pack_is_met_by_the_trial_itself(
    tiny: StudyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny({"axes.seed": [0, 1]})
    _, config = work_of(study)

    class Unstackable(Trainer):
        def _train_pack(self, jobs: Any) -> None:
            raise RuntimeError("Batching rule not implemented")

    *levels, last = reports(config, context_of(study), Unstackable(pack=2))
    assert len(levels) == 2 * 3
    assert last == {"failed": [], "done": True}

    class Lost(Trainer):
        def _train_pack(self, jobs: Any) -> None:
            raise StoreError("no space left")

        def __call__(self, jobs: Any) -> Any:
            raise StoreError("no space left")

    (report,) = reports(config, context_of(study), Lost(pack=2))
    assert report == {"failed": [], "done": True, "store": "no space left"}


@pytest.mark.parametrize("pack", [0, -1, "most", 1.5])
def test_bad_sizes_are_refused(pack: Any, tiny_file: StudyFile, lth: Lth) -> None:
    called = lth("plan", tiny_file({"resources.pack": pack}))
    assert called.code == 2
    assert called.err.startswith("lth: resources.pack: ")
