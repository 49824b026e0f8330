"""Small init small final: a criterion of Zhou et al. 2019."""

import torch

from lth_core.prune.candidate import Candidate, Scores
from lth_core.prune.criteria.rank import rank


def small_init_small_final(network: Candidate) -> Scores:
    """min(rank -|w|, rank -|w0|): what was or became large goes (Zhou et al. 2019).

    Ranks within the layer, as their code has it, which cuts both sizes at one percentile. Where the
    weights of one time are all equal, those of the other decide.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_init_small_final(EXAMPLE)["fc.weight"]
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    return network.each(lambda w, initial: torch.minimum(rank(-w.abs()), rank(-initial.abs())))
