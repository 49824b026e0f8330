"""Small init: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def small_init(network: Candidate) -> Scores:
    """-|w0|: weights that began largest go (Zhou et al. 2019, small init).

    Weights that began equal, as signed constants, are drawn.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_init(EXAMPLE)["fc.weight"]
    tensor([-1., -1.])
    """
    return network.each(lambda w, initial: -initial.abs())
