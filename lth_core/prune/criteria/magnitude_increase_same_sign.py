"""Magnitude increase, same sign: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def magnitude_increase_same_sign(network: Candidate) -> Scores:
    """|w| - |w0|, 0 for weights that changed sign: those that shrank go first (Zhou et al. 2019).

    The weights that changed sign are equal, and drawn; before training, all are.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase_same_sign(EXAMPLE)["fc.weight"]
    tensor([ 0.0000, -0.5000])
    """
    return network.each(lambda w, initial: (w.abs() - initial.abs()) * (w.sign() == initial.sign()))
