"""Pruning: score the survivors, divide them by scope, keep exactly k of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from lth_core.masks import Mask, layer_of, parameter_of, survivors
from lth_core.prune.budget import budget_at, kept_within_budget
from lth_core.prune.network import PrunableNetwork, Scores
from lth_core.prune.schedules import SCHEDULES
from lth_core.prune.scope import erk, groups
from lth_core.prune.scores import ROUNDS, SUMMED, scores_of
from lth_core.prune.structure import ChannelUnits, Units, WeightUnits, highest_n_of_m
from lth_core.prune.top_k import lowest
from lth_core.spec import PruneBefore, PruneDuring, Pruning
from lth_core.spec.prune_base import CHANNELS, TEMPERATURE, PruneBase

S = TypeVar("S", bound=PruneBase)

Quotas = list[tuple[list[str], int]]
"""Sets of units that compete with each other, by parameter name, and the number that they keep."""


def prune(network: PrunableNetwork, spec: Pruning, generator: torch.Generator) -> Mask:
    """The network's survivors, less the lowest-scored share that one level removes.

    Exactly round(fraction x survivors) units of each group are pruned; a unit is a weight, a
    channel or a neuron. Scores of pruned weights are ignored. Layers in no group keep their mask,
    but for inputs that are removed channels. With several rounds, the survivors are scored again
    after each.

    Args:
        generator: draws among equal scores.

    Returns:
        (out, in, ...) bool of each prunable layer, by parameter name.

    Raises:
        DivergedError: a score is NaN.
    """
    network = replace(network, spec=spec)
    start = network.mask
    rounds = (spec.rounds or ROUNDS.get(spec.score, 1)) if isinstance(spec, PruneBefore) else 1
    mask = pruned_to(network, start, spec, 1 / rounds, generator)
    for done in range(2, rounds + 1):
        network = network.with_mask(mask)
        mask = pruned_to(network, start, spec, done / rounds, generator)
    return mask


def pruned_to(
    network: PrunableNetwork,
    start: Mask,
    spec: Pruning,
    progress: float,
    generator: torch.Generator,
) -> Mask:
    """The survivors at ``progress`` in [0, 1] between ``start`` and the level's density.

    Args:
        start: (out, in, ...) bool of each prunable layer, by parameter name.

    Returns:
        A mask in the shapes of ``start``.
    """
    scores = scores_of(network, spec.score)
    if spec.pattern:
        pruned = dict(network.mask)
        for layers, _ in groups(shapes_of(start), spec):
            for name in map(parameter_of, layers):
                pruned[name] = highest_n_of_m(
                    scores[name], pruned[name], *spec.pattern, generator=generator
                )
        return pruned
    units = units_of(network, spec)
    if spec.budget:
        assert isinstance(units, ChannelUnits)
        return kept_within_budget(network, units, scores, progress, generator)
    quotas = quotas_of(network, start, spec, progress, generator)
    return keep_highest(scores, network.mask, quotas, units, generator, spec.score in SUMMED)


def keep_highest(
    scores: Scores,
    mask: Mask,
    quotas: Quotas,
    units: Units,
    generator: torch.Generator,
    summed: bool = False,
) -> Mask:
    """The mask that keeps the k highest-scored units of each group.

    Args:
        scores, mask: (out, in, ...) float and bool of each layer, by parameter name.
        quotas: sets of units that compete, and their k.
        summed: whether a unit's score is the sum over its weights, else the mean.

    Returns:
        A mask in the shapes of ``mask``.
    """
    kept: dict[str, Tensor] = {}
    for names, keep in quotas:
        alive = [units.alive(mask, name) for name in names]
        values = torch.cat(
            [
                survivors(units.scores(scores, mask, name, summed), a)
                for name, a in zip(names, alive, strict=True)
            ]
        )
        # Each group has its own stream: ties in one do not change the draws of the next, so that
        # masks of different fractions (one-shot levels) are nested.
        stream = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        survives = ~lowest(values, len(values) - keep, stream)
        sizes = [int(a.count_nonzero()) for a in alive]
        for name, a, stays in zip(names, alive, survives.split(sizes), strict=True):
            kept[name] = a.clone().masked_scatter_(a, stays)
    return units.mask(kept, mask)


def quotas_of(
    network: PrunableNetwork,
    start: Mask,
    spec: Pruning,
    progress: float,
    generator: torch.Generator,
) -> Quotas:
    """Sets of units that compete, and the number that they keep at ``progress`` in [0, 1].

    Args:
        start: (out, in, ...) bool of each prunable layer, by parameter name.
    """
    units = units_of(network, spec)
    at_start, now = _alive(start, units), _alive(network.mask, units)
    name_given = spec.schedule if isinstance(spec, (PruneBefore, PruneDuring)) else None
    schedule = SCHEDULES[name_given or "exponential"]
    quotas: Quotas = []
    for layers, fraction in groups(shapes_of(start), spec):
        names = units.names([parameter_of(layer) for layer in layers])
        if not names:  # their channels cannot be removed
            continue
        density = schedule(progress, 1 - fraction)
        # 1 - (1 - f) is not always f.
        pruned = fraction if density == 1 - fraction else 1 - density
        total = sum(at_start[name] for name in names)
        keep = min(total - round(pruned * total), sum(now[name] for name in names))
        if len(names) > 1 and spec.scope not in ("global", "layerwise"):
            kept = _counts_by_layer(network, names, keep, spec, generator)
            quotas += [([name], count) for name, count in zip(names, kept, strict=True)]
        else:
            quotas.append((names, keep))
    return quotas


def _counts_by_layer(
    network: PrunableNetwork,
    names: Sequence[str],
    keep: int,
    spec: Pruning,
    generator: torch.Generator,
) -> list[int]:
    """Number of units that each layer keeps under a scope that fixes the layers' densities."""
    units = units_of(network, spec)
    alive = _alive(network.mask, units)
    now = [alive[name] for name in names]
    if spec.scope == "erk":
        shapes = {name: network.mask[name].shape for name in names}
        return erk(shapes, now, keep, spec.structure)
    score = spec.scope.removeprefix("like:")
    # A fraction of the current survivors, not of those at the start; below 1, as in specs.
    fraction = min(1 - keep / max(1, sum(now)), 1 - 2**-53)
    changes = {"score": score, "scope": "global", "fraction": fraction, "temperature":
               spec.temperature if score == "grasp" else TEMPERATURE}  # fmt: skip
    by_score = PruneBefore(
        **{**spec.shared(), **changes},
        rounds=ROUNDS.get(score, 1),
        schedule=spec.schedule if isinstance(spec, PruneBefore) else None,
    )
    kept = _alive(prune(network, by_score, generator), units)
    return [kept[name] for name in names]


def units_of(network: PrunableNetwork, spec: PruneBase) -> Units:
    """The units of the spec's structure, in the layers that it prunes.

    Channels that can only be removed together with those of another layer are units if the spec
    prunes all these layers.
    """
    if spec.structure not in CHANNELS:
        return WeightUnits()
    division = groups(shapes_of(network.mask), spec)
    pruned = [parameter_of(layer) for layers, _ in division for layer in layers]
    return ChannelUnits(network.channels()).within(pruned)


def _alive(mask: Mask, units: Units) -> dict[str, int]:
    """Number of units with a survivor in each set."""
    return {name: int(units.alive(mask, name).count_nonzero()) for name in units.names(list(mask))}


def shapes_of(mask: Mask) -> dict[str, tuple[int, ...]]:
    """Weight shape of each prunable layer."""
    return {layer_of(name): tuple(m.shape) for name, m in mask.items()}


def requested_density(shapes: Mapping[str, Sequence[int]], spec: PruneBase, level: int) -> float:
    """Density after ``level`` prunings by the spec, in [0, 1], before rounding to whole units.

    Fractions are of units: where units of several sizes compete (channels under a global scope),
    the achieved density in weights may be far from this.

    Args:
        shapes: weight shape of each prunable layer, in the model's order.
    """
    division = groups(shapes, compounded(spec, level)) if level else [(list(shapes), 0.0)]
    sizes = {layer: torch.Size(shape).numel() for layer, shape in shapes.items()}
    kept = sum(
        sum(sizes[layer] for layer in layers) * (1 - fraction) for layers, fraction in division
    )
    return kept / sum(sizes[layer] for layers, _ in division for layer in layers)


def at_level(spec: S, level: int) -> S:
    """The spec of one pruning, from the previous level to this one.

    A budget is a share of the dense network at every level, so levels multiply it.
    """
    if not spec.densities:
        return replace(spec, budget=budget_at(spec, level)) if spec.budget else spec
    before = spec.densities[level - 2] if level > 1 else 1.0
    return replace(spec, densities=(), fraction=1 - spec.densities[level - 1] / before)


def compounded(spec: S, level: int) -> S:
    """The spec that removes in one pruning the share that ``level`` iterative ones remove."""
    if spec.budget:
        return at_level(spec, level)

    def compound(fraction: float) -> float:
        # Below 1 also where the power is below a float's precision. One level keeps its fraction:
        # 1 - (1 - f) is not always f.
        return fraction if level == 1 else min(1 - (1 - fraction) ** level, 1 - 2**-53)

    return replace(
        spec,
        densities=(),
        fraction=1 - spec.densities[level - 1] if spec.densities else compound(spec.fraction),
        output_fraction=None if spec.output_fraction is None else compound(spec.output_fraction),
        layer_fractions={layer: compound(f) for layer, f in spec.layer_fractions.items()},
    )
