"""Final times initial: a criterion of Zhou et al. 2019."""

from lth_core.prune.candidate import Candidate, Scores


def final_times_initial(network: Candidate) -> Scores:
    """w w0: weights that changed sign go, those that are and were largest last (magnitude's rival
    in "Deconstructing lottery tickets", Zhou et al. 2019, by its product).

    Before training this is magnitude.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> final_times_initial(EXAMPLE)["fc.weight"]
    tensor([-2.0000,  0.5000])
    """
    return network.each(lambda w, initial: w * initial)
