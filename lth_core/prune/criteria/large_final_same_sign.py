"""Large final same sign: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def large_final_same_sign(network: Candidate) -> Scores:
    """max(0, w sign(w0)): weights that changed sign go, then small ones (Zhou et al. 2019).

    Those that changed sign are equal, and drawn. Before training this is magnitude.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_final_same_sign(EXAMPLE)["fc.weight"]
    tensor([0.0000, 0.5000])
    """
    return network.each(lambda w, initial: (w * initial.sign()).clamp(min=0))
