"""Structure: units of weights that are pruned as a whole; a unit's score is the mean of its
weights'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lth_core.spec import PruneBase
from lth_core.spec.prune import pattern_of

Shapes = Mapping[str, Sequence[int]]
"""Weight shape of each prunable layer, (out, in, ...), in the model's order."""

STRUCTURES = {
    "weights": "every weight for itself (LeCun et al. 1990)",
    "channels": "output channels (filters) of convolutions, whole (Li et al. 2017)",
    "neurons": "units of linear layers with all their inputs, whole (Mozer & Smolensky 1988)",
    "N:M": "such as 2:4: N of every M weights along the inputs stay (Mishra et al. 2021)",
}


def covered(shapes: Shapes, spec: PruneBase) -> list[str]:
    """Names of the layers with units of the structure; the output's units are classes, and stay.

    >>> covered({"conv": (8, 3, 3, 3), "output": (10, 8)}, PruneBase(structure="channels"))
    ['conv']
    """
    if spec.structure not in ("channels", "neurons"):
        return list(shapes)
    convolution = spec.structure == "channels"
    return [name for name in list(shapes)[:-1] if (len(shapes[name]) > 2) == convolution]


def units(values: Tensor, structure: str) -> Tensor:
    """Mean over each unit's weights, (n,) float, from (out, in, ...).

    >>> units(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), "neurons")
    tensor([2., 0.])
    """
    if structure == "weights":
        return values.reshape(-1)
    return values.flatten(1).mean(1)


def weights_of(chosen: Tensor, shape: Sequence[int], structure: str) -> Tensor:
    """The mask (out, in, ...) bool of chosen units (n,) bool."""
    if structure == "weights":
        return chosen.reshape(*shape)
    return chosen.reshape(-1, *[1] * (len(shape) - 1)).expand(*shape).clone()


def best_of(
    scores: Tensor, alive: Tensor, stay: int, of: int, generator: torch.Generator
) -> Tensor:
    """The mask that keeps the ``stay`` highest of every ``of`` weights along the inputs.

    In a convolution the groups are over input channels, for each position of the kernel. A last
    group with fewer weights keeps up to ``stay`` of them. Ties are broken by a draw (Mishra et al.
    2021).

    >>> scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 5.0]])
    >>> best_of(scores, torch.ones(1, 5, dtype=torch.bool), 2, 4, torch.Generator())
    tensor([[False,  True,  True, False,  True]])

    Args:
        scores, alive: (out, in, ...) float and bool; weights that are not alive stay pruned.

    Returns:
        (out, in, ...) bool.
    """
    rows = _grouped(torch.where(alive, scores, -torch.inf), of, -torch.inf)
    # Weights are shuffled first: the stable sort then leaves ties in random order.
    shuffle = torch.rand(rows.shape, generator=generator).argsort(1)
    order = rows.gather(1, shuffle).sort(dim=1, descending=True, stable=True).indices
    chosen = torch.zeros_like(rows, dtype=torch.bool)
    chosen.scatter_(1, shuffle.gather(1, order[:, :stay]), True)
    return _ungrouped(chosen, alive.shape) & alive


def as_many(like: Tensor, structure: str, order: Callable[[Tensor], Tensor]) -> Tensor:
    """A mask (out, in, ...) bool with as many units as another one: those that `order` ranks first.

    With N:M the numbers are equal in every group.

    >>> like = torch.tensor([[True, True], [False, False], [False, False]])
    >>> as_many(like, "neurons", lambda kept: torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[False, False],
            [ True,  True],
            [False, False]])

    Args:
        like: (out, in, ...) bool.
        order: from the units kept, (groups, units) bool, to ranks (groups, units) float; the lowest
            are kept.
    """
    pattern = pattern_of(structure)
    if pattern:
        kept = _grouped(like, pattern[1], False)
        there = _grouped(torch.ones_like(like), pattern[1], False)
    else:
        kept = (units(like.float(), structure) > 0)[None]
        there = torch.ones_like(kept)
    places = order(kept).where(there, torch.inf).argsort(1).argsort(1)
    chosen = places < kept.sum(1, keepdim=True)
    return _ungrouped(chosen, like.shape) if pattern else weights_of(chosen, like.shape, structure)


def _grouped(values: Tensor, of: int, fill: float) -> Tensor:
    """(groups, of): the weights along the inputs, ``of`` at a time, the last group filled up."""
    last = values.movedim(1, -1)
    return pad(last, (0, -last.shape[-1] % of), value=fill).reshape(-1, of)


def _ungrouped(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The weights (out, in, ...) of `_grouped` rows (groups, of)."""
    out, inputs, *rest = shape
    return rows.reshape(out, *rest, -1)[..., :inputs].movedim(-1, 1)
