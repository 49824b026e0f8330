"""Which part of the data each number is taken of, on datasets whose parts tell themselves apart."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lth_core.data import Dataset, Split
from lth_core.errors import DivergedError
from lth_core.measures.stability import estimate_statistics
from lth_core.train.evaluate import evaluate, record_evaluation
from lth_core.train.training import Curves

EXAMPLES = 40


def part(value: float, label: int) -> Split:
    """Examples that are all alike, of one class."""
    return Split(torch.full((EXAMPLES, 2), value), torch.full((EXAMPLES,), label))


@pytest.fixture
def apart() -> Dataset:
    """Training, validation and test examples of the classes 0, 1 and 2."""
    return Dataset(
        train=part(1.0, 0), validation=part(2.0, 1), test=part(5.0, 2),
        mean=torch.zeros(2), std=torch.ones(2), classes=3,
    )  # fmt: skip


class Constant(nn.Module):
    """The same logits for every example."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def test_curves_take_validation_from_validation_examples_and_test_from_test_examples(
    apart: Dataset,
) -> None:
    model, curves = Constant(0.0, 3.0, 1.0), Curves()
    record_evaluation(curves, 7, 0.5, model, apart)
    expected = [-torch.log_softmax(model.logits.detach(), 0)[label].item() for label in (1, 2)]
    assert curves.validation_loss == [pytest.approx(expected[0])]
    assert curves.validation_loss != [pytest.approx(expected[1])]
    assert (curves.validation_accuracy, curves.test_accuracy) == ([1.0], [0.0])
    assert (curves.step, curves.train_loss) == ([7], [0.5])


def test_without_validation_examples_nothing_takes_their_place(apart: Dataset) -> None:
    bare, curves = replace(apart, validation=apart.train.at(torch.arange(0))), Curves()
    record_evaluation(curves, 7, 0.5, Constant(0.0, 3.0, 1.0), bare)
    assert curves == Curves(step=[7], train_loss=[0.5], test_accuracy=[0.0])
    assert curves.early_stop() is None
    with pytest.raises(DivergedError, match=r"not finite at step 8 \(training nan\); a smaller"):
        record_evaluation(curves, 8, float("nan"), Constant(0.0, 3.0, 1.0), bare)


def test_validation_that_is_not_finite_is_named_beside_the_training_loss(apart: Dataset) -> None:
    with pytest.raises(DivergedError, match=r"step 8 \(training 0\.5, validation nan\)"):
        record_evaluation(Curves(), 8, 0.5, Constant(0.0, float("nan"), 1.0), apart)


def test_early_stop_is_the_lowest_validation_loss_whatever_the_test_accuracy() -> None:
    curves = Curves(
        step=[1, 2, 3, 4], train_loss=[4.0, 3.0, 2.0, 1.0], validation_loss=[3.0, 1.0, 1.0, 2.0],
        validation_accuracy=[0.1, 0.2, 0.9, 0.3], test_accuracy=[0.1, 0.2, 0.3, 0.99],
    )  # fmt: skip
    assert curves.early_stop() == 1


def test_statistics_of_a_barriers_networks_are_those_of_the_training_examples(
    apart: Dataset,
) -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3))
    varied = replace(apart, train=Split(torch.randn(EXAMPLES, 2) + 1, apart.train.y))
    estimate_statistics(model, varied)
    norm = model[0]
    assert isinstance(norm.running_mean, Tensor)
    assert isinstance(norm.running_var, Tensor)
    torch.testing.assert_close(norm.running_mean, varied.train.x.mean(0))
    torch.testing.assert_close(norm.running_var, varied.train.x.var(0))


def test_evaluation_leaves_statistics_and_training_mode_as_they_were(apart: Dataset) -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, apart, apart.test)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
