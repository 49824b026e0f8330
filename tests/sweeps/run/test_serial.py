"""`lth sweep --serial`: the same work in this process, without Ray."""

import bdb
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf, search, timeless

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.store.records import TRIALS, load_records
from sweeps.store.status import load_status

NETWORK = "base.model"
ONE = {"axes.seed": [0], "base.levels": 1, "base.branches": ["ticket"]}


@pytest.fixture
def hooked(here: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Callable[[str], Any]:
    """Changes of a study that give it a hooked network, from a module of the test's own."""
    module = f"hooked_{abs(hash(request.node.name))}"

    def changes(network: str, **more: Any) -> dict[str, Any]:
        shutil.copy(Path(__file__).with_name("hooked.py"), here / f"{module}.py")
        return {**ONE, NETWORK: {"name": f"{module}:{network}"}, **more}

    monkeypatch.syspath_prepend(str(here))
    return changes


def stored(study: Any) -> list[dict[str, Any]]:
    return load_records(open_store(study.store), study.name, make_plan(study).trials)


@pytest.mark.slow
def test_serial_sweep_trains_tracks_and_reports_without_ray(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    called = lth("sweep", tiny_file(), "--serial")
    assert called.code == 0, called
    assert "6/6 levels" in called.out
    rows, study = stored(tiny()), tiny()
    assert timeless(rows) == timeless([r for _, rs in search(study, Trainer()) for r in rs])
    assert not any(row["reused"] for row in rows)
    assert (here / "lth-studies" / "tiny" / "report.html").exists()
    status = load_status(open_store(study.store), study)
    assert [status[name] for name in ("state", "trials", "done", "running", "failed")] == [
        "finished", 2, 2, 0, 0,
    ]  # fmt: skip


@pytest.mark.slow
def test_breakpoint_in_a_users_network_stops_in_this_process(
    tiny_file: StudyFile, lth: Lth, hooked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops, stdin = list[tuple[int, threading.Thread]](), sys.stdin
    streams: list[Any] = []

    def stop(*arguments: object) -> None:
        stops.append((os.getpid(), threading.current_thread()))
        streams.append(sys.stdin)

    monkeypatch.setattr(sys, "breakpointhook", stop)
    called = lth("sweep", tiny_file(hooked("debugged")), "--serial")
    assert called.code == 0, called
    assert stops == [(os.getpid(), threading.main_thread())]
    assert streams == [stdin]


def test_quitting_the_debugger_ends_the_sweep(
    tiny_file: StudyFile, lth: Lth, hooked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def quits(*arguments: object) -> None:
        raise bdb.BdbQuit

    monkeypatch.setattr(sys, "breakpointhook", quits)
    called = lth("sweep", tiny_file(hooked("debugged")), "--serial")
    assert called.code == 130
    assert "failed" not in called.out


@pytest.mark.slow
def test_ctrl_c_stores_a_checkpoint_from_which_the_next_sweep_resumes(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth, hooked: Callable[..., Any]
) -> None:
    changes = hooked("interrupted")
    path, study = tiny_file(changes), tiny(changes)
    called = lth("sweep", path, "--serial")
    assert called.code == 130, called
    assert called.out.splitlines()[-1].startswith("stopped; `lth sweep ")
    assert "failed" not in called.out
    store = open_store(study.store)
    assert len(store.digests("checkpoints")) == 1
    assert store.digests("trainings") == []
    assert load_status(store, study)["state"] == "stopped"
    called = lth("sweep", path, "--serial")
    assert called.code == 0, called
    assert store.digests("checkpoints") == []
    fresh = [row for _, rows in search(study, Trainer()) for row in rows]
    assert timeless(stored(study)) == timeless(fresh)


def test_failed_trial_is_named_with_its_reason_while_the_others_finish(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    changes = {**ONE, "axes.train.lr": [1e30, 0.01]}
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 1
    bad, good = make_plan(tiny(changes)).trials
    (line,) = (line for line in called.out.splitlines() if line.startswith("failed "))
    assert line.startswith(f"failed {bad.id}: the loss is not finite at step")
    assert {row["trial"] for row in stored(tiny(changes))} == {good.id}


def test_study_whose_trainings_another_study_made_has_a_status(
    tiny_file: StudyFile, lth: Lth
) -> None:
    path = tiny_file(ONE)
    assert lth("sweep", path, "--serial").code == 0
    called = lth("sweep", path, "name=other", "--serial")
    assert (called.code, "left: nothing" in called.out) == (0, True)
    said = lth("status", "other")
    assert said.code == 0, said
    first, trials, *_ = said.out.splitlines()
    assert first.startswith("other: sweep finished ")
    assert trials == "trials   1: 1 done, 0 running, 0 failed, 0 waiting"


def test_longest_trials_come_first(tiny: StudyOf, tiny_file: StudyFile, lth: Lth) -> None:
    """One that began last would run on while other workers are idle."""
    changes = {**ONE, "axes.model.width": [0.5, 1, 8]}
    called = lth("sweep", tiny_file(changes), "--serial", "--verbose")
    assert called.code == 0, called
    ended = [
        line.split(" level 0 ")[0][-6:] for line in called.out.splitlines() if " level 0 " in line
    ]
    trials = make_plan(tiny(changes)).trials
    assert [trial.id[:6] for trial in reversed(trials)] == ended


@pytest.mark.slow
def test_trial_for_which_the_machine_lacked_memory_once_is_retried(
    tiny_file: StudyFile, lth: Lth, hooked: Callable[..., Any]
) -> None:
    called = lth("sweep", tiny_file(hooked("out_of_memory")), "--serial")
    assert called.code == 0, called


def test_trial_for_which_the_machine_always_lacks_memory_fails(
    tiny_file: StudyFile, lth: Lth, hooked: Callable[..., Any]
) -> None:
    called = lth("sweep", tiny_file(hooked("always_out_of_memory")), "--serial")
    assert called.code == 1
    assert "MemoryError: so many bytes" in called.out


@pytest.mark.slow
def test_optuna_asks_for_samples_and_resumes_its_journal(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    from sweeps.store.samples import completed_samples

    space = {"train.lr": {"low": 0.001, "high": 0.1, "log": True}}
    changes = {**ONE, "search": {"algorithm": "optuna", "trials": 2, "space": space}}
    path = tiny_file(changes)
    called = lth("sweep", path, "--serial")
    assert called.code == 0, called
    first = completed_samples(tiny(changes))
    assert first
    assert len(first) == 2
    assert "best: final_validation_accuracy" in called.out
    called = lth("sweep", path, "search.trials=3", "--serial")
    assert called.code == 0, called
    second = completed_samples(tiny(changes))
    assert second
    assert (len(second), second[:2]) == (3, first)
    assert len({json.dumps(sample) for sample in second}) == 3
    store = open_store(tiny(changes).store)
    trainings = len(store.digests("trainings"))
    record = Path(tiny(changes).store) / TRIALS / min(store.digests(TRIALS)) / "entry.json"
    record.write_text("torn")
    called = lth("sweep", path, "search.trials=3")
    assert called.code == 0
    assert "starting Ray" not in called.out, "no sample is left"
    assert lth("store", "verify").code == 0, "the torn record is stored again"
    assert len(store.digests("trainings")) == trainings, "nothing is trained again"
    record.write_text("torn")
    shutil.rmtree(Path(tiny(changes).store) / "trainings")
    called = lth("sweep", path, "search.trials=3", "--serial")
    assert called.code == 1
    assert "has records of 0 of" in called.out
    assert store.digests("trainings") == [], "a finished sample is not trained without a word"


def test_samples_that_fail_are_named_and_give_no_value(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    from sweeps.store.samples import completed_samples

    search = {"algorithm": "optuna", "trials": 2, "space": {"train.lr": [1e30]}}
    changes = {**ONE, "search": search}
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 1
    assert "the loss is not finite" in called.out
    assert completed_samples(tiny(changes)) == []


@pytest.mark.parametrize(("option", "message"), [
    (["--address", "auto"], "--serial: runs in this process, so it takes no --address"),
    (["resources.cpu=100000"], "resources.cpu: a trial needs 100000 CPU on a node, but this"),
])  # fmt: skip
def test_what_does_not_go_with_one_process_is_refused(
    option: list[str], message: str, tiny_file: StudyFile, lth: Lth
) -> None:
    called = lth("sweep", tiny_file(), "--serial", *option)
    assert called.code == 2
    assert called.err.startswith(f"lth: {message}")
