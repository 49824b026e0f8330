"""Every draw has a seed: whatever a network or a factory draws, a result is a function of its spec."""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawing_nets import NETS
from toys import jobs_of, same

from lth_core import ModelSpec, TicketSpec, Trainer, models
from lth_core.errors import PreemptedError
from lth_core.seeds import generator, seeded_draws


@pytest.fixture(autouse=True)
def other_global_draws() -> Iterator[None]:
    """Global generators in a state of their own, that each test must leave as it was."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    torch.set_rng_state(kept[0])
    random.setstate(kept[1])
    np.random.set_state(kept[2])


def disturbed(seed: int) -> tuple[object, ...]:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return states()


def states() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def spec_of(small: TicketSpec, name: str) -> TicketSpec:
    train = replace(small.train, steps=6, evaluate_every=3)
    return replace(
        small, seed=1, levels=0, rewind=0, train=train, model=ModelSpec(name=f"drawing_nets:{name}")
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_what_a_network_draws_is_a_function_of_the_spec_also_after_an_interruption(
    name: str, small: TicketSpec
) -> None:
    dense = jobs_of(spec_of(small, name))[0]["dense"]
    before = disturbed(1)
    whole = Trainer()
    end = whole.final(dense)[0]
    assert states() == before
    disturbed(2)
    interrupted = Trainer(checkpoint_every=0)
    interrupted.ending.set()
    with pytest.raises(PreemptedError):
        interrupted([dense])
    interrupted.ending.clear()
    disturbed(3)
    assert same(interrupted.final(dense)[0], end)
    assert interrupted([dense])[0].training.curves == whole([dense])[0].training.curves
    other = jobs_of(replace(spec_of(small, name), seed=2))[0]["dense"]
    assert not same(Trainer().final(other)[0], end)


@pytest.mark.parametrize("name", ["of_numpy", "of_python"])
def test_factory_that_draws_weights_elsewhere_is_a_function_of_its_seed(name: str) -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        spec = ModelSpec(name=f"drawing_nets:{name}", init="as_built")
        return models.build(spec, (1, 8, 8), 10, generator(seed, "init")).state_dict()

    before = disturbed(1)
    one = drawn(0)
    assert states() == before
    disturbed(2)
    assert same(one, drawn(0))
    assert not same(one, drawn(1))


def test_draws_are_restored_after_an_error() -> None:
    before = disturbed(5)
    with pytest.raises(ZeroDivisionError), seeded_draws(3):
        print(torch.rand(1), random.random(), 1 / 0)
    assert states() == before
