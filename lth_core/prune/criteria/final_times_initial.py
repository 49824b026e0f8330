"""Final times initial: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def final_times_initial(network: Candidate) -> Scores:
    """w w0: weights that changed sign go, those that are and were largest last (after Zhou et al.
    2019, who look at signs and at sizes, not at their product).

    Before training this is magnitude.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> final_times_initial(EXAMPLE)["fc.weight"]
    tensor([-2.0000,  0.5000])
    """
    return network.each(lambda w, initial: w * initial)
