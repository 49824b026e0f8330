"""Scores by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lth_core.errors import DivergedError, SpecError
from lth_core.plugins import load_factory, source_fingerprint
from lth_core.prune import synflow
from lth_core.prune.channel_scores import gates, slimming, taylor
from lth_core.prune.criteria import (
    final_times_initial,
    large_final_diff_sign,
    large_final_same_sign,
    large_init,
    large_init_large_final,
    magnitude,
    magnitude_increase,
    magnitude_increase_diff_sign,
    magnitude_increase_same_sign,
    magnitude_squared,
    movement,
    random,
    small_final,
    small_init,
    small_init_small_final,
)
from lth_core.prune.grasp import grasp
from lth_core.prune.network import PrunableNetwork, Scores
from lth_core.prune.snip import snip
from lth_core.seeds import derive, seeded_draws
from lth_core.spec import PruneBase, PruneDuring
from lth_core.spec.prune_base import LEARNED

Score = Callable[[PrunableNetwork], Scores]
"""A function from a network to the scores of its weights."""

SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "magnitude-squared": magnitude_squared,
    "random": random,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow.synflow,
    "movement": movement,
    "magnitude-increase": magnitude_increase,
    "magnitude-increase-same-sign": magnitude_increase_same_sign,
    "magnitude-increase-diff-sign": magnitude_increase_diff_sign,
    "final-times-initial": final_times_initial,
    "large-init": large_init,
    "large-init-large-final": large_init_large_final,
    "large-final-same-sign": large_final_same_sign,
    "large-final-diff-sign": large_final_diff_sign,
    "small-init": small_init,
    "small-final": small_final,
    "small-init-small-final": small_init_small_final,
    "slimming": slimming,
    "taylor": taylor,
    "gates": gates,
}

SUMMED = ("snip", "grasp", "synflow")
"""Scores whose sum over a channel's weights is the channel's; of others it is the mean, so that
layers with large filters do not win by size."""

SWAPS_LAST = "swaps after the step"
"""Fingerprint of SET."""

ROUNDS = {"synflow": synflow.ROUNDS}
"""Rounds of the scores that need more than one."""


def scores_of(network: PrunableNetwork, name: str) -> Scores:
    """The network's scores: (out, in, ...) float of each prunable layer, by parameter name.

    Raises:
        SpecError: a user's own score returns other weights, shapes or types.
        DivergedError: a score is NaN.
    """
    score = SCORES.get(name) or load_factory("prune.score", name)
    with seeded_draws(derive(network.seed, "mask", "draws")):
        scores, checked = score(network), {}
    for parameter, mask in network.mask.items():
        values = scores.get(parameter) if isinstance(scores, dict) else None
        fits = isinstance(values, Tensor) and values.shape == mask.shape
        if not fits or not scores[parameter].is_floating_point():
            rule = f"must give each weight of {parameter} a float, shape {tuple(mask.shape)}"
            raise SpecError("prune.score", rule, name)
        checked[parameter] = scores[parameter].detach().to(mask.device)
        if bool((checked[parameter].isnan() & mask).any()):
            raise DivergedError(f"cannot prune {parameter}: its scores by {name} are NaN")
    return checked


def fingerprint(spec: PruneBase) -> str:
    """Digest of the source of a user's own score; empty for built-in ones, known by name, but for
    those of SET, whose swaps once took the place of a step.

    Raises:
        SpecError: the score, or the score that a scope names, is not known.
    """
    like = spec.scope.removeprefix("like:")
    if like != spec.scope and like not in SCORES:
        raise SpecError("prune.scope", "names no known score", spec.scope, SCORES)
    order = SWAPS_LAST if isinstance(spec, PruneDuring) and spec.grow == "random" else ""
    if spec.score in SCORES or spec.score in LEARNED:
        return order
    if ":" not in spec.score:
        raise SpecError("prune.score", "is not a known score", spec.score,
                        (*SCORES, *LEARNED, "package.module:function"))  # fmt: skip
    return source_fingerprint("prune.score", spec.score) + order
