"""Checks that a network has channels to remove, and that a budget can be met."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from lth_core import models
from lth_core.errors import SpecError
from lth_core.models.channels import Channels
from lth_core.models.costs import Costs, costs_of
from lth_core.models.gates import gated
from lth_core.models.latency import ChannelLatency
from lth_core.models.layers import layer_of, norm_scales, parameter_of
from lth_core.prune import groups
from lth_core.prune.budget import check_budget
from lth_core.prune.scope import fraction_patterns
from lth_core.prune.structure import ChannelUnits, Shapes
from lth_core.resolve.pins import pin_data, prunable_shapes
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, PruneBase, PruneGates, Pruning, TicketSpec
from lth_core.spec.prune_base import LATENCIES


@lru_cache(maxsize=256)
def check_channels(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: Pruning, levels: int
) -> tuple[Costs, Channels]:
    """Check that a network has channels to remove and what a score needs, and that the smallest
    network is within a budget of the last level that is no latency.

    Returns:
        Costs of the network that loses channels, and those that it can lose.
    """
    costs = whole = _costs(spec, shape, classes)
    if isinstance(prune, PruneGates):
        if prune.expand != 1:
            _check_expansion(spec, shape, classes, prune.expand)
        widened = replace(spec, width=spec.width * prune.expand)
        costs = replace(_costs(widened, shape, classes), channels=_gated(widened, shape, classes))
    costs = replace(costs, whole=whole)
    shapes = prunable_shapes(spec, shape, classes, prune.include)
    pruned = [parameter_of(name) for names, _ in groups(shapes, prune) for name in names]
    units = ChannelUnits(costs.channels).within(pruned)
    if not units.channels:
        rule = f"must be the units of a layer of {spec.name} that can be removed"
        raise SpecError("prune.structure", rule, prune.structure, ("weights", "N:M"))
    _check_fractions(shapes, prune, units.channels)
    if prune.score == "slimming":
        _check_scales(spec, shape, classes, units.channels)
    if prune.budget and not is_measured(prune):
        check_budget(costs, prune, units.channels, max(1, levels))
    return costs, units.channels


def _check_expansion(spec: ModelSpec, shape: tuple[int, ...], classes: int, expand: float) -> None:
    """Check that a network grows with its width."""
    try:
        wider = _costs(replace(spec, width=spec.width * expand), shape, classes)
    except SpecError as error:
        if error.field != "model.width":
            raise
        grows = False
    else:
        grows = wider.parameters({}) > _costs(spec, shape, classes).parameters({})
    if not grows:
        rule = f"must be 1, because {spec.name} is not wider with a larger model.width"
        raise SpecError("prune.expand", rule, expand)


def is_measured(prune: PruneBase) -> bool:
    """Whether a budget is a latency, which is measured."""
    return bool(prune.budget.keys() & LATENCIES.keys())


def check_latency(spec: TicketSpec) -> None:
    """Check, by measuring it here, that the smallest network is within a budget of milliseconds.

    Args:
        spec: a resolved spec; without such a budget nothing is measured.

    Raises:
        SpecError: it takes longer, or this machine lacks the device.
    """
    if is_measured(spec.prune):
        _, (_, shape, classes) = pin_data(spec.data)
        costs, channels = check_channels(spec.model, shape, classes, spec.prune, spec.levels)
        check_budget(costs, spec.prune, channels)


# Of large networks these take a second each, so all trials of a study share them.


@lru_cache(maxsize=32)
def _costs(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Costs:
    model = models.build(spec, shape, classes, generator(0, "structure"))
    costs = costs_of(model, shape)
    return replace(costs, latency=ChannelLatency(model, costs.channels, shape))


@lru_cache(maxsize=32)
def _gated(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Channels:
    """Channels of a network that get gates."""
    with_gates = replace(spec, gates=True)
    model = models.build(with_gates, shape, classes, generator(0, "structure"))
    return gated(_costs(spec, shape, classes).channels, model)


def _check_fractions(shapes: Shapes, prune: PruneBase, channels: Channels) -> None:
    """Check that each pattern of `prune.layer_fractions` sets the fraction of some channels, and
    that channels which go together have one fraction."""
    patterns, field = fraction_patterns(shapes, prune), "prune.layer_fractions"
    used = set[str | None]()
    for group in channels.values():
        layers = [layer_of(name) for name in group.producers]
        fractions = {prune.layer_fractions.get(patterns.get(layer, "")) for layer in layers}
        if len(fractions) > 1:
            rule = f"must be equal for layers that lose channels together: {', '.join(layers)}"
            raise SpecError(field, rule, dict(prune.layer_fractions))
        used |= {patterns.get(layer) for layer in layers}
    producers = [layer_of(name) for group in channels.values() for name in group.producers]
    for pattern in prune.layer_fractions:
        if pattern in patterns.values() and pattern not in used:
            rule = f"must match a layer that can lose {prune.structure}"
            raise SpecError(field, rule, pattern, producers)


def _check_scales(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, channels: Channels
) -> None:
    """Check that batch norm has a scale of every channel."""
    model = models.build(spec, shape, classes, generator(0, "structure"))
    scales = {id(scale) for scale in norm_scales(model)}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in scales}
    for name, group in channels.items():
        if not any(part.tensor in named for part in group.parts):
            rule = f"needs batch norm behind every pruned layer, which {layer_of(name)} lacks"
            raise SpecError("prune.score", rule, "slimming")
