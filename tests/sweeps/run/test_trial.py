"""A trial in this process: its records, what it reuses, when it stops."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Called, Lth, Record, StudyOf, context_of, search, timeless

from lth_core import Trainer
from lth_core.analysis.verdict_rule import DEFAULT_RULE
from lth_core.errors import PreemptedError, SpecError
from lth_core.store import Store, open_store
from sweeps.plan.plan import Trial, make_plan
from sweeps.run.trial import run_trial
from sweeps.store.records import load_records, record_key, with_verdicts
from sweeps.studies.find import save_swept
from sweeps.studies.schema import Study

CONTRACT = {
    "study": str, "trial": str, "seed": int, "branch": str, "level": int, "prune_fraction": float,
    "rewind_step": int, "requested_density": float, "density": float, "weights_kept": int,
    "weights_prunable": int, "parameters": int, "flops": int, "dense_flops": int, "steps": int,
    "final_test_accuracy": float, "early_stop_step": int, "early_stop_test_accuracy": float,
    "early_stop_validation_loss": float, "collapsed_layers": int, "spec_digest": str,
    "mask_digest": str, "ticket_digest": str, "reused": bool, "train_seconds": float,
}  # fmt: skip


def rows_of(study: Study, trainer: Trainer | None = None) -> list[Record]:
    return [row for _, rows in search(study, trainer or Trainer()) for row in rows]


def trained(trainer: Trainer) -> set[str]:
    return set(trainer.store.digests("trainings"))


@pytest.mark.parametrize(
    ("part", "field"), [("data", "data.name"), ("model", "model.name"), ("prune", "prune.score")]
)
def test_trial_that_was_planned_with_other_code_or_data_is_not_run(
    part: str, field: str, tiny: StudyOf
) -> None:
    """Another node may have another copy of a user's module."""
    study, store = tiny(), Store()
    trial = make_plan(study).trials[0]
    edited = replace(getattr(trial.spec, part), fingerprint="as it was planned")
    planned = Trial(trial.fields, replace(trial.spec, **{part: edited}))
    with pytest.raises(SpecError, match=f"^{field}: must have the content that it had when"):
        list(run_trial(planned, context_of(study), Trainer(store)))
    assert store.digests("trainings") == []


@pytest.mark.slow
def test_record_has_every_key_of_the_contract(tiny: StudyOf) -> None:
    study = tiny({"axes.rewind": ["0it", "10it"], "axes.prune.fraction": [0.5]})
    rows, _ = with_verdicts(rows_of(study), make_plan(study).axes, study.verdict.rule())
    assert len(rows) == 4 * 5
    for row in rows:
        assert {key: type(row[key]) for key in CONTRACT} == CONTRACT
        assert row["verdict"] == ("too few replicates" if row["branch"] == "ticket" else None)
        assert all(
            0 <= row[key] <= 1
            for key in row
            if key.endswith(("accuracy", "density")) and key != "layer_density"
        )
        assert row["rewind"] in ("0it", "10it")
        assert row["prune.fraction"] == row["prune_fraction"] == 0.5
        assert row["rewind_step"] == int(row["rewind"].removesuffix("it"))
        assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_level_0_is_one_dense_record(tiny: StudyOf) -> None:
    rows = rows_of(tiny({"axes.seed": [3]}))
    assert [(r["level"], r["branch"]) for r in rows] == [
        (0, "dense"), (1, "ticket"), (1, "reinit"), (2, "ticket"), (2, "reinit")
    ]  # fmt: skip
    weights = 64 * 16 + 16 * 10
    assert [r["weights_kept"] for r in rows] == [
        weights,
        weights // 2,
        weights // 2,
        weights // 4,
        weights // 4,
    ]
    assert {r["weights_prunable"] for r in rows} == {weights}
    assert {r["parameters"] for r in rows} == {weights + 26}
    assert [r["flops"] for r in rows] == [2 * r["weights_kept"] for r in rows]
    assert {r["seed"] for r in rows} == {3}


@pytest.mark.slow
def test_second_run_reuses_everything_and_says_so(tiny: StudyOf) -> None:
    trainer = Trainer()
    first, second = rows_of(tiny(), trainer), rows_of(tiny(), trainer)
    assert not any(row["reused"] for row in first)
    assert all(row["reused"] for row in second)
    assert timeless(first) == timeless(second)
    assert [r["train_seconds"] for r in first] == [r["train_seconds"] for r in second]


@pytest.mark.slow
def test_two_stores_agree_to_the_bit(tiny: StudyOf, tmp_path: Path) -> None:
    changes = {
        "axes.seed": [0],
        "axes.rewind": ["0it", "7it"],
        "base.branches": ["ticket", "reinit", "random_mask", "shuffled_mask"],
    }
    in_memory = rows_of(tiny(changes))
    on_disk = rows_of(tiny(changes), Trainer(open_store(str(tmp_path / "store"))))
    assert timeless(in_memory) == timeless(on_disk)
    assert len({row["ticket_digest"] for row in on_disk}) > 2


def test_records_in_the_store_are_those_that_were_yielded(tiny: StudyOf) -> None:
    study, trainer = tiny(), Trainer()
    rows = rows_of(study, trainer)
    assert load_records(trainer.store, "tiny", make_plan(study).trials) == rows


def test_trial_cut_off_has_its_finished_levels_in_the_store(tiny: StudyOf) -> None:
    study, trainer = tiny({"axes.seed": [0]}), Trainer()
    (trial,) = make_plan(study).trials
    levels = run_trial(trial, context_of(study), trainer)
    begun = [*next(levels), *next(levels)]
    levels.close()
    assert load_records(trainer.store, "tiny", [trial]) == begun
    assert [row["reused"] for row in rows_of(study, trainer)] == [True] * 3 + [False] * 2


@pytest.mark.slow
def test_trial_is_known_to_its_store_before_it_has_trained_anything(
    tiny: StudyOf, lth: Lth
) -> None:
    """Commands handle a trial without records."""
    study = tiny({"axes.seed": [0]})
    (trial,), trainer = make_plan(study).trials, Trainer(open_store(study.store))
    save_swept(study)
    trainer.ending.set()
    with pytest.raises(PreemptedError):
        list(run_trial(trial, context_of(study), trainer))
    assert trainer.store.digests("trials") == [record_key("tiny", trial)]
    assert load_records(trainer.store, "tiny", [trial]) == []
    for command in ("report", "sync"):
        assert lth(command, "tiny").code == 2
    assert "must have been swept into" in lth("report", "tiny").err
    assert lth("ticket", "ls", "--json") == Called(0, "", "")
    assert lth("store", "verify").code == lth("store", "du").code == 0
    assert [row["reused"] for row in rows_of(study, Trainer(trainer.store))] == [False] * 5


def test_records_of_a_trial_stay_while_it_is_searched_again(tiny: StudyOf) -> None:
    study, trainer = tiny({"axes.seed": [0]}), Trainer()
    (trial,), rows = make_plan(study).trials, rows_of(study, trainer)
    trainer.store.delete("trainings", rows[0]["training_digest"])
    trainer.ending.set()
    with pytest.raises(PreemptedError):
        list(run_trial(trial, context_of(study), trainer))
    assert load_records(trainer.store, "tiny", [trial]) == rows


def test_more_levels_train_only_the_new_ones(tiny: StudyOf) -> None:
    trainer = Trainer()
    rows_of(tiny({"base.levels": 1}), trainer)
    before = trained(trainer)
    rows = rows_of(tiny({"base.levels": 3}), trainer)
    assert [row["reused"] for row in rows if row["seed"] == 0] == [True] * 3 + [False] * 4
    assert len(trained(trainer) - before) == 2 * 2 * 2


@pytest.mark.slow
def test_another_branch_trains_only_that_branch(tiny: StudyOf) -> None:
    trainer = Trainer()
    rows_of(tiny(), trainer)
    rows = rows_of(tiny({"base.branches": ["ticket", "reinit", "random_mask"]}), trainer)
    assert {row["branch"] for row in rows if not row["reused"]} == {"random_mask"}


@pytest.mark.slow
def test_later_rewind_point_trains_only_what_hangs_on_it(tiny: StudyOf) -> None:
    trainer, one = Trainer(), {"axes.seed": [0]}
    rows_of(tiny(one | {"axes.rewind": ["0it"]}), trainer)
    before = trained(trainer)
    rows = rows_of(tiny(one | {"axes.rewind": ["0it", "10it"]}), trainer)
    assert [r["reused"] for r in rows if r["rewind"] == "0it"] == [True] * 5
    assert [r["reused"] for r in rows if r["rewind"] == "10it"] == [
        True,  # the dense run
        *(False, True),  # level 1: the ticket; its mask on fresh weights is the same
        *(False, False),
    ]
    assert len(trained(trainer) - before) == 3
    fresh = rows_of(tiny(one | {"axes.rewind": ["0it", "10it"]}))
    assert timeless(rows) == timeless(fresh)


def test_trial_stops_early_where_asked(tiny: StudyOf) -> None:
    study = tiny(
        {
            "axes.seed": [0],
            "base.levels": 4,
            "base.prune.fraction": 0.9,
            "stop.below_matching_for": 2,
        }
    )
    trainer = Trainer()
    rows = rows_of(study, trainer)
    dense = rows[0]["final_test_accuracy"]
    tickets = [r["final_test_accuracy"] for r in rows if r["branch"] == "ticket"]
    assert [accuracy < dense - 0.005 for accuracy in tickets] == [True, True]
    assert rows[-1]["level"] == 2
    assert len(trained(trainer)) == 1 + 2 * 2
    assert (
        rows_of(tiny({"axes.seed": [0], "base.levels": 4, "base.prune.fraction": 0.9}), trainer)[
            -1
        ]["level"]
        == 4
    )


# Verdicts on records


@pytest.mark.slow
def test_only_a_tickets_record_has_its_cells_verdict(tiny: StudyOf) -> None:
    changes = {"axes.seed": [0, 1, 2, 3], "axes.prune.fraction": [0.2, 0.99]}
    study = tiny({**changes, "verdict": {"margin": "10 points"}})
    axes = make_plan(study).axes
    rows, found = with_verdicts(rows_of(study), axes, study.verdict.rule())
    assert {v.level for v in found} == {1, 2}
    assert len(found) == 4
    by_cell = {(v.cell["prune.fraction"], v.level): v.verdict for v in found}
    assert by_cell[0.99, 2] == "not matching"
    assert by_cell[0.2, 1] in ("matching", "winning")
    for row in rows:
        expected = (
            by_cell.get((row["prune.fraction"], row["level"]))
            if row["branch"] == "ticket"
            else None
        )
        assert row["verdict"] == expected
    _, strict = with_verdicts(rows, axes, DEFAULT_RULE)
    words = {(v.cell["prune.fraction"], v.level): v.verdict for v in strict}
    assert (words[0.2, 1], words[0.99, 2]) == ("undecided", "not matching")


def test_corrupt_training_is_trained_again_to_the_same_bits(tiny: StudyOf, tmp_path: Path) -> None:
    study, where = tiny({"axes.seed": [0]}), tmp_path / "store"
    first = rows_of(study, Trainer(open_store(str(where))))
    victim = where / "trainings" / first[1]["training_digest"] / "entry.json"
    victim.write_bytes(victim.read_bytes()[:100])
    second = rows_of(study, Trainer(open_store(str(where))))
    assert [row["reused"] for row in second] == [True, False, True, True, True]
    assert timeless(first) == timeless(second)


def test_corrupt_record_counts_as_missing_and_comes_back(tiny: StudyOf, tmp_path: Path) -> None:
    study, where = tiny({"axes.seed": [0]}), tmp_path / "store"
    store: Store = open_store(str(where))
    first = rows_of(study, Trainer(store))
    (trial,) = make_plan(study).trials
    (where / "trials" / f"tiny.{trial.digest}" / "entry.json").write_text("torn")
    assert load_records(store, "tiny", [trial]) == []
    assert timeless(rows_of(study, Trainer(store))) == timeless(first)
