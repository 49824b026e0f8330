"""Magnitude increase, different sign: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def magnitude_increase_diff_sign(network: Candidate) -> Scores:
    """|w| - |w0|, 0 for weights that kept sign: those that shrank go first (Zhou et al. 2019).

    The weights that kept sign are equal, and drawn: before training, all.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase_diff_sign(EXAMPLE)["fc.weight"]
    tensor([1., -0.])
    """
    return network.each(lambda w, initial: (w.abs() - initial.abs()) * (w.sign() != initial.sign()))
