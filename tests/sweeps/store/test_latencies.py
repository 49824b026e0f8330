"""Latencies of a study's networks: measured once each, after all trials, and shown from the store."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny import Called, Lth, StudyFile, StudyOf

from lth_core.errors import SpecError
from lth_core.measures.latency import Structure, StructureLatency
from lth_core.store import Store, open_store
from sweeps.plan.plan import make_plan
from sweeps.report.study_results import study_results
from sweeps.store import latencies
from sweeps.store.garbage import collect
from sweeps.store.integrity import find_faults
from sweeps.store.latencies import LATENCIES, measure_latencies
from sweeps.store.records import load_records
from sweeps.studies.schema import Study

pytestmark = pytest.mark.slow

STRUCTURED = {
    "base.prune.structure": "neurons", "base.prune.scope": "global", "base.levels": 1,
    "base.train.steps": "2it", "base.train.evaluate_every": "2it",
}  # fmt: skip
"""All seeds keep 8 of 16 neurons."""


class Measured(list[Structure]):
    """Structures that were measured, and the numbers of records that the store had then.

    A structure takes a millisecond an output.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.records, self.device = study, list[int](), "one machine"
        self.stop_after: int | None = None

    def __call__(self, structure: Structure, device: torch.device) -> StructureLatency:
        if len(self) == self.stop_after:
            raise KeyboardInterrupt
        self.append(structure)
        trials = make_plan(self.study).trials
        self.records.append(len(load_records(self.store, self.study.name, trials)))
        kept = sum(count for _, count in structure.outputs)
        return {
            "latency_ms": float(kept), "dense_latency_ms": 26.0, "batch_size": 64, "threads": 1,
            "device": self.device,
        }  # fmt: skip

    @property
    def store(self) -> Store:
        return open_store(self.study.store)


@pytest.fixture
def measured(tiny: StudyOf, monkeypatch: pytest.MonkeyPatch) -> Iterator[Measured]:
    made = Measured(tiny(STRUCTURED))
    monkeypatch.setattr(latencies, "structure_latency", made)
    monkeypatch.setattr(latencies, "device_name", lambda device: made.device)
    return made


def sweep(lth: Lth, tiny_file: StudyFile, *options: str, code: int = 0) -> Called:
    called = lth("sweep", tiny_file(STRUCTURED), "--serial", *options)
    assert called.code == code, called
    return called


def report(lth: Lth) -> list[dict[str, Any]]:
    called = lth("report", "tiny", "--json")
    assert called.code == 0, called
    return [json.loads(line) for line in called.out.splitlines()]


def test_each_structure_is_measured_once_after_all_trials(
    lth: Lth, tiny_file: StudyFile, measured: Measured
) -> None:
    called = sweep(lth, tiny_file)
    # Two seeds, each with a dense run, a ticket and a reinit: two structures.
    assert [dict(each.outputs) for each in measured] == [
        {"fc1": 16, "output": 10}, {"fc1": 8, "output": 10},
    ]  # fmt: skip
    assert measured.records == [6, 6]
    assert "latency of 2 structures measured: batch 64, 1 thread of one machine" in called.out
    assert [(r["branch"], r["latency_ms"], r["dense_latency_ms"]) for r in report(lth)] == 2 * [
        ("dense", 26.0, 26.0), ("ticket", 18.0, 26.0), ("reinit", 18.0, 26.0),
    ]  # fmt: skip
    assert {row["latency_device"] for row in report(lth)} == {"one machine"}


def test_finished_sweep_measures_nothing_again_and_another_device_everything(
    lth: Lth, tiny_file: StudyFile, measured: Measured
) -> None:
    sweep(lth, tiny_file)
    assert "measured" not in sweep(lth, tiny_file).out
    assert len(measured) == 2
    measured.device = "another machine"
    assert {row["latency_device"] for row in report(lth)} == {"one machine"}
    assert len(measured) == 2, "a report measures nothing"
    sweep(lth, tiny_file)
    assert len(measured) == 4
    assert {row["latency_device"] for row in report(lth)} == {"another machine"}


def test_interrupted_measurement_goes_on_where_it_was(
    lth: Lth, tiny_file: StudyFile, measured: Measured
) -> None:
    measured.stop_after = 1
    assert "resumes it" in sweep(lth, tiny_file, code=130).out
    assert [row["latency_ms"] for row in report(lth)] == 2 * [26.0, None, None]
    measured.stop_after = None
    sweep(lth, tiny_file)
    assert len(measured) == 2
    assert [row["latency_ms"] for row in report(lth)] == 2 * [26.0, 18.0, 18.0]


def test_new_seed_gets_the_latency_of_its_structure(
    lth: Lth, tiny_file: StudyFile, measured: Measured
) -> None:
    sweep(lth, tiny_file, "axes.seed=[0]")
    sweep(lth, tiny_file, "axes.seed=[0,1,2]")
    assert len(measured) == 2
    assert [row["latency_ms"] for row in report(lth)] == 3 * [26.0, 18.0, 18.0]


def test_structure_that_cannot_be_measured_is_a_note(
    lth: Lth, tiny_file: StudyFile, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(structure: Structure, device: torch.device) -> StructureLatency:
        if dict(structure.outputs)["fc1"] == 8:
            raise SpecError("model.name", "has no latency", "mlp")
        return measured(structure, device)

    monkeypatch.setattr(latencies, "structure_latency", failing)
    assert "model.name: has no latency" in sweep(lth, tiny_file).out
    assert [row["latency_ms"] for row in report(lth)] == 2 * [26.0, None, None]


def test_single_weights_have_no_latency(lth: Lth, tiny_file: StudyFile, measured: Measured) -> None:
    changes = {**STRUCTURED, "base.prune.structure": "weights"}
    assert lth("sweep", tiny_file(changes), "--serial").code == 0
    assert measured == []
    assert all("latency_ms" not in row for row in report(lth))
    assert LATENCIES not in measured.store.kinds()


@pytest.mark.long
def test_widened_networks_are_compared_with_the_studys(
    lth: Lth, tiny_file: StudyFile, measured: Measured, tiny: StudyOf
) -> None:
    gates = {"when": "gates", "structure": "channels", "scope": "global", "expand": 1.5,
             "budget": {"flops": 0.5}, "gate_steps": "2it", "gate_every": "2it"}  # fmt: skip
    changes = {
        **STRUCTURED, "base.model": {"name": "resnet-8", "width": 0.25}, "axes.seed": [0],
        "base.prune": gates, "base.branches": ["ticket", "scratch_e"],
    }  # fmt: skip
    del changes["base.prune.structure"], changes["base.prune.scope"]
    measured.study = tiny(changes)
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 0, called
    assert [(each.model.width, each.dense.width) for each in measured] == [
        (0.25, 0.25), (0.375, 0.25),
    ]  # fmt: skip
    found = {row["branch"]: row["latency_ms"] for row in report(lth)}
    assert found["gates"] is None, "a network with gates is no result"
    assert found["ticket"] == found["scratch_e"] is not None


def test_store_knows_latencies(lth: Lth, tiny_file: StudyFile, measured: Measured) -> None:
    sweep(lth, tiny_file)
    store = measured.store
    digests = store.digests(LATENCIES)
    assert sorted(digests) == sorted(store.digests("trainings"))
    assert list(find_faults(store)) == []
    kinds = [json.loads(line) for line in lth("store", "du", "--json").out.splitlines()]
    assert [row["entries"] for row in kinds if row["name"] == LATENCIES] == [6]
    assert not [garbage for garbage in collect(store, 0) if garbage.key[0] == LATENCIES]
    (broken,) = [f for f in store.files.files(f"{LATENCIES}/{digests[0]}") if "entry" in f.path]
    store.files.write(broken.path, b"{}")
    assert [(fault.kind, fault.digest) for fault in find_faults(store)] == [(LATENCIES, digests[0])]
    results = study_results(make_plan(measured.study))
    assert [row["latency_ms"] for row in results.records].count(None) == 1
    collect(store, 0, forget="tiny")
    assert store.digests(LATENCIES) == []


@pytest.mark.long
def test_real_latencies_are_those_of_this_machine(lth: Lth, tiny_file: StudyFile) -> None:
    sweep(lth, tiny_file)
    for row in report(lth):
        assert row["latency_ms"] > 0 < row["dense_latency_ms"]
        assert row["latency_device"]


def test_nothing_is_measured_where_there_are_no_records(tiny: StudyOf, measured: Measured) -> None:
    study = tiny(STRUCTURED)
    notes = measure_latencies(study, make_plan(study).trials, Store(), Console(quiet=True))
    assert notes == measured == []
