"""Masks in training: fixed, changed while the weights train, or learned over frozen weights.

At every step the loop calls `before_forward`, `before_step` (after the backward pass) and
`after_step`; before an evaluation it calls `apply_mask`. The forward and backward passes use no
masks: pruned weights are 0 in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
        """Prepare the network for the forward pass of a step."""

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Change gradients or the mask; return whether the optimizer takes its step."""

    def after_step(self) -> None:
        """Set the pruned weights to 0 after the optimizer's step."""

    def apply_mask(self) -> None:
        """Apply the current mask to the network for evaluation."""

    def after_evaluation(self, accuracy: float | None) -> None:
        """Take note of an evaluation's validation accuracy, in [0, 1]."""

    def finish(self) -> None:
        """Give the network its final state, after the last step."""

    def tensors(self) -> dict[str, Tensor]:
        """State for a checkpoint: masks and scores, in the shapes of their weights."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the state from the output of `tensors`."""


class Fixed:
    """A fixed mask, applied once after every step.

    So a pruned weight is exactly 0 whatever momentum, weight decay or Adam added.

    Args:
        mask: (out, in, ...) bool of each prunable layer, by parameter name.
        removed_with: from a mask to those of the biases and norms that it removes, (channels,) bool
            by parameter name.
    """

    def __init__(
        self, model: nn.Module, mask: Mask, removed_with: Callable[[Mask], Mask] = lambda mask: {}
    ) -> None:
        self.model, self._removed_with = model, removed_with
        self.set_mask(mask)

    def set_mask(self, mask: Mask) -> None:
        """Use another mask from now on.

        Args:
            mask: (out, in, ...) bool of each prunable layer, by parameter name.
        """
        self.mask = mask
        self.all_masks: Mask = {**mask, **self._removed_with(mask)}
        """The mask, with those of the biases and norms that it removes."""
        self._weights, self._masks = masked_parameters(self.model, self.all_masks)

    def trained(self) -> Iterable[nn.Parameter]:
        return self.model.parameters()

    def before_forward(self, step: int) -> None:
        return

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        return True

    def after_step(self) -> None:
        if self._weights:
            torch._foreach_mul_(self._weights, self._masks)

    def apply_mask(self) -> None:
        return

    def after_evaluation(self, accuracy: float | None) -> None:
        return

    def finish(self) -> None:
        return

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        return


def masked_parameters(model: nn.Module, mask: Mask) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters with a pruned weight, and their masks as floats, (out, in, ...) in one layout."""
    parameters = dict(model.named_parameters())
    sparse = [name for name, m in mask.items() if not bool(m.all())]
    weights = [parameters[name].detach() for name in sparse]
    masks = [torch.empty_like(w).copy_(mask[n]) for n, w in zip(sparse, weights, strict=True)]
    return weights, masks
