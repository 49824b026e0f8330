"""What `lth status` says of a sweep that runs elsewhere, has ended, or was killed."""

import json
import os
from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf

from lth_core.errors import SpecError
from lth_core.store import Store, open_store
from lth_core.store.folder import FolderFiles
from sweeps.store.status import (
    MOST_FAILURES,
    SILENT_AFTER,
    Run,
    Status,
    load_status,
    save_status,
    status_key,
)
from sweeps.studies.find import save_swept
from sweeps.studies.schema import Study

KEY = status_key("tiny")


@pytest.fixture
def study(tiny: StudyOf) -> Study:
    study = tiny()
    save_swept(study)
    return study


def said(study: Study, state: str = "running", run: Run = "sweep", **changes: object) -> Store:
    store = open_store(study.store)
    fields = {
        "state": state, "host": "node-1", "process": 123, "trials": 200, "done": 120, "running": 2,
        "failed": 1, "waiting": 77, "levels_done": 840, "levels": 1400, "levels_per_minute": 35.0,
        "minutes_left": 16.0, "failures": [("3fa94bc0", "the loss is not finite [nan]")], **changes,
    }  # fmt: skip
    save_status(store, study.name, Status(**fields), run)
    return store


def test_a_running_sweep_tells_trials_pace_end_and_errors(study: Study, lth: Lth) -> None:
    said(study)
    called = lth("status", "tiny")
    first, *rest = called.out.splitlines()
    assert called.code == 0
    assert first.startswith("tiny: sweep running on node-1, process 123; last status ")
    assert rest == [
        "trials   200: 120 done, 2 running, 1 failed, 77 waiting",
        "levels   840 of 1400 in this run, 35 a minute, about 16 min left",
        "failed   3fa94bc0: the loss is not finite [nan]",
    ]


def test_failures_that_are_not_kept_are_counted(study: Study, lth: Lth) -> None:
    failures = [(f"trial-{number}", "no such layer") for number in range(MOST_FAILURES + 23)]
    said(study, failed=len(failures), failures=failures)
    *_, last, more = lth("status", "tiny").out.splitlines()
    assert last == f"failed   trial-{MOST_FAILURES - 1}: no such layer"
    assert more == "... 23 more failed"


def test_second_sweep_of_an_adaptive_study_is_refused_while_the_first_runs(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    """Both would write to one journal of samples."""
    space = {"train.lr": {"low": 0.001, "high": 0.1}}
    changes = {"search": {"algorithm": "optuna", "trials": 2, "space": space}}
    said(tiny(changes), host="elsewhere", driver={})
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 2
    assert "another sweep of tiny is running, as `lth status tiny` shows" in called.err


def test_json_says_the_same(study: Study, lth: Lth) -> None:
    said(study)
    row = json.loads(lth("status", "tiny", "--json").out)
    assert (row["study"], row["state"], row["waiting"], row["minutes_left"]) == (
        "tiny", "running", 77, 16.0,
    )  # fmt: skip
    assert 0 <= row["heard_seconds_ago"] < SILENT_AFTER


def test_a_sweep_that_has_gone_silent_is_told_dead(study: Study, lth: Lth) -> None:
    store = said(study)
    entry = Path(study.store) / f"status/{KEY}/entry.json"
    then = entry.stat().st_mtime - 2 * SILENT_AFTER
    os.utime(entry, (then, then))
    assert load_status(store, study)["state"] == "silent"
    out = lth("status", "tiny").out
    assert "was killed or cut off" in out
    assert "`lth sweep tiny` resumes it" in out
    assert "left" not in out


@pytest.mark.parametrize(("state", "words"), [("finished", "finished"), ("stopped", "stopped")])
def test_a_sweep_that_has_ended_says_so_however_long_ago(
    study: Study, lth: Lth, state: str, words: str
) -> None:
    said(study, state)
    entry = Path(study.store) / f"status/{KEY}/entry.json"
    then = entry.stat().st_mtime - 86400
    os.utime(entry, (then, then))
    assert f"{words} 1 d 0 h ago" in lth("status", "tiny").out


def test_sweep_and_bisection_have_a_status_each(study: Study, lth: Lth) -> None:
    said(study, "stopped", command="lth sweep 'a b.yaml' 'seed=[1, 2]' --serial")
    said(study, run="rewind", done=3, levels=900)
    sweep, *_, bisection, trials, levels, _ = lth("status", "tiny").out.splitlines()
    assert sweep.startswith("tiny: sweep stopped")
    assert sweep.endswith("; `lth sweep 'a b.yaml' 'seed=[1, 2]' --serial` resumes it")
    assert bisection.startswith("tiny: rewind running on node-1")
    assert trials == "trials   at most 200: 3 done, 2 running, 1 failed, 77 waiting"
    assert levels.startswith("levels   840 of at most 900 in this run")
    rows = [json.loads(line) for line in lth("status", "tiny", "--json").out.splitlines()]
    assert [(row["run"], row["done"]) for row in rows] == [("sweep", 120), ("rewind", 3)]


def test_a_study_that_was_never_swept_has_no_status(tiny_file: object, lth: Lth) -> None:
    tiny_file()  # type: ignore[operator]
    called = lth("status", "tiny.yaml")
    assert called.code == 2
    assert called.err.startswith("lth: STUDY: must have been swept into ./lth-store first")
    assert not Path("lth-store").exists(), "asking makes no store"


def test_status_that_is_forgotten_while_it_is_read_was_never_there(study: Study) -> None:
    class Forgetful(FolderFiles):
        def read(self, path: str) -> bytes | None:
            content = super().read(path)
            if path == f"status/{KEY}/entry.json":
                self.delete(path)
            return content

    said(study)
    with pytest.raises(SpecError, match="must have been swept into"):
        load_status(Store(Forgetful(study.store)), study)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "asleep"}, {"levels": None}, {"minutes_left": 10**400}, {"levels_per_minute": "fast"},
        {"minutes_left": "soon"}, {"minutes_left": 1e308}, {"failures": [["one"]]}, {"driver": []},
    ],
)  # fmt: skip
def test_status_of_another_hand_counts_as_missing_and_is_told(
    study: Study, lth: Lth, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    store = said(study)
    meta = store.get("status", KEY).meta  # type: ignore[union-attr]
    store.put("status", KEY, {**meta, **change})
    called = lth("status", "tiny")
    assert called.code == 2
    assert called.err.startswith("lth: STUDY: must have been swept into")
    assert f"status/{KEY}: cannot be read" in caplog.text
