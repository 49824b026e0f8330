"""Branches of a search on the device: the masks, starts and counts of the CPU."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small import DIGITS, PIXELS, records

from lth_core import PruneSpec, Trainer, find_tickets
from lth_core.jobs.branches import BRANCHES, SCRATCH
from lth_core.store import Store

WEIGHTS = tuple(name for name in BRANCHES if name not in SCRATCH)

COUNTED = ("branch", "level", "density", "weights_kept", "layer_density", "steps", "flops",
           "mask_overlap_chance", "collapsed_layers")  # fmt: skip
"""Columns that do not depend on rounding."""

SEARCH = replace(
    DIGITS, branches=WEIGHTS, rewind=4, levels=2, prune=PruneSpec(fraction=0.5, scope="global"),
    train=replace(DIGITS.train, steps=12, evaluate_every=12),
)  # fmt: skip


def counted(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in COUNTED if name in row}


@pytest.mark.long
def test_every_branch_has_the_counts_of_the_cpu_and_learns_as_well(device: str) -> None:
    search = replace(SEARCH, levels=1, prune=PruneSpec(fraction=0.5))  # layerwise: counts are fixed
    cpu, other = (records(search, Trainer(device=each)) for each in ("cpu", device))
    assert [counted(row) for row in other] == [counted(row) for row in cpu]
    for ours, expected in zip(other, cpu, strict=True):
        accuracy = expected["final_test_accuracy"]
        assert ours["final_test_accuracy"] == pytest.approx(accuracy, abs=0.12), ours["branch"]
        assert ours["mask_overlap"] == pytest.approx(expected["mask_overlap"], abs=0.02)
    assert {row["branch"] for row in other} == {*WEIGHTS, "dense", "rewound"}


@pytest.mark.long
def test_search_on_convolutions_has_the_counts_of_the_cpu(device: str) -> None:
    search = replace(PIXELS, branches=("ticket", "lr_rewind"), rewind=2,
                     prune=PruneSpec(fraction=0.5))  # fmt: skip
    cpu, other = (records(search, Trainer(device=each)) for each in ("cpu", device))
    assert [counted(row) for row in other] == [counted(row) for row in cpu]


def test_mask_before_training_and_its_controls_are_those_of_the_cpu(device: str) -> None:
    search = replace(SEARCH, prune=PruneSpec(when="before", fraction=0.7, scope="erk"), levels=1,
                     branches=("ticket", "reinit", "random_mask", "shuffled_mask", "reshuffled"),
                     rewind=0)  # fmt: skip
    cpu, other = (records(search, Trainer(device=each)) for each in ("cpu", device))
    for column in ("mask_digest", "ticket_digest", "training_digest"):
        assert [row[column] for row in other] == [row[column] for row in cpu]


def test_given_ticket_and_its_controls_are_those_of_the_cpu(device: str, tmp_path: Path) -> None:
    source = replace(SEARCH, rewind=0, levels=1, branches=("ticket", "reinit", "random_mask"))
    *_, level = find_tickets(source, Trainer(device="cpu"))
    level.ticket.save(tmp_path / "ticket.safetensors")
    search = replace(source, ticket=str(tmp_path / "ticket.safetensors"), seed=1)
    cpu, other = (records(search, Trainer(device=each)) for each in ("cpu", device))
    for column in ("mask_digest", "ticket_digest", "training_digest"):
        assert [row[column] for row in other] == [row[column] for row in cpu]


def test_second_search_in_the_same_store_trains_nothing(device: str) -> None:
    store, search = Store(), replace(SEARCH, levels=1, branches=("ticket", "random_mask"))
    first = records(search, Trainer(store, device))
    trainings = store.digests("trainings")
    # Frozen: what the store lacks is an error. Its weights are read on either device.
    assert records(search, Trainer(store, device, frozen=True)) == first
    assert records(search, Trainer(store, "cpu", frozen=True)) == first
    assert store.digests("trainings") == trainings


@pytest.mark.long
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
@pytest.mark.parametrize("settings", [
    {"structure": "channels", "budget": {"flops": 0.5}},
    {"structure": "channels", "fraction": 0.4},
], ids=["budget", "fraction"])  # fmt: skip
def test_structures_are_trained_narrow_on_the_device(device: str, settings: Any) -> None:
    branches = ("ticket", *(SCRATCH if "budget" in settings else ()))
    search = replace(PIXELS, branches=branches, prune=PruneSpec(scope="layerwise", **settings))
    cpu, other = (records(search, Trainer(device=each)) for each in ("cpu", device))
    assert [counted(row) for row in other] == [counted(row) for row in cpu]
