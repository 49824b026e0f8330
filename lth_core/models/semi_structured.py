"""Linear layers whose mask is 2:4 in torch's semi-structured form, which some GPUs multiply faster.

Of every four weights in a row two are 0 (Mishra et al. 2021).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from lth_core.errors import SpecError

LEAST_CAPABILITY = (8, 0)
"""Compute capability of the first GPUs that have it: Ampere."""
ROWS, COLUMNS = 32, 64
"""The weight's sizes must be multiples of these in float16 and bfloat16 (CUTLASS's kernels)."""


def semi_structured(
    model: nn.Module, mask: Mapping[str, Tensor], dtype: torch.dtype = torch.float16
) -> nn.Module:
    """A copy of a network on the GPU, in evaluation mode, with its 2:4 layers in the other form.

    Only the layers of `fitting_layers` have it; the others stay dense.

    Args:
        mask: bool of each prunable weight, by parameter name; True = kept.
        dtype: of all weights: float16 or bfloat16.

    Raises:
        SpecError: there is no such GPU, or no layer fits.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if capability is None or capability < LEAST_CAPABILITY:
        rule = "must be a GPU of compute capability 8.0 or higher for the semi-structured form"
        raise SpecError("device", rule, "none" if capability is None else capability)
    fitting = fitting_layers(model, mask)
    if not fitting:
        rule = f"must be 2:4 in a linear layer of {ROWS}n x {COLUMNS}m weights"
        raise SpecError("prune.structure", rule, type(model).__name__)
    model = copy.deepcopy(model).eval().to("cuda", dtype)
    for name in fitting:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch may change how the form is made
            weight = to_sparse_semi_structured(layer.weight.detach())
        layer.weight = nn.Parameter(weight, requires_grad=False)
    return model


def fitting_layers(model: nn.Module, mask: Mapping[str, Tensor]) -> list[str]:
    """Names of the linear layers that have a semi-structured form under the mask."""
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    return [name for name in linear if _fits(mask.get(f"{name}.weight"))]


def _fits(kept: Tensor | None) -> bool:
    """Whether a mask, (out, in) bool, keeps at most two of every four weights in a row."""
    if kept is None or kept.shape[0] % ROWS or kept.shape[1] % COLUMNS:
        return False
    return bool((kept.reshape(-1, 4).sum(1) <= 2).all())
