from collections.abc import Callable
from dataclasses import replace
from math import prod

import pytest
import torch
from torch.nn.functional import cross_entropy
from toys import jobs_of, textbook

from lth_core import ModelSpec, TicketSpec, TrainSpec, data, models
from lth_core.errors import DivergedError
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, masked, ones
from lth_core.seeds import generator
from lth_core.spec import DataSpec
from lth_core.train.batches import Order
from lth_core.train.evaluate import evaluate
from lth_core.train.loop import Task, run
from lth_core.train.masking.base import Fixed, masked_parameters

SGD = TrainSpec(optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
ADAM = TrainSpec(lr=0.01, weight_decay=0.01)
NETS = [ModelSpec(widths=(20,)), ModelSpec(name="toys:batch_norm_net")]


def make(
    train: TrainSpec,
    net: ModelSpec = NETS[0],
    density: float = 0.3,
    keep: tuple[int, ...] = (),
    last: int = 12,
) -> Task:
    """A network of the digits under a random mask, from step 0."""
    dataset = data.load(DataSpec(), torch.device("cpu"))
    model = models.build(net, dataset.shape, 10, generator(0, "init")).train()
    stream = generator(0, "mask")
    mask: Mask = {
        name: torch.rand(m.shape, generator=stream) < density for name, m in ones(model).items()
    }
    model.load_state_dict(masked(model.state_dict(), mask))
    order = Order(len(dataset.train), 60, seed=0, run="1")
    spec = replace(train.in_steps(order.steps_per_epoch), evaluate_every=f"{last}it")
    return Task(model, Fixed(model, mask), dataset, spec, order, 0, last, keep)


@pytest.mark.parametrize("train", [SGD, ADAM], ids=["nesterov", "adam"])
@pytest.mark.parametrize("net", NETS, ids=["mlp", "conv"])
def test_pruned_weights_are_exactly_zero_after_every_step(train: TrainSpec, net: ModelSpec) -> None:
    task = make(train, net, keep=tuple(range(13)))
    points = run(task).points
    assert list(points) == list(range(13))
    for before, after in zip(range(12), range(1, 13), strict=True):
        for name, kept in task.masking.mask.items():
            assert not points[after][name][~kept].any()
            assert (points[after][name] != points[before][name])[kept].float().mean() > 0.5


@pytest.mark.parametrize("net", NETS, ids=["mlp", "conv"])
def test_pruned_weights_come_alive_without_the_mask(net: ModelSpec) -> None:
    """What the test above would not see if gradients or momentum were zero there anyway."""
    task = make(SGD, net)
    state = run(replace(task, masking=Fixed(task.model, ones(task.model)))).state
    for name, kept in task.masking.mask.items():
        assert (state[name][~kept] != 0).float().mean() > 0.5


def test_forward_applies_no_mask() -> None:
    task = make(ADAM, last=1)
    torch.nn.init.constant_(task.model.get_submodule("fc1").weight, 0.1)  # type: ignore[arg-type]
    ((_, index, _),) = task.order.batches(0, 1, torch.device("cpu"))
    batch = task.data.train.at(index)
    unmasked = cross_entropy(task.model(task.data.normalize(batch.x)), batch.y).item()
    outcome = run(task)
    assert outcome.curves.train_loss == [pytest.approx(unmasked, rel=1e-6)]
    assert not outcome.state["fc1.weight"][~task.masking.mask["fc1.weight"]].any()


VARIANTS = {
    "adam": {},
    "adam with decay": {"train": {"weight_decay": 0.01}},
    "adamw": {"train": {"optimizer": "adamw", "weight_decay": 1.0}},
    "nesterov": {
        "train": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    },
    "cosine": {"train": {"optimizer": "sgd", "lr": 0.1, "schedule": "cosine", "warmup": 9}},
    "multistep": {
        "train": {"optimizer": "sgd", "lr": 0.1, "schedule": "multistep", "milestones": (10, 15)}
    },
    "replayed": {"train": {"replay_order": True}},
    "augmented": {"data": {"augment": "crop_flip"}},
}


@pytest.mark.parametrize(
    ("variant", "net"),
    [
        pytest.param(variant, net, id=f"{variant}-{name}", marks=marks)
        for variant in VARIANTS
        for net, name, marks in [
            (NETS[0], "mlp", ()),
            (NETS[1], "conv", () if variant in ("nesterov", "augmented") else pytest.mark.slow),
        ]
    ],
)
@pytest.mark.slow
def test_ticket_agrees_with_the_textbook(
    variant: str, net: ModelSpec, small: TicketSpec, trainer: Callable[..., object]
) -> None:
    """From the rewind point on: weights and buffers, schedule, order, augmentation, mask."""
    spec = replace(
        small,
        model=net,
        train=replace(small.train, steps=27, **VARIANTS[variant].get("train", {})),
        data=replace(small.data, **VARIANTS[variant].get("data", {})),
    )
    job: Job = jobs_of(spec)[1]["ticket"]
    ended, mask = trainer.final(job)  # type: ignore[attr-defined]
    dataset = data.load(job.data, torch.device("cpu"))
    model = models.build(net, dataset.shape, 10, torch.Generator()).train()
    model.load_state_dict(masked(trainer.start(job), mask))  # type: ignore[attr-defined]
    expected = textbook(job, model, mask, dataset)
    assert (job.first, job.last) == (7, 27)
    assert 0 < sum(int(m.sum()) for m in mask.values()) < sum(prod(m.shape) for m in mask.values())
    assert ended.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ended[name], value, rtol=1e-3, atol=1e-4)


def test_curves_hold_the_mean_loss_since_the_last_evaluation_on_the_grid() -> None:
    each = run(replace((t := make(ADAM, last=25)), spec=replace(t.spec, evaluate_every=1))).curves
    grid = run(replace((t := make(ADAM, last=25)), spec=replace(t.spec, evaluate_every=10))).curves
    assert each.step == list(range(1, 26))
    assert grid.step == [10, 20, 25]
    losses = each.train_loss
    expected = [sum(losses[:10]) / 10, sum(losses[10:20]) / 10, sum(losses[20:]) / 5]
    assert grid.train_loss == pytest.approx(expected, rel=1e-5)
    for name in ("validation_loss", "validation_accuracy", "test_accuracy"):
        every = getattr(each, name)
        assert getattr(grid, name) == [every[9], every[19], every[24]]


@pytest.mark.parametrize("net", NETS, ids=["mlp", "conv"])
def test_evaluating_more_often_changes_nothing_else(net: ModelSpec) -> None:
    often, once = make(ADAM, net), make(ADAM, net)
    often = replace(often, spec=replace(often.spec, evaluate_every=1))
    one, other = run(often).state, run(once).state
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_evaluate_is_the_mean_over_all_examples_in_evaluation_mode() -> None:
    task = make(ADAM, NETS[1])
    run(task)
    split = task.data.train
    assert len(split) == 1213  # more than one batch of evaluation, the last one smaller
    loss, accuracy = evaluate(task.model, task.data, split)
    assert task.model.training
    with torch.no_grad():
        logits = task.model.eval()(task.data.normalize(split.x))
    assert loss == pytest.approx(cross_entropy(logits, split.y).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == split.y).float().mean().item())


def test_kept_states_are_copies() -> None:
    task = make(ADAM, keep=(0, 12))
    outcome = run(task)
    assert torch.equal(outcome.points[12]["fc1.weight"], outcome.state["fc1.weight"])
    assert not torch.equal(outcome.points[0]["fc1.weight"], outcome.state["fc1.weight"])
    for parameter in task.model.parameters():
        torch.nn.init.zeros_(parameter)
    assert outcome.points[12]["fc1.weight"].any()
    assert outcome.state["fc1.weight"].any()


def test_loss_that_is_not_finite_is_divergence() -> None:
    with pytest.raises(
        DivergedError, match=r"not finite at step \d+ .*a smaller train\.lr may help"
    ):
        run(make(replace(SGD, lr=1e18), last=12))


def test_a_full_mask_costs_nothing() -> None:
    task = make(ADAM, density=2.0)
    assert masked_parameters(task.model, task.masking.mask) == ([], [])


def test_bf16_changes_the_arithmetic_but_neither_the_weights_type_nor_what_is_learned() -> None:
    full, half = run(make(ADAM, last=40)), run(make(replace(ADAM, precision="bf16"), last=40))
    assert half.state["fc1.weight"].dtype == torch.float32
    assert not torch.equal(full.state["fc1.weight"], half.state["fc1.weight"])
    assert half.curves.train_loss == pytest.approx(full.curves.train_loss, rel=0.05)
    accuracy, exact = half.curves.test_accuracy[-1], full.curves.test_accuracy[-1]
    assert accuracy == pytest.approx(exact, abs=0.05)
    assert exact > 0.4


def test_training_puts_back_the_settings_of_torch() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    run(make(ADAM, last=1))
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == before
