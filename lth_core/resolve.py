"""From what a user wrote to what is computed: names checked, durations in steps, content pinned."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from lth_core import data, models
from lth_core.branches import BRANCHES
from lth_core.checks import steps_in
from lth_core.data.sources import Outline
from lth_core.errors import SpecError
from lth_core.masks import prunable_layers
from lth_core.prune import check_score, groups
from lth_core.seeds import generator
from lth_core.spec import DataSpec, ModelSpec, TicketSpec


def resolve(spec: TicketSpec) -> TicketSpec:
    """The spec with fingerprints filled in and every duration in steps.

    Reads no named dataset; a folder or a user's own data is read (and kept) to be pinned.

    Raises:
        SpecError: a name is not known, or the rewind point lies past the end of training.
        DataError: data that must be read are absent or broken.
    """
    check_score(spec.prune)
    for branch in spec.branches:
        if branch not in BRANCHES:
            raise SpecError("branches", "is not a known branch", branch, BRANCHES)
    pinned_data, (examples, shape, classes) = _data(spec.data)
    pinned_model, layers = _model(spec.model, shape, classes)
    groups(layers, spec.prune)  # every pattern names a layer
    per_epoch = -(-examples // spec.train.batch_size)
    try:
        train = spec.train.resolved(per_epoch)
    except SpecError as error:  # an epoch's share that rounds to no step
        raise error.under("train") from None
    steps, rewind = steps_in(train.steps), steps_in(spec.rewind, per_epoch)
    if rewind > steps:
        rule = f"must not lie past the end of training, step {steps}"
        raise SpecError("rewind", rule, spec.rewind)
    if rewind == steps and spec.levels:
        rule = f"must leave something to train before step {steps}"
        raise SpecError("rewind", rule, spec.rewind)
    return replace(spec, data=pinned_data, model=pinned_model, train=train, rewind=f"{rewind}it")


@lru_cache(maxsize=256)
def _data(spec: DataSpec) -> tuple[DataSpec, Outline]:
    pinned = replace(data.placed(spec), fingerprint=data.fingerprint(spec))
    return pinned, data.outline(spec)


@lru_cache(maxsize=256)
def _model(
    spec: ModelSpec, shape: tuple[int, ...], classes: int
) -> tuple[ModelSpec, tuple[str, ...]]:
    """The pinned spec and the prunable layers; the network is built to see that it can be."""
    pinned = replace(spec, fingerprint=models.fingerprint(spec))
    model = models.build(spec, shape, classes, generator(0, "structure"))
    return pinned, tuple(prunable_layers(model))
