"""Large final diff sign: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def large_final_diff_sign(network: Candidate) -> Scores:
    """max(0, -w sign(w0)): weights that kept their sign go, then small ones (Zhou et al. 2019).

    Those that kept their sign are equal, and drawn: before training, all.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_final_diff_sign(EXAMPLE)["fc.weight"]
    tensor([2., 0.])
    """
    return network.each(lambda w, initial: (-w * initial.sign()).clamp(min=0))
