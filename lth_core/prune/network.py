"""The network to which a score is applied."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from lth_core.masks import Mask, State, masked, ones
from lth_core.models.channels import Channels, channels_of
from lth_core.models.costs import Costs, costs_of
from lth_core.models.dropout import replace_dropout
from lth_core.models.layers import train_norms_alone
from lth_core.prune.structure import rows_as_channels
from lth_core.spec import PruneAfter, Pruning

Scores = dict[str, Tensor]
"""(out, in, ...) float of each prunable layer, by parameter name; the lowest are pruned first."""
Batch = tuple[Tensor, Tensor]
"""Normalized examples (n, ...) float32, and their classes (n,) int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunableNetwork:
    """A network about to be pruned; its tensors here are on the CPU, its copies on any device.

    weights: (out, in, ...) float by parameter name; pruned weights are 0.
    mask: (out, in, ...) bool of every prunable layer in the model's order, the output last.
    initial: the weights at initialization, whatever the rewind point, in the same shapes.
    copy: makes a copy of the network with all its weights and buffers, in training mode.
    batch: draws ``spec.examples`` training examples of each class.
    seed: seed of the replicate.
    channels: finds the network's removable channels.
    costs: finds what the network costs without some of its channels.
    spec: the settings of pruning; `prune` replaces them by its own.
    """

    weights: State
    mask: Mask
    initial: State
    copy: Callable[[], nn.Module] = field(repr=False)
    batch: Callable[[], Batch] = field(repr=False)
    seed: int
    channels: Callable[[], Channels] = field(repr=False)
    costs: Callable[[], Costs] = field(repr=False)
    spec: Pruning = field(default_factory=PruneAfter, repr=False)

    def model(self) -> nn.Module:
        """A copy of the network whose pruned weights are 0.

        Norms are in training mode where `prune.statistics` are the batch's. All else is in
        evaluation mode, so dropout is off: scores are those of the whole network.
        """
        model = self.copy().eval()
        if self.spec.statistics == "batch":
            train_norms_alone(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.mask:
                    parameter.mul_(self.mask[name].to(parameter.device))
        return model

    def score_layers(self, score: Callable[[Tensor, Tensor], Tensor]) -> Scores:
        """Scores of each layer from its weights and initial weights, (out, in, ...) each.

        Pruned ones are 0 in both.
        """
        initial = masked(self.initial, self.mask)
        return {name: score(w, initial[name]) for name, w in self.weights.items()}

    def with_mask(self, mask: Mask) -> PrunableNetwork:
        """The network under a sparser mask.

        Args:
            mask: (out, in, ...) bool each, by parameter name; a subset of the current mask.
        """
        return replace(self, weights=masked(self.weights, mask), mask=mask)


def from_model(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Mask | None = None,
    seed: int = 0,
    spec: Pruning | None = None,
    initial: State | None = None,
) -> PrunableNetwork:
    """A prunable network from a model and examples, for scores in a notebook.

    Args:
        x, y: (n, ...) float32 normalized examples, and their classes (n,) int64.
        mask: (out, in, ...) bool each, by parameter name; None: every prunable weight survives.
        initial: weights at initialization, a copy of `model.state_dict()` from before training;
            None: the model's own, as before training.

    >>> network = from_model(nn.Linear(2, 3), torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    >>> {name: tuple(w.shape) for name, w in network.weights.items()}
    {'weight': (3, 2)}
    """
    spec = spec or PruneAfter()
    mask = {n: m.cpu() for n, m in (mask or ones(model, spec.include)).items()}
    weights = {n: p.detach().cpu().clone() for n, p in model.named_parameters() if n in mask}
    before = {n: initial[n].detach().cpu() for n in mask} if initial else masked(weights, mask)

    def copy() -> nn.Module:
        replace_dropout(copied := deepcopy(model))
        return copied.train()

    return PrunableNetwork(
        weights=masked(weights, mask), mask=mask, initial=before,
        copy=copy, batch=lambda: (x, y), seed=seed,
        channels=lambda: channels_of(model, tuple(x.shape[1:])),
        costs=lambda: costs_of(model, tuple(x.shape[1:])), spec=spec,
    )  # fmt: skip


def from_weights(
    weights: State, mask: Mask | None = None, initial: State | None = None, seed: int = 0
) -> PrunableNetwork:
    """A prunable network of weights alone, for scores that need nothing else.

    Its channels are the outputs of each layer, which no other layer is known to read.

    Args:
        weights, initial: (out, in, ...) float each, by parameter name.
        mask: bool of the same shapes; None: every weight survives.
    """

    def absent() -> NoReturn:
        raise AssertionError("this prunable network has weights, but no model")

    known = mask or {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    return PrunableNetwork(
        weights=masked(weights, known), mask=known, initial=initial or weights, copy=absent,
        batch=absent, seed=seed, channels=lambda: rows_as_channels(known), costs=absent,
    )  # fmt: skip
