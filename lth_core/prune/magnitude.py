"""Magnitude: the smallest trained weights go (Han et al. 2015; Frankle & Carbin 2019)."""

from __future__ import annotations

from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w|, in the weight's shape.

    >>> import torch
    >>> magnitude(torch.tensor([-2.0, 0.5]))
    tensor([2.0000, 0.5000])
    """
    return weight.abs()
