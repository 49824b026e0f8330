"""Gradual magnitude pruning: the mask shrinks while the weights train."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from toys import jobs_of, textbook
from watched import counts, equal, watch

from lth_core import (
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    data,
    find_tickets,
    models,
)
from lth_core.masks import Mask, digest, kept, nested, ones

SIZES = {"fc1.weight": 2048, "fc2.weight": 512, "output.weight": 160}
DUE = (4, 9, 14, 19, 21)
SGD = TrainSpec(
    optimizer="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, steps=30,
    evaluate_every=10,
)  # fmt: skip
ADAM = TrainSpec(lr=0.01, weight_decay=0.01, steps=30, evaluate_every=10)


def gmp(train: TrainSpec = ADAM, **prune: object) -> TicketSpec:
    """Changes at steps 4, 9, 14, 19 and, the last, at 21."""
    fields = {"fraction": 0.6, "begin": 4, "end": 21, "every": 5, **prune}
    return TicketSpec(
        model=ModelSpec(widths=(32, 16)), train=train, branches=("ticket",), levels=2,
        prune=PruneSpec(when="during", **fields),
    )  # fmt: skip


def keeps(weights: int, step: int, fraction: float) -> int:
    """Number of weights that the cubic schedule keeps at a change (Zhu & Gupta 2017)."""
    sparsity = fraction * (1 - (1 - (step - 4) / 17) ** 3)
    return weights - round(sparsity * weights)


def smallest_gone(weights: list[tuple[float, str, int]], keep: int) -> set[tuple[str, int]]:
    """By sorting, which weights stay."""
    return {(name, i) for _, name, i in sorted(weights, reverse=True)[:keep]}


def prune_by_hand(scope: str) -> Callable[[int, nn.Module, Mask], None]:
    """Pruning as a textbook does it: sort what is left, drop the smallest."""

    def change(step: int, model: nn.Module, mask: Mask) -> None:
        if step not in DUE:
            return
        named = dict(model.named_parameters())
        for names in [list(mask)] if scope == "global" else [[name] for name in mask]:
            alive = [
                (abs(w), name, i)
                for name in names
                for i, w in enumerate(named[name].detach().flatten().tolist())
                if mask[name].flatten()[i]
            ]
            size = sum(SIZES[name] for name in names)
            stay = smallest_gone(alive, keeps(size, step, 0.6))
            for name in names:
                flat = torch.tensor([(name, i) in stay for i in range(SIZES[name])])
                mask[name] = flat.view_as(mask[name])
                named[name].data *= mask[name]

    return change


@pytest.mark.parametrize(
    ("train", "scope"), [(SGD, "global"), (ADAM, "layerwise")], ids=["sgd-global", "adam-layerwise"]
)
def test_gmp_agrees_with_the_textbook(train: TrainSpec, scope: str) -> None:
    job = jobs_of(gmp(train, scope=scope))[1]["ticket"]
    trainer, dataset = Trainer(), data.load(job.data, torch.device("cpu"))
    state, mask = trainer.final(job)
    model = models.build(job.model, dataset.shape, 10, torch.Generator()).train()
    model.load_state_dict(trainer.start(job))
    expected = ones(model)
    ended = textbook(job, model, expected, dataset, prune_by_hand(scope))
    assert equal(mask, expected)
    for name, value in ended.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.slow
def test_masks_shrink_at_each_change_to_what_the_schedule_says(scope: str, level: int) -> None:
    masks = watch(jobs_of(gmp(scope=scope))[level]["ticket"]).masks
    fraction = 1 - 0.4**level
    for step in DUE:
        if scope == "global":
            assert kept(masks[step]) == keeps(2720, step, fraction)
        else:
            assert counts(masks[step]) == {
                name: keeps(size, step, fraction) for name, size in SIZES.items()
            }
    assert [kept(masks[step]) for step in range(4)] == [2720] * 4
    for step, (before, after) in enumerate(pairwise(masks), start=1):
        assert nested(after, before)
        assert step in DUE or equal(after, before)


@pytest.mark.parametrize("train", [SGD, ADAM], ids=["nesterov", "adam"])
def test_pruned_weights_are_exactly_zero_after_every_step(train: TrainSpec) -> None:
    seen = watch(jobs_of(gmp(train, begin=0, every=3))[2]["ticket"])
    assert seen.taken == [True] * 30
    for mask, state in zip(seen.masks, seen.after, strict=True):
        assert not any(state[name][~m].any() for name, m in mask.items())
    # Momentum is there that would revive them.
    pruned = ~seen.masks[-1]["fc1.weight"]
    assert (seen.moments[-1]["fc1.weight"][0][pruned] != 0).float().mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("schedule", ["cubic", "linear", "exponential"])
def test_gmp_ends_at_the_density_of_one_shot(scope: str, schedule: str, trainer: Trainer) -> None:
    spec = gmp(scope=scope, schedule=schedule, fraction=0.37, output_fraction=0.15)
    fractions = {"scope": scope, "fraction": 0.37, "output_fraction": 0.15}
    shot = replace(spec, prune=PruneSpec(one_shot=True, **fractions))
    for gradual, once in zip(find_tickets(spec, trainer), find_tickets(shot, trainer), strict=True):
        a, b = gradual.records[0], once.records[0]
        assert a["weights_kept"] == b["weights_kept"]
        assert a["requested_density"] == b["requested_density"]
        assert scope == "global" or a["layer_density"] == b["layer_density"]


def test_each_level_is_found_anew_and_not_within_the_last(trainer: Trainer) -> None:
    one, two = (trainer.final(jobs_of(gmp())[level]["ticket"])[1] for level in (1, 2))
    assert kept(two) < kept(one)
    assert not nested(two, one)


def test_any_score_chooses_what_is_pruned_on_the_way(trainer: Trainer) -> None:
    """One that differentiates too, in the midst of a training step."""
    masks = [
        trainer.final(jobs_of(gmp(score=score))[1]["ticket"])[1]
        for score in ("magnitude", "movement", "snip", "synflow")
    ]
    assert len({digest(mask) for mask in masks}) == 4
    assert [counts(mask) for mask in masks] == [counts(masks[0])] * 4


@pytest.mark.parametrize("evaluated", ["grid", "best"])
def test_early_stop_has_the_density_of_the_record(evaluated: str, trainer: Trainer) -> None:
    """Before the last change, in the step after 21 steps, a ticket has more weights."""
    train = replace(ADAM, lr=0.05, evaluate_every=1, evaluate_test=evaluated)
    level = list(find_tickets(replace(gmp(train, fraction=0.97), levels=1), trainer))[1]
    curves, (row,) = level.results["ticket"].training.curves, level.records
    losses = curves.validation_loss
    sparse = range(curves.step.index(22), len(losses))
    best = min(sparse, key=losses.__getitem__)
    assert min(losses) < losses[best]
    assert row["early_stop_step"] == curves.step[best] < 30
    assert row["early_stop_validation_loss"] == losses[best]
    assert row["early_stop_test_accuracy"] == curves.test_accuracy[best]
    assert curves.test_accuracy[best] is not None


def test_neurons_go_whole_while_the_network_trains(trainer: Trainer) -> None:
    spec = gmp(structure="neurons", fraction=0.25)
    mask = trainer.final(jobs_of(spec)[1]["ticket"])[1]
    rows = {name: m.any(1) for name, m in mask.items()}
    assert counts(rows) == {"fc1.weight": 24, "fc2.weight": 12, "output.weight": 10}
    read = {"fc1.weight": torch.ones(64).bool(), "fc2.weight": rows["fc1.weight"],
            "output.weight": rows["fc2.weight"]}  # fmt: skip
    for name, m in mask.items():  # the next layer reads no pruned neuron
        assert torch.equal(m, rows[name][:, None] & read[name][None])


def test_layer_that_collapses_on_the_way_is_flagged_and_training_goes_on(trainer: Trainer) -> None:
    spec = replace(gmp(layer_fractions={"fc2": 0.9995}), branches=("ticket", "reinit"))
    for level in list(find_tickets(spec, trainer))[1:]:
        for row in level.records:
            assert row["collapsed_layers"] == 1
            assert row["layer_density"]["fc2"] == 0
            curves = level.results[row["branch"]].training.curves
            assert all(0 < loss < 100 for loss in (*curves.train_loss, *curves.validation_loss))
