from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_core.train.batches import Order

CPU = torch.device("cpu")


def stretch(order: Order, first: int, last: int) -> list[tuple[int, list[int]]]:
    return [(step, index.tolist()) for step, index, _ in order.batches(first, last, CPU)]


@given(st.integers(1, 40), st.integers(1, 15))
def test_every_epoch_sees_each_example_once_incl_the_smaller_last_batch(n: int, batch: int) -> None:
    order = Order(examples=n, batch_size=batch, seed=0, run="0")
    per_epoch = -(-n // batch)
    steps = stretch(order, 0, 2 * per_epoch)
    assert [step for step, _ in steps] == list(range(2 * per_epoch))
    for epoch in (steps[:per_epoch], steps[per_epoch:]):
        sizes = [len(index) for _, index in epoch]
        assert sorted(i for _, index in epoch for i in index) == list(range(n))
        assert sizes[:-1] == [batch] * (per_epoch - 1)
        assert sizes[-1] == n - batch * (per_epoch - 1)


@given(st.integers(0, 30), st.integers(0, 30))
def test_order_continues_from_any_step_as_if_never_interrupted(first: int, length: int) -> None:
    order = Order(examples=25, batch_size=4, seed=3, run="1", augment="crop_flip")
    whole = list(order.batches(0, first + length, CPU))[first:]
    for (step, index, drawn), (s, i, d) in zip(
        whole, order.batches(first, first + length, CPU), strict=True
    ):
        assert step == s
        assert torch.equal(index, i)
        assert torch.equal(drawn, d)


@pytest.mark.parametrize("change", [{"seed": 1}, {"run": "1"}, {"run": "0.1"}])
def test_order_and_augmentation_are_drawn_from_seed_and_run(change: dict[str, object]) -> None:
    order = Order(examples=50, batch_size=50, seed=0, run="0", augment="crop_flip")
    other = replace(order, **change)  # type: ignore[arg-type]
    for one, two in zip(order.epoch(0), other.epoch(0), strict=True):
        assert not torch.equal(one, two)
    for one, two in zip(order.epoch(0), order.epoch(1), strict=True):
        assert not torch.equal(one, two)
    for one, two in zip(order.epoch(0), order.epoch(0), strict=True):
        assert torch.equal(one, two)
