"""Movement: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def movement(network: Candidate) -> Scores:
    """|w - w0|: weights that moved least go (Zhou et al. 2019, movement).

    In a network that was not trained all are equal: a seeded draw decides.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> movement(EXAMPLE)["fc.weight"]
    tensor([3.0000, 0.5000])
    """
    return network.each(lambda w, initial: (w - initial).abs())
