"""Choice of exactly k entries: the one place where weights are chosen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lowest(scores: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The k entries of lowest score; ties are broken by the generator.

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
    threshold = kth_lowest(scores, k)
    chosen = scores < threshold
    tied = (scores == threshold).nonzero().squeeze(1)
    drawn = torch.randperm(len(tied), generator=generator)[: k - int(chosen.count_nonzero())]
    chosen[tied[drawn.to(tied.device)]] = True
    return chosen


NEAR = 0.1
"""Relative distance from a guess within which `kth_lowest` looks first."""
LARGE = 4096
"""Number of scores from which it looks there first: fewer are sorted as fast."""


def kth_lowest(scores: Tensor, k: int, guess: float | None = None) -> Tensor:
    """The k-th lowest score, (), of (n,) scores, 1 <= k <= n, without sorting them all.

    >>> kth_lowest(torch.tensor([3.0, 1.0, 2.0]), 2)
    tensor(2.)

    Args:
        guess: a score of at least 0 that may be near the result, as that of similar scores: if it
            is, the result is found about three times as fast.
    """
    if scores.device.type != "cpu":
        return scores.kthvalue(k).values
    values = scores.numpy()
    if guess is not None and len(values) >= LARGE:
        low, high = guess * (1 - NEAR), guess * (1 + NEAR)
        below = int(np.count_nonzero(values < low))
        near = values[(values >= low) & (values <= high)]
        if below < k <= below + len(near):
            values, k = near, k - below
    # NumPy's partition is about ten times faster than kthvalue on a CPU.
    return torch.from_numpy(np.partition(values, k - 1)[k - 1 : k])[0]
