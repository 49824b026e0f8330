"""Large init: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def large_init(network: Candidate) -> Scores:
    """|w0|: weights that began smallest go (Zhou et al. 2019, large init).

    Before training this is magnitude. Weights that began equal, as signed constants, are drawn.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_init(EXAMPLE)["fc.weight"]
    tensor([1., 1.])
    """
    return network.each(lambda w, initial: initial.abs())
