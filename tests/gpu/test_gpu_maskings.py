"""Masks that change in training or are learned, on the device."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from small import DIGITS, PIXELS, records

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, find_tickets, masks
from lth_core.train.masking.registry import GROW, LEARN

DURING = {"when": "during", "fraction": 0.8, "begin": "2it", "end": "10it", "every": "2it"}
METHODS: dict[str, dict[str, Any]] = {
    "gmp": {**DURING, "scope": "global"},
    "gmp by snip": {**DURING, "score": "snip"},
    "set": {**DURING, "grow": "random", "scope": "erk"},
    "rigl": {**DURING, "grow": "gradient", "scope": "erk"},
    "edge-popup": {"when": "never", "score": "edge-popup", "fraction": 0.5, "lr": 0.05},
    "supermask": {"when": "never", "score": "supermask", "fraction": 0.5, "lr": 0.05,
                  "scope": "global"},
}  # fmt: skip


def spec_of(method: str, base: TicketSpec) -> TicketSpec:
    train = replace(base.train, steps=12, evaluate_every=6)
    return replace(base, prune=PruneSpec(**METHODS[method]), train=train)


@pytest.mark.parametrize(("method", "base"), [
    *(pytest.param(method, DIGITS, id=f"{method}, mlp",
                   marks=() if method in ("gmp", "rigl", "edge-popup") else pytest.mark.long)
      for method in METHODS),
    *(pytest.param(method, PIXELS, id=f"{method}, resnet-8", marks=pytest.mark.long)
      for method in ("gmp by snip", "rigl")),
])  # fmt: skip
def test_mask_has_the_density_of_the_cpu_and_the_network_learns_as_well(
    device: str, method: str, base: TicketSpec
) -> None:
    spec = spec_of(method, base)
    cpu, other = (records(spec, Trainer(device=each))[-1] for each in ("cpu", device))
    assert other["weights_kept"] == cpu["weights_kept"]
    # After 12 steps accuracies are noise to a few examples.
    assert other["final_test_accuracy"] == pytest.approx(cpu["final_test_accuracy"], abs=0.2)


@pytest.mark.parametrize("method", METHODS)
def test_pruned_weights_are_0_at_the_end(device: str, method: str) -> None:
    trainer = Trainer(device=device)
    *_, level = find_tickets(spec_of(method, DIGITS), trainer)
    job = level.results["ticket"].job
    state, mask = trainer.final(job)
    assert all(not bool(state[name][~m].any()) for name, m in mask.items())
    assert masks.kept(mask) == level.records[0]["weights_kept"]
    if method in LEARN:
        start = trainer.start(job)
        assert all(state[n][m].equal(start[n][m]) for n, m in mask.items())


@pytest.mark.long
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_gates_find_a_structure_within_the_budget(device: str) -> None:
    prune = PruneSpec(when="gates", structure="channels", scope="global", budget={"flops": 0.5},
                      gate_steps=8, gate_every=4, gate_batch_size=40)  # fmt: skip
    spec = replace(PIXELS, prune=prune, model=ModelSpec(name="resnet-8", width=0.25))
    (*_, ticket) = records(spec, Trainer(device=device))
    assert ticket["flops"] <= 0.5 * ticket["dense_flops"]


def test_every_masking_is_tested_here() -> None:
    grown = {METHODS[name].get("grow", "none") for name in METHODS if name not in LEARN}
    assert grown == GROW.keys()
    assert LEARN.keys() <= METHODS.keys()
