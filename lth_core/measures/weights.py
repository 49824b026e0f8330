"""Measures of networks, of masks, and of how far weights went."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_core.jobs.recipes import Job, Lab, Measure
from lth_core.masks import Mask, State, counts, overlap, prunable_layers


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap(Measure):
    """What a branch that finds a mask of its own has in common with its level's ticket.

    Takes `mask_overlap`, the Jaccard overlap, and `mask_overlap_chance`, as `chance_overlap`.
    """

    kind = "Overlap"

    ticket: Job
    own: Job

    def take(self, lab: Lab) -> dict[str, float | None]:
        ticket, own = lab.mask(self.ticket.mask, self.ticket), lab.mask(self.own.mask, self.own)
        return {
            "mask_overlap": overlap(own, ticket),
            "mask_overlap_chance": chance_overlap(counts(own, ticket)),
        }


def layers_of(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[tuple[int, ...], int]]:
    """(weight shape, positions) of every prunable layer, in the model's order.

    Positions are the places of the layer's output for one example: each kept weight is multiplied
    once at each, so a layer's forward FLOPs are 2 x kept x positions (padding counted as input).
    """
    layers = prunable_layers(model)
    positions = dict.fromkeys(layers, 0)

    def count(name: str, channels: int):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            positions[name] += output.numel() // channels

        return hook

    hooks = [
        layer.register_forward_hook(count(name, layer.weight.shape[0]))
        for name, layer in layers.items()
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return {name: (tuple(layer.weight.shape), positions[name]) for name, layer in layers.items()}


def travel(start: State, end: State, mask: Mask) -> float | None:
    """Mean |end - start| of the kept weights; None where none are kept."""
    moved = torch.cat([(end[name] - start[name])[m].abs() for name, m in mask.items()])
    return float(moved.double().mean()) if len(moved) else None


def travel_by_mask(start: State, end: State, mask: Mask) -> tuple[float | None, float | None]:
    """Mean |end - start| of the weights that a mask keeps, and of those that it prunes.

    Weights of some layers move further than those of others, and masks keep more of some. So both
    means weigh the layers alike, by the weights kept there; a layer that has not both is left out.
    """
    inside = outside = 0.0
    kept = 0
    for name, m in mask.items():
        count = int(m.sum())
        if 0 < count < m.numel():
            moved = (end[name] - start[name]).abs().double()
            inside += count * float(moved[m].mean())
            outside += count * float(moved[~m].mean())
            kept += count
    return (inside / kept, outside / kept) if kept else (None, None)


def sign_agreement(start: State, end: State, mask: Mask) -> float | None:
    """Share of the kept weights with the same sign at start and end; None where none are kept."""
    same = torch.cat([(end[name].sign() == start[name].sign())[m] for name, m in mask.items()])
    return float(same.double().mean()) if len(same) else None


def chance_overlap(layers: Iterable[tuple[int, int, int]]) -> float:
    """About the Jaccard overlap to expect of two masks drawn at random with given layer counts.

    Weights expected in both over weights expected in either: what an overlap is held against, for
    masks of equal density in their layers overlap already by chance. Where no more than a handful
    of weights are kept the mean overlap is higher: 0.1, not 0.053, of one weight in ten with one.
    1 where neither keeps any.

    Args:
        layers: of each layer: weights kept by the one, kept by the other, and weights in all.

    >>> chance_overlap([(50, 50, 100)])  # 25 of 75
    0.3333333333333333
    """
    both = either = 0.0
    for a, b, weights in layers:
        shared = a * b / weights
        both += shared
        either += a + b - shared
    return both / either if either else 1.0
