"""The mask criteria of "Deconstructing lottery tickets" (Zhou et al. 2019), besides magnitude.

Each compares a weight's final value with its initial one. In a network that was not trained the two
are the same: there the criteria of movement find all weights equal, and a seeded draw decides. A
layer of one survivor, or of none, is scored as any other: a score looks at one weight, and at most
at its layer's means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lth_core.prune.candidate import Candidate, Scores, plain

EXAMPLE = plain(
    {"fc.weight": torch.tensor([-2.0, 0.5])}, initial={"fc.weight": torch.tensor([1.0, 1.0])}
)
"""Two weights that began at 1: one crossed 0 and grew, one shrank."""


def small_final(network: Candidate) -> Scores:
    """-|w|: the largest weights go (Zhou et al. 2019, small final).

    >>> small_final(EXAMPLE)["fc.weight"]
    tensor([-2.0000, -0.5000])
    """
    return network.each(lambda w, initial: -w.abs())


def large_init(network: Candidate) -> Scores:
    """|w0|: weights that began smallest go (Zhou et al. 2019, large init).

    >>> large_init(EXAMPLE)["fc.weight"]
    tensor([1., 1.])
    """
    return network.each(lambda w, initial: initial.abs())


def small_init(network: Candidate) -> Scores:
    """-|w0|: weights that began largest go (Zhou et al. 2019, small init).

    >>> small_init(EXAMPLE)["fc.weight"]
    tensor([-1., -1.])
    """
    return network.each(lambda w, initial: -initial.abs())


def large_init_large_final(network: Candidate) -> Scores:
    """min(a|w|, |w0|): what was or became small goes (Zhou et al. 2019, large init large final).

    a brings a layer's final weights to the mean size of its initial ones.

    >>> large_init_large_final(EXAMPLE)["fc.weight"]
    tensor([1.0000, 0.4000])
    """
    return network.each(lambda w, initial: torch.minimum(_as_initial(w, initial), initial.abs()))


def small_init_small_final(network: Candidate) -> Scores:
    """-max(a|w|, |w0|): what was or became large goes (Zhou et al. 2019).

    >>> small_init_small_final(EXAMPLE)["fc.weight"]
    tensor([-1.6000, -1.0000])
    """
    return network.each(lambda w, initial: -torch.maximum(_as_initial(w, initial), initial.abs()))


def magnitude_increase(network: Candidate) -> Scores:
    """|w| - |w0|: weights that shrank most go (Zhou et al. 2019, magnitude increase).

    >>> magnitude_increase(EXAMPLE)["fc.weight"]
    tensor([ 1.0000, -0.5000])
    """
    return network.each(lambda w, initial: w.abs() - initial.abs())


def movement(network: Candidate) -> Scores:
    """|w - w0|: weights that moved least go (Zhou et al. 2019, movement).

    >>> movement(EXAMPLE)["fc.weight"]
    tensor([3.0000, 0.5000])
    """
    return network.each(lambda w, initial: (w - initial).abs())


def final_times_initial(network: Candidate) -> Scores:
    """w w0: weights that changed sign go, those that are and were largest last (magnitude's rival
    in "Deconstructing lottery tickets", Zhou et al. 2019, by its product).

    >>> final_times_initial(EXAMPLE)["fc.weight"]
    tensor([-2.0000,  0.5000])
    """
    return network.each(lambda w, initial: w * initial)


def large_final_same_sign(network: Candidate) -> Scores:
    """max(0, w sign(w0)): weights that changed sign go, then small ones (Zhou et al. 2019).

    >>> large_final_same_sign(EXAMPLE)["fc.weight"]
    tensor([0.0000, 0.5000])
    """
    return network.each(lambda w, initial: (w * initial.sign()).clamp(min=0))


def large_final_diff_sign(network: Candidate) -> Scores:
    """max(0, -w sign(w0)): weights that kept their sign go, then small ones (Zhou et al. 2019).

    >>> large_final_diff_sign(EXAMPLE)["fc.weight"]
    tensor([2., 0.])
    """
    return network.each(lambda w, initial: (-w * initial.sign()).clamp(min=0))


def _as_initial(w: Tensor, initial: Tensor) -> Tensor:
    """|w|, scaled to the mean size of |w0|; a layer whose weights are all 0 stays so."""
    size = w.abs()
    mean = size.mean()
    return size * (initial.abs().mean() / mean) if mean > 0 else size
