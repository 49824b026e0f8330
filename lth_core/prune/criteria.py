"""Scores of single weights: magnitude, a random draw, and the mask criteria of "Deconstructing
lottery tickets" (Zhou et al. 2019).

A criterion compares a weight's final value w with its initial value w0. It depends on that weight
alone, or on its rank in its layer. So a layer of one survivor, or of none, is scored as any other.
Weights and scores of a layer are (out, in, ...) float.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lth_core.prune.channel_scores import over_weights
from lth_core.prune.network import PrunableNetwork, Scores, from_weights
from lth_core.seeds import generator
from lth_core.spec.prune_base import CHANNELS

EXAMPLE = from_weights(
    {"fc.weight": torch.tensor([-2.0, 0.5])}, initial={"fc.weight": torch.tensor([1.0, 1.0])}
)
"""Two weights that began at 1: one crossed 0 and grew, one shrank."""


def magnitude(network: PrunableNetwork) -> Scores:
    """|w|: the smallest weights are pruned (Han et al. 2015; Frankle & Carbin 2019).

    Ties are broken by a seeded draw. Globally, the last weight of a layer may be pruned, and a
    layer without survivors stays empty.

    >>> import torch
    >>> from lth_core.prune.network import from_weights
    >>> magnitude(from_weights({"fc.weight": torch.tensor([-2.0, 0.5])}))
    {'fc.weight': tensor([2.0000, 0.5000])}
    """
    return {name: w.abs() for name, w in network.weights.items()}


def random(network: PrunableNetwork) -> Scores:
    """Uniform in [0, 1): every weight of every layer is equally likely to stay (Liu et al. 2022).

    There is one draw for each seed at all densities, so sparser masks are nested in denser ones.
    Scores are equal only by chance. The last weight of a layer may be pruned. Channels are drawn as
    a whole: a mean over weights would vary more in layers with few of them.

    >>> import torch
    >>> from lth_core.prune.network import from_weights
    >>> score = random(from_weights({"fc.weight": torch.zeros(1000)}, seed=1))["fc.weight"]
    >>> 0.45 < float(score.mean()) < 0.55
    True
    """

    def draw(name: str, shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, generator=generator(network.seed, "mask", "score", name))

    if network.spec.structure in CHANNELS:
        return over_weights(network, {n: draw(n, [g.size]) for n, g in network.channels().items()})
    return {name: draw(name, w.shape) for name, w in network.weights.items()}


def magnitude_squared(network: PrunableNetwork) -> Scores:
    """w^2: the order of `magnitude` for weights; channels are ordered by the L2 norm of their
    filters, by `magnitude` by the L1 norm (Li et al. 2017).

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_squared(EXAMPLE)["fc.weight"]
    tensor([4.0000, 0.2500])
    """
    return network.score_layers(lambda w, initial: w.square())


def magnitude_increase(network: PrunableNetwork) -> Scores:
    """|w| - |w0|: weights that shrank most are pruned (Zhou et al. 2019, magnitude increase).

    Before training all scores are equal, and a seeded draw decides.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase(EXAMPLE)["fc.weight"]
    tensor([ 1.0000, -0.5000])
    """
    return network.score_layers(lambda w, initial: w.abs() - initial.abs())


def magnitude_increase_same_sign(network: PrunableNetwork) -> Scores:
    """|w| - |w0|, 0 where the sign changed: those that shrank are pruned first (Zhou et al. 2019).

    Weights that changed sign have equal scores, and a seeded draw decides among them. Before
    training all scores are equal.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase_same_sign(EXAMPLE)["fc.weight"]
    tensor([ 0.0000, -0.5000])
    """
    return network.score_layers(
        lambda w, initial: (w.abs() - initial.abs()) * (w.sign() == initial.sign())
    )


def magnitude_increase_diff_sign(network: PrunableNetwork) -> Scores:
    """|w| - |w0|, 0 where the sign stayed: those that shrank are pruned first (Zhou et al. 2019).

    Weights that kept their sign have equal scores, and a seeded draw decides among them. Before
    training all scores are equal.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase_diff_sign(EXAMPLE)["fc.weight"]
    tensor([1., -0.])
    """
    return network.score_layers(
        lambda w, initial: (w.abs() - initial.abs()) * (w.sign() != initial.sign())
    )


def movement(network: PrunableNetwork) -> Scores:
    """|w - w0|: weights that moved least are pruned (Zhou et al. 2019, movement).

    Before training all scores are equal, and a seeded draw decides.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> movement(EXAMPLE)["fc.weight"]
    tensor([3.0000, 0.5000])
    """
    return network.score_layers(lambda w, initial: (w - initial).abs())


def final_times_initial(network: PrunableNetwork) -> Scores:
    """w w0: weights that changed sign are pruned first, large ones that kept it last (after Zhou et
    al. 2019, who use signs and sizes, not their product).

    Before training this is magnitude.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> final_times_initial(EXAMPLE)["fc.weight"]
    tensor([-2.0000,  0.5000])
    """
    return network.score_layers(lambda w, initial: w * initial)


def large_init(network: PrunableNetwork) -> Scores:
    """|w0|: weights that began smallest are pruned (Zhou et al. 2019, large init).

    Before training this is magnitude. A seeded draw decides among weights of equal initial size,
    as signed constants are.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_init(EXAMPLE)["fc.weight"]
    tensor([1., 1.])
    """
    return network.score_layers(lambda w, initial: initial.abs())


def large_init_large_final(network: PrunableNetwork) -> Scores:
    """min(rank |w|, rank |w0|): weights that were or became small are pruned (Zhou et al. 2019).

    Ranks are within the layer, as in the authors' code, which cuts both sizes at one percentile.
    Where all initial weights are equal the final ones decide, and the reverse.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_init_large_final(EXAMPLE)["fc.weight"]
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    return network.score_layers(
        lambda w, initial: torch.minimum(rank(w.abs()), rank(initial.abs()))
    )


def large_final_same_sign(network: PrunableNetwork) -> Scores:
    """max(0, w sign(w0)): weights that changed sign are pruned, then small ones (Zhou et al. 2019).

    Weights that changed sign have equal scores, and a seeded draw decides among them. Before
    training this is magnitude.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_final_same_sign(EXAMPLE)["fc.weight"]
    tensor([0.0000, 0.5000])
    """
    return network.score_layers(lambda w, initial: (w * initial.sign()).clamp(min=0))


def large_final_diff_sign(network: PrunableNetwork) -> Scores:
    """max(0, -w sign(w0)): weights that kept their sign are pruned, then small ones (Zhou et al.
    2019).

    Weights that kept their sign have equal scores, and a seeded draw decides among them. Before
    training all scores are equal.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_final_diff_sign(EXAMPLE)["fc.weight"]
    tensor([2., 0.])
    """
    return network.score_layers(lambda w, initial: (-w * initial.sign()).clamp(min=0))


def small_init(network: PrunableNetwork) -> Scores:
    """-|w0|: weights that began largest are pruned (Zhou et al. 2019, small init).

    A seeded draw decides among weights of equal initial size, as signed constants are.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_init(EXAMPLE)["fc.weight"]
    tensor([-1., -1.])
    """
    return network.score_layers(lambda w, initial: -initial.abs())


def small_final(network: PrunableNetwork) -> Scores:
    """-|w|: the largest weights are pruned (Zhou et al. 2019, small final).

    Ties are broken by a seeded draw.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_final(EXAMPLE)["fc.weight"]
    tensor([-2.0000, -0.5000])
    """
    return network.score_layers(lambda w, initial: -w.abs())


def small_init_small_final(network: PrunableNetwork) -> Scores:
    """min(rank -|w|, rank -|w0|): weights that were or became large are pruned (Zhou et al. 2019).

    Ranks are within the layer, as in the authors' code, which cuts both sizes at one percentile.
    Where all initial weights are equal the final ones decide, and the reverse.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_init_small_final(EXAMPLE)["fc.weight"]
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return network.score_layers(
        lambda w, initial: torch.minimum(rank(-w.abs()), rank(-initial.abs()))
    )


def rank(values: Tensor) -> Tensor:
    """Share of a layer's values that are no larger, in (0, 1], float64, in the shape of ``values``.

    Equal values share a rank, and NaN stays NaN.

    >>> rank(torch.tensor([3.0, 1.0, 1.0, 7.0]))
    tensor([0.7500, 0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    order = values.reshape(-1).sort().values
    below = torch.searchsorted(order, values.contiguous(), right=True).double()
    return (below / max(1, len(order))).masked_fill(values.isnan(), torch.nan)
