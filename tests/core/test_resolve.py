from dataclasses import replace

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec
from lth_core.errors import SpecError
from lth_core.resolve import resolve
from lth_core.spec import TicketSpec as Spec


def test_durations_become_steps_of_the_examples_that_are_trained_on() -> None:
    """1213 of the digits are trained on: 21 batches of 60 an epoch, the last one of 13."""
    spec = resolve(TicketSpec(train=TrainSpec(steps="2ep", evaluate_every="1ep"), rewind="0.5ep"))
    assert (spec.train.steps, spec.train.evaluate_every, spec.rewind) == ("42it", "21it", "10it")
    half = resolve(TicketSpec(data=DataSpec(fraction=0.5), train=TrainSpec(steps="2ep")))
    assert half.train.steps == "22it"


def test_resolving_twice_changes_nothing() -> None:
    spec = resolve(TicketSpec(model=ModelSpec(name="toys:batch_norm_net"), rewind="1ep"))
    assert resolve(spec) == spec
    assert len(spec.model.fingerprint) == 64
    assert spec.data.fingerprint == ""


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (TicketSpec(rewind="601it"), "rewind"),
        (TicketSpec(rewind="600it"), "rewind"),
        (TicketSpec(branches=("ticket", "tocket")), "branches"),
        (TicketSpec(data=DataSpec(name="digts")), "data.name"),
        (TicketSpec(model=ModelSpec(name="lenet")), "model.name"),
        (TicketSpec(train=TrainSpec(steps="0.01ep")), "train.steps"),
        (TicketSpec(train=TrainSpec(evaluate_every="0.01ep")), "train.evaluate_every"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_field(spec: Spec, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        resolve(spec)
    assert refused.value.field == field


def test_dense_run_alone_may_be_kept_at_its_end() -> None:
    assert resolve(replace(TicketSpec(), levels=0, rewind="600it")).rewind == "600it"
