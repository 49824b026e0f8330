"""Small final: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def small_final(network: Candidate) -> Scores:
    """-|w|: the largest weights go (Zhou et al. 2019, small final).

    Equal weights are drawn.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_final(EXAMPLE)["fc.weight"]
    tensor([-2.0000, -0.5000])
    """
    return network.each(lambda w, initial: -w.abs())
