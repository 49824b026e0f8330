"""Pruning = score, scope, keep exactly k."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lth_core.errors import DivergedError, SpecError
from lth_core.masks import Mask, State, layer_of, parameter_of
from lth_core.prune.exact import lowest
from lth_core.prune.magnitude import magnitude
from lth_core.prune.scope import Groups, groups
from lth_core.spec import PruneSpec

__all__ = ["SCORES", "check_score", "compounded", "groups", "lowest", "prune", "requested_density"]

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": magnitude,
}


def prune(trained: State, mask: Mask, spec: PruneSpec, generator: torch.Generator) -> Mask:
    """The next level's mask: of every group's survivors, the lowest-scored share is removed.

    Exactly round(fraction x survivors) weights go from each group. Scores of dead weights are
    never looked at. Layers that the spec ignores keep their mask.

    Args:
        trained: the weights that are scored, by parameter name.
        mask: the survivors so far; every prunable layer in the model's order.
        generator: draws among equal scores.

    Raises:
        DivergedError: a score is NaN.
    """
    score = SCORES[spec.score]
    pruned = dict(mask)
    for layers, fraction in groups([layer_of(name) for name in mask], spec):
        names = [parameter_of(layer) for layer in layers]
        alive = [mask[name] for name in names]
        scores = torch.cat([score(trained[n])[a] for n, a in zip(names, alive, strict=True)])
        if bool(scores.isnan().any()):
            raise DivergedError(f"cannot prune {', '.join(names)}: the trained weights are NaN")
        # A stream for each group: ties in one leave the draws of the next alone, so that masks of
        # different fractions (one-shot levels) are nested.
        stream = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        survives = ~lowest(scores, round(fraction * len(scores)), stream)
        sizes = [int(a.sum()) for a in alive]
        for name, before, part in zip(names, alive, survives.split(sizes), strict=True):
            pruned[name] = before.clone()
            pruned[name][before] = part
    return pruned


def requested_density(sizes: dict[str, int], spec: PruneSpec, level: int) -> float:
    """The density that ``level`` prunings ask for, before rounding to whole weights.

    Args:
        sizes: weights of each prunable layer, in the model's order.
    """
    division: Groups = groups(list(sizes), spec)
    asked = sum(
        sum(sizes[layer] for layer in layers) * (1 - fraction) ** level
        for layers, fraction in division
    )
    return asked / sum(sizes[layer] for layers, _ in division for layer in layers)


def compounded(spec: PruneSpec, level: int) -> PruneSpec:
    """The spec that removes in one pruning what ``level`` iterative ones would have left to go."""

    def once(fraction: float) -> float:
        # Below 1 also where the power is too small for a float to tell.
        return min(1 - (1 - fraction) ** level, 1 - 2**-53)

    return replace(
        spec,
        fraction=once(spec.fraction),
        output_fraction=None if spec.output_fraction is None else once(spec.output_fraction),
        layer_fractions={layer: once(f) for layer, f in spec.layer_fractions.items()},
    )


def check_score(spec: PruneSpec) -> None:
    """Raises SpecError where the score is not known."""
    if spec.score not in SCORES:
        raise SpecError("prune.score", "is not a known score", spec.score, SCORES)
