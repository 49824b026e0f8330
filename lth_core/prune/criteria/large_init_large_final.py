"""Large init large final: a criterion of Zhou et al. 2019."""

import torch

from lth_core.prune.candidate import Candidate, Scores
from lth_core.prune.criteria.scale import as_initial


def large_init_large_final(network: Candidate) -> Scores:
    """min(a|w|, |w0|): what was or became small goes (Zhou et al. 2019, large init large final).

    a brings a layer's final weights to the mean size of its initial ones; before training it is 1,
    and this is magnitude. In a layer whose weights are all 0, all are equal, and drawn.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> large_init_large_final(EXAMPLE)["fc.weight"]
    tensor([1.0000, 0.4000])
    """
    return network.each(lambda w, initial: torch.minimum(as_initial(w, initial), initial.abs()))
