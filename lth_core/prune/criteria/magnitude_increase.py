"""Magnitude increase: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def magnitude_increase(network: Candidate) -> Scores:
    """|w| - |w0|: weights that shrank most go (Zhou et al. 2019, magnitude increase).

    In a network that was not trained all are equal: a seeded draw decides.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> magnitude_increase(EXAMPLE)["fc.weight"]
    tensor([ 1.0000, -0.5000])
    """
    return network.each(lambda w, initial: w.abs() - initial.abs())
