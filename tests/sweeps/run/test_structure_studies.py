"""Studies of structures: planned, swept, reported and kept as any other."""

import json
import shutil
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf, search, timeless

from lth_core import Trainer, find_tickets
from lth_core.models import removable_channels, template
from lth_core.resolve.pins import pin_data, pin_model
from lth_core.store import Store, open_store
from sweeps.plan.plan import Plan, make_plan
from sweeps.store.garbage import collect
from sweeps.store.records import load_mask, load_records, register
from sweeps.store.references import find_needs, recipes
from sweeps.studies.schema import Study

GATES = {"prune.when": "gates", "prune.gate_steps": "4it", "prune.gate_every": "2it",
         "prune.gate_batch_size": 32}  # fmt: skip
WIDENED = {**GATES, "prune.expand": 2.0}
ALL = ["ticket", "scratch_e", "scratch_b"]
CHANGES: dict[str, Any] = {
    "base.data.fraction": 0.2,
    "base.model": {"name": "resnet-8", "width": 0.25},
    "base.train": {"lr": 0.01, "steps": "8it", "evaluate_every": "4it", "batch_size": 32},
    "base.prune": {"structure": "channels", "scope": "global", "budget": {"flops": 0.6}},
    "base.levels": 1,
    "base.branches": ALL,
    "axes": {
        "seed": [0, 1],
        "way": [
            GATES, WIDENED, {"prune.when": "before", "prune.score": "random"},
            {"prune.score": "slimming", "train.norm_penalty": 0.01, "branches": [*ALL, "finetune"]},
        ],
    },
}  # fmt: skip


def changed(**more: Any) -> dict[str, Any]:
    return deepcopy({**CHANGES, **more})


def jobs_of(plan: Plan) -> Counter[str]:
    return Counter(job.digest for trial in plan.trials for job in trial.jobs())


def test_plan_counts_the_training_of_gates_once_for_each_seed_and_width(tiny: StudyOf) -> None:
    plan = make_plan(tiny(changed()))
    cost, jobs = plan.cost(), jobs_of(plan)
    assert cost["trainings_naive"] == jobs.total()
    assert cost["trainings_unique"] == len(jobs)
    # Of each seed: two dense runs, one of them with the penalty, two trainings of gates, and 3 + 3
    # + 3 + 4 branches. Those of slimming start from the same weights, under other masks.
    assert len(jobs) == 2 * (2 + 2 + 13)
    assert plan.sharing()["gates"] == (4, 4)
    assert plan.sharing()["dense"] == (4, 8)


def test_budgets_and_scopes_share_the_training_of_gates(tiny: StudyOf) -> None:
    budgets = [{"prune.budget": {kind: b}} for kind in ("flops", "parameters") for b in (0.7, 0.6)]
    axes = {"seed": [0], "prune.scope": ["global", "layerwise"], "budget": budgets,
            "levels": [1, 2]}  # fmt: skip
    base = {"structure": "channels", **{k.partition(".")[2]: v for k, v in GATES.items()}}
    study = tiny(changed(axes=axes, **{"base.prune": base, "base.branches": ["ticket"]}))
    plan = make_plan(study)
    assert len(plan.trials) == 16
    assert plan.sharing()["gates"] == (1, 16)
    assert plan.cost()["trainings_unique"] == len(jobs_of(plan)) == 1 + 1 + 16


def swept(study: Study) -> Store:
    store = Store()
    register(store, study)
    for _ in search(study, Trainer(store)):
        pass
    return store


@pytest.fixture(scope="module")
def gates_swept() -> tuple[Study, Store]:
    from tiny import tiny_fields

    from sweeps.studies.reader import parse_study

    study = parse_study(tiny_fields(changed()))
    return study, swept(study)


def entries(store: Store) -> set[tuple[str, str]]:
    return {(kind, digest) for kind in store.kinds() for digest in store.digests(kind)}


@pytest.mark.long
def test_collecting_garbage_keeps_all_that_a_study_of_gates_needs(
    gates_swept: tuple[Study, Store],
) -> None:
    study, store = gates_swept
    before = entries(store)
    needed, plan = find_needs(store), make_plan(study)
    assert needed.unread == {}
    gates = {levels["gates"].digest for trial in plan.trials
             for levels in _levels(trial) if "gates" in levels}  # fmt: skip
    assert len(gates) == 4
    assert gates <= needed.all()
    collect(store, 0)
    assert entries(store) == before
    for trial in plan.trials:
        for level in find_tickets(trial.spec, Trainer(store, frozen=True)):
            assert level.records
            assert level.ticket.density > 0


def _levels(trial: Any) -> Any:
    from lth_core.lottery import levels

    return levels(trial.spec)


@pytest.mark.long
def test_masks_of_networks_of_several_widths_are_compared_where_shapes_agree(
    gates_swept: tuple[Study, Store], lth: Lth, tiny_file: StudyFile, here: Path
) -> None:
    """Gates of both widths are one method here, `gates`, apart by the axis."""
    study, store = gates_swept
    copied = open_store("./lth-store")
    for kind, digest in entries(store):
        entry = store.get(kind, digest)
        assert entry is not None
        copied.put(kind, digest, entry.meta, {name: entry.blob(name) for name in entry.blobs})
    records = load_records(copied, "tiny", make_plan(study).trials)
    sizes = {tuple((n, w) for n, _, w in mask.layers)
             for row in records if (mask := load_mask(copied, row["training_digest"]))}  # fmt: skip
    assert len(sizes) == 2
    path = tiny_file(changed(store="./lth-store"))
    assert lth("sweep", path, "--serial").code == 0
    called = lth("report", "tiny", "--json")
    assert called.code == 0, called
    rows = [json.loads(line) for line in called.out.splitlines()]
    tickets = [row for row in rows if row["branch"] == "ticket"]
    assert len(tickets) == 8
    narrow = [row for row in tickets if row.get("prune.expand") != 2.0]
    wide = [row for row in tickets if row not in narrow]
    assert len(wide) == 2
    assert all(row["overlap_methods"] == {} for row in wide)
    assert all(row["overlap_seeds"] is not None for row in tickets)
    for row in narrow:
        others = {"gates", "random-channels", "imp-slimming-channels"} - {row["method"]}
        assert set(row["overlap_methods"]) == others
    assert all(row["travel_outside"] is None for row in wide)
    for command in (["report", "tiny"], ["ticket", "ls"], ["store", "du"], ["store", "verify"]):
        called = lth(*command)
        assert called.code == 0, (command, called)


@pytest.mark.long
def test_tickets_of_gates_are_exported_whole_and_smaller(
    lth: Lth, tiny_file: StudyFile, tiny: StudyOf, here: Path
) -> None:
    axes = {"seed": [0], "way": [WIDENED]}
    assert lth("sweep", tiny_file(changed(axes=axes)), "--serial").code == 0
    study = tiny(changed(axes=axes))
    rows = load_records(open_store(study.store), "tiny", make_plan(study).trials)
    assert [row["branch"] for row in rows] == ["dense", "gates", *ALL]
    for row in rows:
        compact = ["--compact", "--training", row["training_digest"]]
        for option in ([], compact) if row["branch"] != "gates" else ([],):
            name = f"{row['branch']}{len(option)}.safetensors"
            called = lth("ticket", "export", row["ticket_digest"], *option, "-o", name)
            assert called.code == 0, (row["branch"], option, called)
            assert (here / name).exists()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_records_of_gates_equal_those_of_a_sweep_on_ray_bit_for_bit(
    tiny: StudyOf, tiny_file: StudyFile, lth: Lth
) -> None:
    one_seed = changed(**{"axes.seed": [0]})
    for option, store in ((["--serial"], "./serial"), ([], "./on-ray")):
        called = lth("sweep", tiny_file({**one_seed, "store": store}), *option)
        assert called.code == 0, called
    serial, on_ray = (
        load_records(open_store(store), "tiny", make_plan(tiny(one_seed)).trials)
        for store in ("./serial", "./on-ray")
    )
    assert len(serial) == 2 * (2 + 3) + 1 + 3 + 1 + 4
    assert timeless(serial) == timeless(on_ray)


OWN = """
from torch import nn

def net(spec, shape, classes):
    width = round(8 * spec.width)
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )

def fixed(spec, shape, classes):
    return net(type(spec)(), shape, classes)
"""


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (here / "own_gates.py").write_text(OWN)
    monkeypatch.syspath_prepend(here)
    sys.modules.pop("own_gates", None)
    return here


def forget() -> None:
    sys.modules.pop("own_gates", None)
    for cached in (pin_data, pin_model, template, removable_channels):
        cached.cache_clear()


def test_needs_of_gates_in_a_network_of_a_users_are_known_when_its_code_is_gone(
    own: Path, tiny: StudyOf
) -> None:
    axes = {"seed": [0], "way": [GATES, WIDENED]}
    study = tiny(changed(axes=axes, **{"base.model": {"name": "own_gates:net"}}))
    store, needed = Store(), recipes(make_plan(study).trials)
    register(store, study)
    (own / "own_gates.py").unlink()
    shutil.rmtree(own / "__pycache__", ignore_errors=True)
    forget()
    needs = find_needs(store)
    assert needs.unread == {}
    assert needs.all() == needed


def test_network_of_a_users_that_ignores_its_width_is_not_widened(
    own: Path, tiny_file: StudyFile, lth: Lth
) -> None:
    axes = {"seed": [0], "way": [WIDENED]}
    for name, code in (("net", 0), ("fixed", 2)):
        changes = changed(axes=axes, **{"base.model": {"name": f"own_gates:{name}"}})
        called = lth("plan", tiny_file(changes))
        assert called.code == code, called
    assert "prune.expand: must be 1, because own_gates:fixed is not wider" in called.err


@pytest.mark.long
def test_gates_find_a_structure_of_a_users_network(own: Path, tiny: StudyOf) -> None:
    axes = {"seed": [0], "way": [GATES, WIDENED]}
    study = tiny(changed(axes=axes, **{"base.model": {"name": "own_gates:net"}}))
    for _, rows in search(study, Trainer()):
        assert [row["branch"] for row in rows] == ["dense", "gates", *ALL]
        for row in rows[2:]:
            assert 0.3 < row["flops"] / row["dense_flops"] <= 0.6
            assert not row["collapsed_layers"]


@pytest.mark.long
def test_extended_study_trains_no_gates_again(
    gates_swept: tuple[Study, Store], tiny: StudyOf
) -> None:
    study, store = gates_swept
    more = changed(axes={"seed": [0], "way": [GATES], "levels": [2]})
    trainer = Trainer(store)
    rows = [row for _, rows in search(tiny(more), trainer) for row in rows]
    assert {row["branch"]: row["reused"] for row in rows if row["level"] == 0} == {
        "dense": True, "gates": True,
    }  # fmt: skip
    assert all(row["reused"] == (row["level"] < 2) for row in rows)
    assert [round(r["flops"] / r["dense_flops"], 1) <= 0.36 + 0.05 for r in rows if r["level"] == 2]
    assert study.name == "tiny"
