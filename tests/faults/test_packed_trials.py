"""Packs of four trials on two workers that are killed, stopped, or lose their store for a while."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swept import Swept, is_alive, kill, session, sound, wait_for

from lth_core import Trainer
from lth_core.jobs.recipes import Job
from lth_core.parallel import usable_cpus
from lth_core.store import open_store
from lth_core.train.builder import PreparedJob
from lth_core.train.loop import Run
from lth_core.train.pack.runner import Runner
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

STEPS, SIZE = 3000, 4
"""Of a training, two seconds or more; and of a pack."""
PACKED: dict[str, Any] = {
    "base": {
        "model": {"widths": [60]},
        "train": {"lr": 0.001, "steps": f"{STEPS}it", "evaluate_every": "1000it"},
        "prune": {"fraction": 0.5},
        "levels": 1,
        "rewind": "10it",
        "branches": ["ticket"],
    },
    "axes": {"seed": list(range(2 * SIZE))},
    "resources": {"pack": SIZE, "cpu": usable_cpus() / 2},
    "checkpoint_minutes": 0.2 / 60,
}
Steps = dict[str, int]
"""Step of the checkpoint of each training, by digest."""


def trainings(swept: Swept) -> int:
    """Trainings of a study: each seed's dense run and ticket."""
    return 2 * len(swept.fields["axes"]["seed"])


def checkpoints(swept: Swept) -> Steps:
    found = swept.store.glob("checkpoints/*/entry.json")
    return {path.parent.name: step for path in found if (step := _step_of(path)) is not None}


def _step_of(entry: Path) -> int | None:
    try:
        return int(json.loads(entry.read_text())["entry"]["meta"]["step"])
    except (OSError, ValueError, KeyError):
        return None  # it is being replaced


def claims(swept: Swept) -> dict[str, int]:
    """Living process that trains each training, by digest."""
    return {digest: process for digest, process in _claims(swept) if is_alive(process)}


def _claims(swept: Swept) -> Iterator[tuple[str, int]]:
    for path in swept.store.glob("claims/*/claim.json"):
        try:
            yield path.parent.name, json.loads(path.read_text())["process"]
        except (OSError, ValueError):
            continue


def half_way(swept: Swept) -> tuple[int, Steps]:
    """Wait until a pack is half way; its process, and the steps of its checkpoints."""

    def found() -> tuple[int, Steps] | None:
        assert len(swept.entries()) < trainings(swept), "the sweep has ended"
        steps, claimed = checkpoints(swept), claims(swept)
        for process in {*claimed.values()}:
            own = {d: steps.get(d, 0) for d, holder in claimed.items() if holder == process}
            if len(own) == SIZE and all(50 < step < STEPS / 2 for step in own.values()):
                return process, own
        return None

    process, steps = wait_for(found, lambda: f"a pack half way: {swept.log()}")
    return process, steps


def jobs_of(swept: Swept) -> list[Job]:
    trials = make_plan(parse_study(swept.fields)).trials
    return [job for trial in trials for job in trial.jobs()]


@pytest.fixture(scope="module")
def undisturbed_packs(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The study, swept in one process with no fault."""
    swept = Swept(tmp_path_factory.mktemp("packed"), env, **PACKED | {"checkpoint_minutes": 5})
    assert swept.sweep("--serial") == 0, swept.log()
    return swept


def check_equal(swept: Swept, undisturbed: Swept) -> None:
    """Check that a sweep's records and masks are the undisturbed one's, but for rounding.

    A run that leaves or joins a pack is computed in another order of additions.
    """
    assert sound(swept)
    rows = swept.report()
    trials = {row["trial"] for row in rows}
    expected = [row for row in undisturbed.report() if row["trial"] in trials]
    exact = ("trial", "level", "branch", "training_digest", "density", "steps")
    assert [[row[k] for k in exact] for row in rows] == [
        [row[k] for k in exact] for row in expected
    ]
    digests = {row["training_digest"] for row in rows}
    assert len(digests) == len(swept.entries()) == trainings(swept)
    ours, theirs = (Trainer(open_store(str(s.store)), frozen=True) for s in (swept, undisturbed))
    for job in jobs_of(swept):
        ((one,), (other,)) = ours([job]), theirs([job])
        assert one.training.curves.step == other.training.curves.step
        losses = other.training.curves.validation_loss
        assert one.training.curves.validation_loss == pytest.approx(losses, rel=0.02)
        for name, mask in ours.mask_of(job).items():
            assert (mask == theirs.mask_of(job)[name]).float().mean() > 0.995


@pytest.mark.ray
def test_packs_outlive_a_worker_and_a_driver_and_lose_no_step_at_sigterm(
    study: Callable[..., Swept], undisturbed_packs: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = study(**PACKED)
    driver = swept.start()
    worker, _ = half_way(swept)
    kill(worker)
    wait_for(lambda: not is_alive(worker), lambda: "the worker's end")
    half_way(swept)
    kill(driver.pid)
    driver.wait()
    wait_for(lambda: not session(driver.pid), lambda: "Ray to be gone")
    kept = {entry: entry.read_bytes() for entry in swept.entries()}

    driver = swept.start()
    _, before = half_way(swept)
    kill(driver.pid, signal.SIGTERM)
    assert swept.wait(driver) == 128 + signal.SIGTERM, swept.log()
    stopped = checkpoints(swept)
    assert all(stopped[digest] >= step for digest, step in before.items())
    assert len({stopped[digest] for digest in before}) == 1, "all members stored the same step"
    wait_for(lambda: not session(driver.pid), lambda: "Ray to be gone")
    assert resumed_steps(swept, stopped, monkeypatch) == stopped

    assert swept.sweep("--serial") == 0, swept.log()
    assert kept == {entry: entry.read_bytes() for entry in kept}
    check_equal(swept, undisturbed_packs)


def resumed_steps(swept: Swept, stopped: Steps, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Train the stopped trainings to their ends; the steps from which they went on."""
    resumed, plain = Steps(), Runner._resumed

    def noting(runner: Runner, prepared: PreparedJob) -> Run:
        run = plain(runner, prepared)
        resumed[prepared.job.digest] = run.done
        return run

    monkeypatch.setattr(Runner, "_resumed", noting)
    jobs = {job.digest: job for job in jobs_of(swept) if job.digest in stopped}
    Trainer(open_store(str(swept.store)), "cpu", pack=SIZE).train_ahead(list(jobs.values()))
    return resumed


def test_a_pack_outlives_a_store_that_is_away_for_a_while(
    study: Callable[..., Swept], undisturbed_packs: Swept
) -> None:
    swept = study(**PACKED | {"axes": {"seed": list(range(SIZE))}})
    driver = swept.start("--serial")
    half_way(swept)
    elsewhere = swept.store.rename(swept.folder / "elsewhere")
    time.sleep(3)
    elsewhere.rename(swept.store)
    assert swept.wait(driver) == 0, swept.log()
    check_equal(swept, undisturbed_packs)
