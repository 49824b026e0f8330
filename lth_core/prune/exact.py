"""Remove exactly k: the one place where weights are chosen."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest(scores: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Which k entries have the lowest scores; among equal ones the generator draws.

    Args:
        scores: (n,) float32, one per surviving weight; no NaN.
        k: entries to choose, 0 <= k <= n.

    Returns:
        (n,) bool with exactly k True.

    >>> lowest(torch.tensor([3.0, 1.0, 2.0]), 2, torch.Generator().manual_seed(0))
    tensor([False,  True,  True])
    """
    assert 0 <= k <= scores.numel()
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # A full sort would be simpler and, for millions of weights, many times slower.
    threshold = scores.kthvalue(k).values
    chosen = scores < threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    drawn = torch.randperm(len(tied), generator=generator)[: k - int(chosen.sum())]
    chosen[tied[drawn.to(tied.device)]] = True
    return chosen
