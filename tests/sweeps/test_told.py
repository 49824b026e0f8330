"""A study of which all is in the store: its records come from there, without Ray."""

from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf, search, timeless

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.plan import make_plan
from sweeps.records import load_records


def test_what_another_study_trained_is_told_as_this_ones_own(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    study = tiny()
    store = open_store(study.store)
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]
    called = lth("sweep", tiny_file({"name": "other"}))
    assert called.code == 0, called
    assert "levels" not in called.out, "Ray was started"
    told = load_records(store, "other", make_plan(tiny({"name": "other"})).trials)
    assert all(row["reused"] for row in told)
    assert timeless([{**row, "study": "tiny"} for row in told]) == timeless(trained)


def test_records_that_are_whole_are_not_made_again(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny()
    store = open_store(study.store)
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]

    def replays(*arguments: object) -> None:
        raise AssertionError("a trial was replayed")

    monkeypatch.setattr("sweeps.launch.run_trial", replays)
    assert lth("sweep", tiny_file()).code == 0
    told = load_records(store, "tiny", make_plan(study).trials)
    assert told == [{**row, "reused": True} for row in trained]
    written = {path: path.stat().st_mtime_ns for path in Path(study.store).rglob("trials/*/*")}
    assert lth("sweep", tiny_file()).code == 0
    assert written == {path: path.stat().st_mtime_ns for path in written}
