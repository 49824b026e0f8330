"""A study of which all is in the store: its records come from there, without Ray."""

import re
from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf, search, timeless

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.plan.recorded import every_trial
from sweeps.store.records import load_records, save_records
from sweeps.studies.find import save_swept
from tracking.publish.publisher import open_publisher


@pytest.mark.slow
def test_trainings_of_another_study_become_records_of_this_one(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    study = tiny()
    store = open_store(study.store)
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]
    called = lth("sweep", tiny_file({"name": "other"}))
    assert called.code == 0, called
    assert not re.search(r"\d+/\d+ levels", called.out), "Ray was started"
    told = load_records(store, "other", make_plan(tiny({"name": "other"})).trials)
    assert all(row["reused"] for row in told)
    assert timeless([{**row, "study": "tiny"} for row in told]) == timeless(trained)


@pytest.mark.slow
def test_complete_records_are_not_computed_again(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny()
    store = open_store(study.store)
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]

    def replays(*arguments: object) -> None:
        raise AssertionError("a trial was replayed")

    monkeypatch.setattr("sweeps.run.launch.run_trial", replays)
    assert lth("sweep", tiny_file()).code == 0
    told = load_records(store, "tiny", make_plan(study).trials)
    assert told == [{**row, "reused": True} for row in trained]
    written = {path: path.stat().st_mtime_ns for path in Path(study.store).rglob("trials/*/*")}
    assert lth("sweep", tiny_file()).code == 0
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.mark.slow
def test_records_of_a_study_that_is_extended_twice_are_all_the_last_ones(
    tiny: StudyOf, lth: Lth
) -> None:
    for seeds in ([0], [0, 1], [0, 1, 2]):  # the second sweep marks the first record as reused
        study = tiny({"axes.seed": seeds})
        for _ in search(tiny({"axes.seed": seeds[-1:]}), Trainer(open_store(study.store))):
            pass
        save_swept(study)
        assert lth("sweep", "lth-studies/tiny/study.yaml").code == 0
    trials = list(every_trial(open_store(study.store)))
    assert [trial["study_digest"] for trial in trials] == [study.digest()] * 3


@pytest.mark.slow
def test_early_stop_before_the_final_density_is_read_again_from_the_training(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older versions stored it."""
    during = {"base.prune": {"when": "during", "fraction": 0.5}, "base.branches": ["ticket"]}
    study = tiny(during)
    store, trials = open_store(study.store), make_plan(study).trials
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]
    for trial in trials:
        rows = load_records(store, "tiny", [trial])
        old = [row if row["branch"] == "dense" else {**row, "early_stop_step": 1} for row in rows]
        save_records(store, "tiny", study.digest(), trial, old)

    def trains(*arguments: object) -> None:
        raise AssertionError("a ticket was trained")

    monkeypatch.setattr(Trainer, "_train", trains)
    assert lth("sweep", tiny_file(during)).code == 0
    told = load_records(store, "tiny", trials)
    assert timeless(told) == timeless([{**row, "reused": True} for row in trained])


@pytest.mark.mlflow
@pytest.mark.long
def test_trial_with_an_altered_file_does_not_stop_the_publishing_of_others(
    tiny: StudyOf, lth: Lth
) -> None:
    study = tiny({"axes.seed": [0, 1, 2], "tracking.uri": "sqlite:///mlflow.db"})
    store, trials = open_store(study.store), make_plan(study).trials
    for _ in search(study, Trainer(store)):
        pass
    save_swept(study)
    (_, ticket, *_) = trials[0].jobs()
    (blob,) = Path(study.store).glob(f"trainings/{ticket.digest}/state-*")
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)

    def published() -> dict[str, tuple[int, str]]:
        runs = open_publisher(study.tracking.uri or "", "tiny", "a study").runs()
        return {key: (run.levels, run.status) for key, run in runs.items()}

    others = {trial.digest: (3, "FINISHED") for trial in trials[1:]}
    called = lth("sync", "tiny")
    assert (called.code, called.err) == (1, "")
    first, failed = called.out.splitlines()
    assert first == "tiny: 3 trials are in MLflow"
    assert failed.startswith(f"failed trial {trials[0].id} could not be published: ")
    assert "`lth store verify --remove`" in failed
    assert published() == others | {trials[0].digest: (2, "KILLED")}  # whose masks come of that
    called = lth("report", "tiny")
    assert called.code == 0
    assert f"trial {trials[0].id} could not be published: " in called.out

    assert lth("store", "verify", "tiny", "--remove", "--older", "0s").code == 1
    for _ in search(study, Trainer(open_store(study.store))):
        pass
    assert lth("sync", "tiny").out == "tiny: 3 trials are in MLflow\n"
    assert set(published().values()) == {(3, "FINISHED")}
