"""How the mask of a run is kept: it stays, changes while the weights train, or is all that trains.

The loop calls, at every step, `before_forward`, `before_step` (gradients are there) and
`after_step`; and `settle` before it evaluates. Forward and backward know nothing of masks: pruned
weights are 0 in the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask


class Masking(Protocol):
    """The calls of the loop; `mask` is the current mask."""

    mask: Mask

    def trained(self) -> Iterable[nn.Parameter]:
        """The parameters that the optimizer steps."""

    def before_forward(self, step: int) -> None:
        """Step number ``step`` begins."""

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Gradients are there; False: leave the optimizer's step out."""

    def after_step(self) -> None:
        """Weights have moved: make the pruned ones 0 again."""

    def settle(self) -> None:
        """Put the mask at hand into the network, to be evaluated."""

    def tensors(self) -> dict[str, Tensor]:
        """The state beside the network and the optimizer that has changed since the run's start."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave."""


class Fixed:
    """The mask stays; it is applied once after every step.

    So a pruned weight is exactly 0 whatever momentum, weight decay or Adam made of it.
    """

    def __init__(self, model: nn.Module, mask: Mask) -> None:
        self.model = model
        self.set(mask)

    def set(self, mask: Mask) -> None:
        """Another mask from now on."""
        self.mask = mask
        self._weights, self._masks = masked_parameters(self.model, mask)

    def trained(self) -> Iterable[nn.Parameter]:
        return self.model.parameters()

    def before_forward(self, step: int) -> None:
        return

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        return True

    def after_step(self) -> None:
        if self._weights:
            torch._foreach_mul_(self._weights, self._masks)

    def settle(self) -> None:
        return

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        return


def masked_parameters(model: nn.Module, mask: Mask) -> tuple[list[Tensor], list[Tensor]]:
    """The weights that have a pruned entry, and their masks as floats, in the same layout."""
    parameters = dict(model.named_parameters())
    sparse = [name for name, m in mask.items() if not bool(m.all())]
    weights = [parameters[name].detach() for name in sparse]
    masks = [torch.empty_like(w).copy_(mask[n]) for n, w in zip(sparse, weights, strict=True)]
    return weights, masks
