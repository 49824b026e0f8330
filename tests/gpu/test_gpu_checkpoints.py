"""Interrupted trainings resume on the device, and on another one."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from small import DIGITS, PIXELS, records
from test_gpu_maskings import DURING, METHODS

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer
from lth_core.errors import PreemptedError
from lth_core.store import Store

QUICK = ("adam, dropout", "adamw, bf16", "edge-popup")
CASES: dict[str, TicketSpec] = {
    "adam, dropout": replace(DIGITS, model=ModelSpec(widths=(16,), dropout=0.3)),
    "adamw, bf16": replace(
        DIGITS, train=replace(DIGITS.train, optimizer="adamw", precision="bf16")
    ),
    "sgd, batch norm, augmented": PIXELS,
    "gmp": replace(DIGITS, prune=PruneSpec(**METHODS["gmp"])),
    "rigl": replace(
        PIXELS,
        prune=PruneSpec(**{**DURING, "grow": "gradient", "end": "6it"}),
        train=replace(PIXELS.train, steps=8),
    ),
    "edge-popup": replace(DIGITS, prune=PruneSpec(**METHODS["edge-popup"])),
    "supermask": replace(DIGITS, prune=PruneSpec(**METHODS["supermask"])),
}
GATES = replace(PIXELS, prune=PruneSpec(
    when="gates", structure="channels", scope="global", budget={"flops": 0.5}, gate_steps=6,
    gate_every=3, gate_batch_size=40,
))  # fmt: skip


class Every:
    """An event that is set each time it was asked so often: each step asks."""

    def __init__(self, steps: int) -> None:
        self.steps = self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def interrupted(spec: TicketSpec, devices: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Records of a search that is interrupted after every third step, and how often it was.

    Args:
        devices: those of the trainers, in turn.
    """
    store, times = Store(), 0
    while True:
        trainer = Trainer(store, devices[times % len(devices)])
        trainer.ending = Every(3)  # type: ignore[assignment]
        try:
            return records(spec, trainer), times
        except PreemptedError:
            times += 1


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in CASES
])  # fmt: skip
def test_interrupted_search_comes_out_the_same_to_the_bit(device: str, name: str) -> None:
    rows, times = interrupted(CASES[name], [device])
    assert times >= 1
    assert rows == records(CASES[name], Trainer(device=device))


@pytest.mark.long
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_interrupted_training_of_gates_comes_out_the_same_to_the_bit(device: str) -> None:
    rows, times = interrupted(GATES, [device])
    assert times >= 1
    assert rows == records(GATES, Trainer(device=device))


@pytest.mark.parametrize("name", ["adam, dropout", "gmp", "supermask"])
def test_search_resumes_on_another_device(device: str, name: str) -> None:
    rows, times = interrupted(CASES[name], ["cpu", device])
    assert times >= 2
    expected = records(CASES[name], Trainer(device="cpu"))
    assert [row["weights_kept"] for row in rows] == [row["weights_kept"] for row in expected]
    assert rows[0]["final_test_accuracy"] == pytest.approx(
        expected[0]["final_test_accuracy"], abs=0.05
    )
