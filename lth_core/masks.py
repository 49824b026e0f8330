"""Masks: a bool tensor per prunable parameter, by parameter name; True = kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lth_core.models.layers import layer_of, parameter_of, prunable_layers

__all__ = [
    "Mask", "State", "chance_overlap", "counts", "density", "digest", "kept", "layer_of", "masked",
    "nested", "ones", "overlap", "pack_bits", "parameter_of", "survivors", "total", "unpack_bits",
]  # fmt: skip

Mask = Mapping[str, Tensor]
"""(out, in, ...) bool of each prunable parameter, by name; True = kept. Read-only, as `State`."""
State = Mapping[str, Tensor]
"""Weights and buffers of a network, each in its own shape, by name.

Read-only: a trainer gives the same one to all that ask for it.
"""


def ones(model: nn.Module, include: Sequence[str] = ()) -> Mask:
    """The full mask of a model: (out, in, ...) bool of each prunable layer, all True.

    Args:
        include: names or patterns of embeddings that are prunable too.
    """
    return {
        parameter_of(name): torch.ones_like(layer.weight, dtype=torch.bool)
        for name, layer in prunable_layers(model, include).items()
    }


def kept(mask: Mask) -> int:
    """Number of weights kept."""
    return sum(int(m.count_nonzero()) for m in mask.values())


def total(mask: Mask) -> int:
    """Number of weights that the mask covers."""
    return sum(m.numel() for m in mask.values())


def density(mask: Mask) -> float:
    """Share of the covered weights that is kept, in [0, 1]."""
    return kept(mask) / max(1, total(mask))


def counts(a: Mask, b: Mask) -> list[tuple[int, int, int]]:
    """Numbers of weights (kept by a, kept by b, in all) of each layer."""
    return [
        (int(a[name].count_nonzero()), int(b[name].count_nonzero()), a[name].numel()) for name in a
    ]


def overlap(a: Mask, b: Mask) -> float:
    """Jaccard overlap: weights kept by both / weights kept by either; 1 where neither keeps any.

    Layers that both masks keep whole are left out: pruning has not chosen there, as in layers that
    it ignores.
    """
    both = either = 0
    for name, kept in a.items():
        shared = int((kept & b[name]).count_nonzero())
        if shared < kept.numel():
            both += shared
            either += int((kept | b[name]).count_nonzero())
    return both / either if either else 1.0


def chance_overlap(layers: Iterable[tuple[int, int, int]]) -> float:
    """Approximate expected Jaccard overlap of two random masks with given layer counts.

    It is the expected number of weights in both over the expected number in either; 1 where neither
    keeps any. Measured overlaps are compared with it, because masks of equal density overlap by
    chance. Where few weights are kept the true expectation is higher: 0.1, not 0.053, for two masks
    that each keep one weight of ten.

    Args:
        layers: as from `counts`.

    >>> chance_overlap([(50, 50, 100)])  # 25 of 75
    0.3333333333333333
    """
    both = either = 0.0
    for a, b, weights in layers:
        if min(a, b) < weights:  # as in `overlap`
            shared = a * b / weights
            both += shared
            either += a + b - shared
    return both / either if either else 1.0


def nested(inner: Mask, outer: Mask) -> bool:
    """Whether every weight that inner keeps is kept by outer."""
    return all(not bool((m & ~outer[name]).any()) for name, m in inner.items())


def masked(state: Mapping[str, Tensor], mask: Mask) -> State:
    """A copy of the state whose pruned weights are exactly 0.

    Args:
        state: tensors by name; those that the mask names have its shapes.
    """
    return {
        name: torch.where(mask[name], value, 0) if name in mask else value.clone()
        for name, value in state.items()
    }


def survivors(values: Tensor, mask: Tensor) -> Tensor:
    """The values at the kept entries, (kept,), in C order.

    Args:
        values: of the mask's shape and device.

    >>> survivors(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([True, False, True]))
    tensor([1., 3.])
    """
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        # NumPy's index is four times faster than torch's on a CPU.
        found = values.numpy()[mask.numpy()]
        # torch gives an empty array the stride 0, with which it cannot be viewed as bytes.
        return torch.from_numpy(found) if found.size else values.new_empty(0)
    return values[mask]


def pack_bits(mask: Tensor) -> Tensor:
    """(n/8 rounded up,) uint8: the n bits of a mask of any shape in C order, little end first."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little"))


def unpack_bits(bits: Tensor, shape: Iterable[int]) -> Tensor:
    """Mask of a shape from its bits.

    Args:
        bits: (n/8 rounded up,) uint8, as from `pack_bits`.

    Returns:
        bool tensor of the shape.
    """
    size = torch.Size(shape)
    flat = np.unpackbits(bits.numpy(), count=size.numel(), bitorder="little")
    return torch.from_numpy(flat.astype(bool)).view(size)


def digest(mask: Mask) -> str:
    """sha256 of names, shapes and bits: equal masks have equal digests, whatever their origin."""
    hashed = hashlib.sha256()
    for name in sorted(mask):
        hashed.update(f"{name}{tuple(mask[name].shape)}".encode())
        hashed.update(pack_bits(mask[name]).numpy().data)
    return hashed.hexdigest()
