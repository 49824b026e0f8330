"""Checks that a network trains on its data, and that scores can be taken of it.

Trials of a study share most parts of their specs, so each check is made once. The specs of networks
and pruning are pinned: a network that a notebook defines anew is another one.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import torch
from torch import nn

from lth_core import data, models
from lth_core.errors import DivergedError, SpecError
from lth_core.models.check import (
    check_draws,
    check_ids,
    check_last_batch,
    check_network,
    check_second_derivatives,
)
from lth_core.models.layers import (
    layers_without_units,
    made_up_examples,
    norm_scales,
    takes_ids,
)
from lth_core.plugins import errors_as_spec_errors
from lth_core.prune import groups, scores
from lth_core.prune.network import from_model
from lth_core.resolve.pins import prunable_shapes
from lth_core.seeds import derive, generator, seeded_draws
from lth_core.spec import DataSpec, ModelSpec, PruneBase, Pruning
from lth_core.spec.prune_base import GATES


@lru_cache(maxsize=1024)
def check_layers(spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: PruneBase) -> None:
    """Check that every pattern names a layer, and that the pruned layers have such units."""
    shapes = prunable_shapes(spec, shape, classes, prune.include)
    pruned = {layer for layers, _ in groups(shapes, prune) for layer in layers}
    if prune.structure != "weights" and spec.name not in models.MODELS:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        without = [n for n in layers_without_units(model, prune.include) if n in pruned]
        if without:
            rule = f"must be weights, or prune.ignore must name {', '.join(without)}: units are of "
            rule += "linear layers and convolutions"
            raise SpecError("prune.structure", rule, prune.structure)


@lru_cache(maxsize=256)
def check_training(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, include: tuple[str, ...]
) -> None:
    """Check that a user's network trains, and that its weights depend on the seed."""
    if spec.name not in models.MODELS:

        def build(seed: int) -> nn.Module:
            return models.build(spec, shape, classes, generator(seed, "structure"))

        check_network(build, spec.name, shape, classes, include)
        if spec.init == "as_built":
            check_draws(build, spec.name, include)


@lru_cache(maxsize=256)
def check_token_ids(spec: ModelSpec, data_spec: DataSpec, fingerprint: str) -> None:
    """Check that a user's network on token ids has data with ids, and takes them.

    Args:
        fingerprint: of the data, for the cache.
    """
    if spec.name in models.MODELS:
        return
    _, shape, classes = data.outline(data_spec)
    model = models.build(spec, shape, classes, generator(0, "structure"))
    if takes_ids(model):
        if data_spec.normalize != "dataset":
            rule = f"must be 'dataset', because {spec.name} takes token ids"
            raise SpecError("data.normalize", rule, data_spec.normalize)
        check_ids(model, spec.name, data_spec.name, data.extreme_examples(data_spec))


@lru_cache(maxsize=256)
def check_scores(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: Pruning, predictors: bool
) -> None:
    """Check that scores and predictors can be taken of a user's network."""
    # Gates are not in the network yet; `add_gates` checks their places.
    names = {prune.score, prune.scope.removeprefix("like:")} - {"magnitude", GATES}
    taken = [name for name in sorted(names) if name in scores.SCORES or ":" in name]
    if spec.name in models.MODELS or not (taken or predictors):
        return
    model = models.build(spec, shape, classes, generator(0, "structure"))
    if "grasp" in taken:
        check_second_derivatives(model, "prune.score", "grasp", shape, classes)
    if predictors:
        check_second_derivatives(model, "predictors", "true", shape, classes)
    with seeded_draws(derive(0, "examples")):
        x = made_up_examples(model, 2, shape)
    network = from_model(model, x, torch.arange(2) % classes, spec=prune)
    rule = f"must be a score that can be taken of {spec.name}"
    for name in taken:
        with suppress(DivergedError), errors_as_spec_errors("prune.score", rule, name):
            scores.scores_of(network, name)


@lru_cache(maxsize=256)
def check_penalty(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, norm_penalty: float
) -> None:
    """Check that a network has the batch norms that a penalty is on."""
    if norm_penalty:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        if not norm_scales(model):
            rule = f"needs batch norm with scales, which {spec.name} lacks, so it must be 0"
            raise SpecError("train.norm_penalty", rule, norm_penalty)


@lru_cache(maxsize=256)
def check_smallest_batch(
    spec: ModelSpec,
    shape: tuple[int, ...],
    classes: int,
    examples: int,
    batch_size: int,
    field: str,
) -> None:
    """Check that a network trains on an epoch's last batch, which may be one example.

    Args:
        field: of the batch size, for the error.
    """
    if examples % batch_size == 1 or batch_size == 1:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        check_last_batch(model, spec.name, shape, examples, batch_size, field)
