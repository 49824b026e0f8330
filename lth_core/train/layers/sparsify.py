"""Training of linear layers with their kept weights alone, where few are kept.

The whole network under its mask computes the same, but for rounding: pruned weights are 0. With the
kept weights as a vector, only these are multiplied and stepped, and no mask is applied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lth_core.masks import Mask
from lth_core.models.layers import layer_of, parameter_of
from lth_core.train.layers.sparse import SparseLinear
from lth_core.train.loop import Outcome, Task
from lth_core.train.masking.base import Fixed

MOST_KEPT = 0.1
"""Largest share of kept weights at which a layer is sparse: LeNet-300-100's dense and sparse steps
take as long at 0.2 (docs/scale.md)."""
LEAST_WEIGHTS = 10_000
"""Least number of weights, kept and pruned, of a sparse layer; smaller ones gain nothing."""


@dataclass(frozen=True, slots=True)
class Sparse:
    """A task whose network has sparse layers, and the place of their weights in the whole one's."""

    task: Task
    mask: Mask
    """The mask of the whole network."""

    def widened(self, outcome: Outcome) -> Outcome:
        """An outcome of the sparse network, in the shapes of the whole one."""
        state = dict[str, Tensor]()
        for name, value in outcome.state.items():
            layer, _, last = name.rpartition(".")
            if last == "values" and (weight := parameter_of(layer)) in self.mask:
                state[weight] = torch.zeros(self.mask[weight].shape, dtype=value.dtype)
                state[weight][self.mask[weight]] = value
            else:
                state[name] = value
        return replace(outcome, state=state, mask=self.mask)


def sparsified(task: Task) -> Sparse | None:
    """The task with sparse layers in its network, in place; None where no layer gains by it.

    Only a fixed mask keeps the same weights, a rewind point is a state of the whole network, and a
    user's network may use the weights elsewhere.
    """
    masking, on_cpu = task.masking, task.data.train.x.device.type == "cpu"
    fits = on_cpu and torch.backends.mkl.is_available() and task.spec.precision != "bf16"
    if not fits or type(masking) is not Fixed or task.keep or task.draws:
        return None
    linear = {parameter_of(name): layer for name, layer in task.model.named_modules()
              if type(layer) is nn.Linear}  # fmt: skip
    sparse = [name for name, mask in masking.mask.items() if name in linear and _gains(mask)]
    for name in sparse:
        task.model.set_submodule(layer_of(name), SparseLinear(linear[name], masking.mask[name]))
    rest = {name: mask for name, mask in masking.all_masks.items() if name not in sparse}
    return Sparse(replace(task, masking=Fixed(task.model, rest)), masking.mask) if sparse else None


def _gains(mask: Tensor) -> bool:
    """Whether a linear layer is computed faster with its kept weights alone."""
    return mask.numel() >= LEAST_WEIGHTS and 0 < int(mask.sum()) <= MOST_KEPT * mask.numel()
