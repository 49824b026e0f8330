"""Test examples that are evaluated at the best steps alone, and what evaluation leaves behind."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core import ModelSpec, PruneSpec, TicketSpec, TrainSpec, data, find_tickets
from lth_core.data import Split
from lth_core.errors import DivergedError
from lth_core.results import LevelResult
from lth_core.spec import DataSpec
from lth_core.train.evaluate import BATCH, evaluate
from lth_core.train.training import Curves

SPEC = TicketSpec(
    model=ModelSpec(widths=(16,)),
    train=TrainSpec(lr=0.1, steps=24, evaluate_every=1),
    prune=PruneSpec(fraction=0.5), levels=1, rewind=7, branches=("ticket", "reinit"),
)  # fmt: skip


@pytest.fixture(scope="module")
def searches() -> dict[str, list[LevelResult]]:
    """The same search with all test evaluations and with the best alone."""
    return {
        name: list(find_tickets(replace(SPEC, train=replace(SPEC.train, evaluate_test=name))))
        for name in ("grid", "best")
    }


def pairs(searches: dict[str, list[LevelResult]]) -> Iterator[tuple[Curves, Curves]]:
    """Curves of each training, with all test evaluations and with the best alone."""
    for grid, best in zip(searches["grid"], searches["best"], strict=True):
        for branch, result in grid.results.items():
            yield result.training.curves, best.results[branch].training.curves


def test_records_of_best_test_evaluations_are_those_of_all(
    searches: dict[str, list[LevelResult]],
) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        made = ("train_seconds", "spec_digest", "training_digest")
        records = (record for level in searches[name] for record in level.records)
        return [{k: v for k, v in record.items() if k not in made} for record in records]

    assert rows("grid") == rows("best")


def test_test_examples_are_evaluated_at_each_new_lowest_validation_loss_and_at_the_end(
    searches: dict[str, list[LevelResult]],
) -> None:
    skipped = 0
    for grid, best in pairs(searches):
        assert replace(grid, test_accuracy=[]) == replace(best, test_accuracy=[])
        losses = grid.validation_loss
        for i, (accuracy, known) in enumerate(
            zip(grid.test_accuracy, best.test_accuracy, strict=True)
        ):
            due = all(losses[i] < loss for loss in losses[:i]) or i == len(losses) - 1
            assert known == (accuracy if due else None)
            skipped += known is None
    assert skipped > 10


class Keeping(nn.Module):
    """A linear layer that keeps a constant which it computes in its first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.factor: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.factor is None:
            self.factor = torch.full((10,), 0.5)
        return self.linear(x.flatten(1)) * self.factor


def test_network_that_keeps_what_it_computes_in_evaluation_trains_on() -> None:
    digits, model = data.load(DataSpec(), torch.device("cpu")), Keeping()
    evaluate(model, digits, digits.validation)
    model(digits.normalize(digits.train.x[:5])).sum().backward()
    assert model.linear.weight.grad is not None


class Constant(nn.Module):
    """The same logits for every example."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.2, 0.3]).expand(len(x), -1)


def test_losses_are_summed_in_double_precision() -> None:
    """In single precision the sum of so many losses is off by 1e-7 of it."""
    digits, examples = data.load(DataSpec(), torch.device("cpu")), 10 * BATCH
    split = Split(torch.zeros(examples, 1), torch.zeros(examples, dtype=torch.int64))
    loss, accuracy = evaluate(
        Constant(), replace(digits, mean=torch.zeros(1), std=torch.ones(1)), split
    )
    one = cross_entropy(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([0])).item()
    assert loss == pytest.approx(one, rel=1e-12)
    assert accuracy == 0


def test_test_logits_that_are_no_numbers_are_no_class() -> None:
    """`argmax` of them is 0, and without validation examples nothing else would tell."""
    train = replace(SPEC.train, lr=1e20, steps=1)
    spec = replace(SPEC, data=DataSpec(validation=0.0), train=train, rewind=0)
    with pytest.raises(DivergedError, match=r"loss is not finite at step 1 \(test nan\)"):
        list(find_tickets(spec))
