from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import jobs_of, same, textbook

from lth_core import TicketSpec, Trainer, data, models
from lth_core.errors import SpecError
from lth_core.masks import masked
from lth_core.models.dropout import Dropout
from lth_core.spec import ModelSpec

COLOUR = (3, 32, 32)


def build(name: str, dropout: float) -> nn.Module:
    spec = ModelSpec(name=name, dropout=dropout)
    return models.build(spec, COLOUR, 10, torch.Generator().manual_seed(0)).train()


def places(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Dropout)]


def drawn(layer: Dropout, calls: int, size: int = 64) -> list[torch.Tensor]:
    return [layer(torch.ones(2, size)) for _ in range(calls)]


def test_share_of_units_is_dropped_and_the_rest_scaled_in_training_only() -> None:
    layer = Dropout(0.3, "here")
    out = layer(torch.ones(200, 500))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    x = torch.randn(3, 4)
    assert layer.eval()(x) is x


def test_gradient_passes_only_what_is_kept() -> None:
    x = torch.ones(4, 50, requires_grad=True)
    out = Dropout(0.5, "here")(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert 0 < int((out == 0).sum()) < 200


def test_draws_are_of_seed_run_place_and_step_and_of_nothing_global() -> None:
    def first(seed: int = 0, run: str = "0", step: int = 0, name: str = "a") -> torch.Tensor:
        layer = Dropout(0.5, name)
        layer.begin_step(seed, run, step)
        return layer(torch.ones(2, 64))

    before = torch.random.get_rng_state()
    one = first()
    torch.rand(3)
    assert torch.equal(one, first())
    others = [first(seed=1), first(run="1"), first(run="0.1"), first(step=1), first(name="b")]
    assert not any(torch.equal(one, other) for other in others)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(before)
        first()
        assert torch.equal(torch.random.get_rng_state(), before)


def test_calls_in_one_step_draw_apart_and_come_again_in_that_step() -> None:
    layer = Dropout(0.5, "a")
    layer.begin_step(3, "2", 4)
    first, second = drawn(layer, 2)
    assert not torch.equal(first, second)
    layer.begin_step(3, "2", 5)
    assert not torch.equal(drawn(layer, 1)[0], first)
    layer.begin_step(3, "2", 4)
    assert all(map(torch.equal, drawn(layer, 2), (first, second)))


def test_evaluation_draws_nothing() -> None:
    one, other = Dropout(0.5, "a"), Dropout(0.5, "a")
    one(torch.ones(2, 64))
    other(torch.ones(2, 64))
    other.eval()(torch.ones(9, 64))
    assert torch.equal(one.train()(torch.ones(2, 64)), other.train()(torch.ones(2, 64)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", ["dropout1", "dropout2"]),
        ("lenet-300-100", ["dropout1", "dropout2"]),
        ("lenet-5", ["dropout1"]),
        ("conv-2", ["dropout1", "dropout2"]),
        ("vgg-11", ["dropout"]),
        ("mobilenet-v2", ["classifier.0"]),
    ],
)
def test_families_drop_where_they_say(name: str, expected: list[str]) -> None:
    dropping, without = build(name, 0.5), build(name, 0.0)
    assert places(dropping) == expected
    x = torch.randn(4, *COLOUR, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(dropping(x), without(x))
    assert torch.equal(dropping.eval()(x), dropping.eval()(x))


def test_dropout_leaves_the_weights_as_they_are_drawn_without() -> None:
    assert same(build("lenet-5", 0.5).state_dict(), build("lenet-5", 0.0).state_dict())


def test_users_dropout_draws_nothing_global_either() -> None:
    spec = ModelSpec(name="toys:dropping_net")
    net = models.build(spec, (3, 4, 4), 10, torch.Generator()).train()
    assert places(net) == ["inner.drop"]
    assert not any(type(module) is nn.Dropout for module in net.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet-20", "resnet-18", "resnet-50"])
def test_network_without_dropout_refuses_it(name: str) -> None:
    with pytest.raises(SpecError, match=r"^model\.dropout: does not apply to resnet-.*got 0\.5"):
        build(name, 0.5)


@pytest.mark.parametrize("replay", [False, True])
def test_ticket_with_dropout_agrees_with_the_textbook(replay: bool, small: TicketSpec) -> None:
    """From the rewind point on, dropping what seed, level and step say."""
    spec = replace(
        small,
        seed=3,
        model=replace(small.model, dropout=0.5),
        train=replace(small.train, steps=27, replay_order=replay),
    )
    job, trainer = jobs_of(spec)[1]["ticket"], Trainer()
    ended, mask = trainer.final(job)
    dataset = data.load(job.data, torch.device("cpu"))
    model = models.build(job.model, dataset.shape, 10, torch.Generator()).train()
    model.load_state_dict(masked(trainer.start(job), mask))
    for name, value in textbook(job, model, mask, dataset).items():
        torch.testing.assert_close(ended[name], value, rtol=1e-3, atol=1e-4)


def test_rewind_point_with_dropout_is_the_run_stopped_there(small: TicketSpec) -> None:
    dense = jobs_of(replace(small, model=replace(small.model, dropout=0.5)))[0]["dense"]
    trainer = Trainer()
    whole = trainer._outcome(trainer._prepare(dense))
    stopped = trainer._outcome(trainer._prepare(replace(dense, last=7, keep=())))
    assert dense.keep == (7,)
    assert same(whole.points[7], stopped.state)
