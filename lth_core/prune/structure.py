"""Structure: units, groups of weights that are pruned as a whole.

A unit's score is the mean over its weights.
"""

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


def layers_with_units(shapes: Shapes, spec: PruneBase) -> list[str]:
    """Names of the layers with units of the structure. The output's units are classes, and stay.

    >>> shapes = {"conv": (8, 3, 3, 3), "output": (10, 8)}
    >>> layers_with_units(shapes, PruneBase(structure="channels"))
    ['conv']
    """
    if spec.structure not in ("channels", "neurons"):
        return list(shapes)
    convolution = spec.structure == "channels"
    return [name for name in list(shapes)[:-1] if (len(shapes[name]) > 2) == convolution]


def unit_means(values: Tensor, structure: str) -> Tensor:
    """Mean over each unit's weights, (units,) float, from (out, in, ...).

    >>> unit_means(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), "neurons")
    tensor([2., 0.])
    """
    if structure == "weights":
        return values.reshape(-1)
    return values.flatten(1).mean(1)


def mask_of_units(chosen: Tensor, shape: Sequence[int], structure: str) -> Tensor:
    """The mask (out, in, ...) bool that keeps the chosen units, (units,) bool."""
    if structure == "weights":
        return chosen.reshape(*shape)
    return chosen.reshape(-1, *[1] * (len(shape) - 1)).expand(*shape).clone()


def highest_n_of_m(
    scores: Tensor, alive: Tensor, n: int, m: int, generator: torch.Generator
) -> Tensor:
    """The mask that keeps the n highest-scored of every m weights along the inputs.

    In a convolution the groups are over input channels, for each position of the kernel. A last
    group of fewer than m weights keeps at most n. Ties are broken by a draw (Mishra et al. 2021).

    >>> scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 5.0]])
    >>> highest_n_of_m(scores, torch.ones(1, 5, dtype=torch.bool), 2, 4, torch.Generator())
    tensor([[False,  True,  True, False,  True]])

    Args:
        scores, alive: (out, in, ...) float and bool; weights that are not alive stay pruned.

    Returns:
        (out, in, ...) bool.
    """
    rows = _grouped(torch.where(alive, scores, -torch.inf), m, -torch.inf)
    # Weights are shuffled first: the stable sort then leaves ties in random order.
    shuffle = torch.rand(rows.shape, generator=generator).argsort(1)
    order = rows.gather(1, shuffle).sort(dim=1, descending=True, stable=True).indices
    chosen = torch.zeros_like(rows, dtype=torch.bool)
    chosen.scatter_(1, shuffle.gather(1, order[:, :n]), True)
    return _ungrouped(chosen, alive.shape) & alive


def with_same_counts(like: Tensor, structure: str, rank: Callable[[Tensor], Tensor]) -> Tensor:
    """A mask (out, in, ...) bool that keeps as many units as another: the lowest-ranked ones.

    With N:M, each group of M keeps as many as in the other mask.

    >>> like = torch.tensor([[True, True], [False, False], [False, False]])
    >>> with_same_counts(like, "neurons", lambda kept: torch.tensor([[3.0, 1.0, 2.0]]))
    tensor([[False, False],
            [ True,  True],
            [False, False]])

    Args:
        like: (out, in, ...) bool.
        rank: from the units that ``like`` keeps, (groups, units) bool, to ranks of all units,
            (groups, units) float.
    """
    pattern = pattern_of(structure)
    if pattern:
        kept = _grouped(like, pattern[1], False)
        real = _grouped(torch.ones_like(like), pattern[1], False)
    else:
        kept = (unit_means(like.float(), structure) > 0)[None]
        real = torch.ones_like(kept)
    places = rank(kept).where(real, torch.inf).argsort(1).argsort(1)
    chosen = places < kept.sum(1, keepdim=True)
    if pattern:
        return _ungrouped(chosen, like.shape)
    return mask_of_units(chosen, like.shape, structure)


def _grouped(values: Tensor, m: int, fill: float) -> Tensor:
    """(groups, m): the weights along the inputs, m at a time, the last group padded."""
    inputs_last = values.movedim(1, -1)
    return pad(inputs_last, (0, -inputs_last.shape[-1] % m), value=fill).reshape(-1, m)


def _ungrouped(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The weights (out, in, ...) of `_grouped` rows (groups, m)."""
    out, inputs, *rest = shape
    return rows.reshape(out, *rest, -1)[..., :inputs].movedim(-1, 1)
