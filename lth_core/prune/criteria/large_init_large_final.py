"""Large init large final: a criterion of Zhou et al. 2019."""

import torch

from lth_core.prune.candidate import Candidate, Scores
from lth_core.prune.criteria.rank import rank


def large_init_large_final(network: Candidate) -> Scores:
    """min(rank |w|, rank |w0|): what was or became small goes (Zhou et al. 2019).

    Ranks within the layer, as their code has it, which cuts both sizes at one percentile. Where the
    weights of one time are all equal, those of the other decide.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_init_large_final(EXAMPLE)["fc.weight"]
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    return network.each(lambda w, initial: torch.minimum(rank(w.abs()), rank(initial.abs())))
