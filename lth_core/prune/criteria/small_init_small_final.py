"""Small init small final: a criterion of Zhou et al. 2019."""

import torch

from lth_core.prune.candidate import Candidate, Scores
from lth_core.prune.criteria.scale import as_initial


def small_init_small_final(network: Candidate) -> Scores:
    """-max(a|w|, |w0|): what was or became large goes (Zhou et al. 2019, small init small final).

    a brings a layer's final weights to the mean size of its initial ones; before training it is 1,
    and the largest go. In a layer whose weights are all 0, |w0| decides.

    >>> from lth_core.prune.criteria import EXAMPLE
    >>> small_init_small_final(EXAMPLE)["fc.weight"]
    tensor([-1.6000, -1.0000])
    """
    return network.each(lambda w, initial: -torch.maximum(as_initial(w, initial), initial.abs()))
