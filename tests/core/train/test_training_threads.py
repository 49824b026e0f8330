"""Threads of a training, by the size of its network."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from toys import jobs_of

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec
from lth_core.errors import DivergedError
from lth_core.train import precision
from lth_core.train.precision import threads_for

SPEC = TicketSpec(model=ModelSpec(widths=(8,)), train=TrainSpec(steps=2), levels=0)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def threads_in(model: nn.Module, shape: tuple[int, ...], batch_size: int) -> int:
    with threads_for(model, shape, batch_size):
        return torch.get_num_threads()


@pytest.mark.usefixtures("two_threads")
def test_only_networks_of_many_multiplications_a_batch_use_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "LEAST_PRODUCTS", 10 * (4 * 3 * 36 + 4 * 4))
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 4))
    assert threads_in(network, (3, 6, 6), 9) == 1
    assert threads_in(network, (3, 6, 6), 10) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("least", "threads"), [(10**12, "1"), (0, "2")])
@pytest.mark.usefixtures("two_threads")
def test_training_uses_threads_by_size_and_says_how_many(
    least: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "LEAST_PRODUCTS", least)
    (result,) = Trainer()([jobs_of(SPEC)[0]["dense"]])
    assert result.training.made_with["threads"] == threads
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_failed_training_gives_threads_back() -> None:
    spec = TicketSpec(train=TrainSpec(optimizer="sgd", lr=1e18, steps=20), levels=0)
    with pytest.raises(DivergedError):
        Trainer()([jobs_of(spec)[0]["dense"]])
    assert torch.get_num_threads() == 2


def test_one_thread_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of one CPU has no more, and does not count multiplications."""
    monkeypatch.setattr(precision, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(precision, "shapes_and_positions", None)
    assert threads_in(nn.Linear(4, 4), (4,), 10) == 1
