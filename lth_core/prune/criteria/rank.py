"""What makes final and initial weights comparable: their ranks in their layer."""

import torch
from torch import Tensor


def rank(values: Tensor) -> Tensor:
    """Share of a layer's values that are no larger, in (0, 1], float64; equal ones share a rank,
    and NaN stays so.

    >>> rank(torch.tensor([3.0, 1.0, 1.0, 7.0]))
    tensor([0.7500, 0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    order = values.reshape(-1).sort().values
    below = torch.searchsorted(order, values.contiguous(), right=True).double()
    return (below / max(1, len(order))).masked_fill(values.isnan(), torch.nan)
