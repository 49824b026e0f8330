"""Random: every weight is as likely to go."""

from __future__ import annotations

import torch

from lth_core.prune.candidate import Candidate, Scores
from lth_core.seeds import generator


def random(network: Candidate) -> Scores:
    """Uniform in [0, 1): every weight is as likely to go, whatever its layer (Liu et al. 2022).

    One draw a seed, whatever the density: sparser masks lie within denser ones. No two weights are
    equal but by chance; the last weight of a layer goes as any other.

    >>> import torch
    >>> from lth_core.prune.candidate import plain
    >>> score = random(plain({"fc.weight": torch.zeros(1000)}, seed=1))["fc.weight"]
    >>> 0.45 < float(score.mean()) < 0.55
    True
    """
    return {
        name: torch.rand(w.shape, generator=generator(network.seed, "mask", "score", name))
        for name, w in network.weights.items()
    }
