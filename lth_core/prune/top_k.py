"""Choice of exactly k entries: the one place where weights are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

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


LARGE = 4096
"""Number of scores from which `kth_lowest` looks near a guess first: fewer are sorted as fast."""
SMALLEST = 1e-30
"""Least lower end of a range in which it looks first: below it differences of scores may be flushed
to 0."""
Range = tuple[float, float]
"""Lowest and highest value."""


def kth_lowest(scores: Tensor, k: int, near: Range | None = None) -> Tensor:
    """The k-th lowest score, (), of (n,) scores, 1 <= k <= n, without sorting them all.

    >>> kth_lowest(torch.tensor([3.0, 1.0, 2.0]), 2)
    tensor(2.)

    Args:
        near: range in which the result may lie, as near that of similar scores: if it does, the
            result is found several times as fast.
    """
    if scores.device.type != "cpu":
        return scores.kthvalue(k).values
    values = scores.numpy()
    if near is not None and near[0] > SMALLEST and len(values) >= LARGE:
        low, high = np.asarray(near, values.dtype)
        above = values - low  # 0 or more exactly where a score is at least `low`
        below = int(np.count_nonzero(above < 0))
        # As unsigned integers the bits of floats of at least 0 are in their order, and those of
        # negative ones are larger: one comparison tells what lies within.
        kind = np.uint64 if values.dtype == np.float64 else np.uint32
        within = np.flatnonzero(above.view(kind) <= (high - low).view(kind))
        if below < k <= below + len(within):
            values, k = values[within], k - below
    # NumPy's partition is about ten times faster than kthvalue on a CPU.
    return torch.from_numpy(np.partition(values, k - 1)[k - 1 : k])[0]


def kth_lowest_of_rows(
    scores: Tensor, ks: Sequence[int], near: Sequence[Range | None] | None = None
) -> Tensor:
    """The k-th lowest score of each row, (P,), of (P, n) scores; each row has its own k.

    >>> kth_lowest_of_rows(torch.tensor([[3.0, 1.0, 2.0], [5.0, 6.0, 4.0]]), [1, 3])
    tensor([1., 6.])

    Args:
        near: as in `kth_lowest`, of each row.
    """
    if scores.device.type == "cpu" and scores.shape[1] >= LARGE:
        rows = zip(scores, ks, near or [None] * len(ks), strict=True)
        each = [kth_lowest(row, k, around) for row, k, around in rows]
        return torch.stack(each) if len(each) > 1 else each[0][None]
    found, start = list[Tensor](), 0
    for k, equal in groupby(ks):  # the rows of a level are neighbors
        end = start + len(list(equal))
        found.append(_kth_lowest_of(scores[start:end], k))
        start = end
    return torch.cat(found) if len(found) > 1 else found[0]


def _kth_lowest_of(scores: Tensor, k: int) -> Tensor:
    if scores.device.type != "cpu":
        return scores.kthvalue(k, 1).values
    return torch.from_numpy(np.partition(scores.numpy(), k - 1, 1)[:, k - 1])
