"""Derivatives of networks whose fast kernels have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Use kernels of recurrent layers that can be differentiated in evaluation mode too.

    cuDNN's cannot; so on a GPU such a network would have no scores by running statistics.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn
    before = cudnn.enabled
    cudnn.enabled = before and not recurrent
    try:
        yield
    finally:
        cudnn.enabled = before


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Use the kernels of attention and recurrent layers that can be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH), differentiable(model):
        yield
