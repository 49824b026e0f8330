"""Masks learned over frozen weights (strong tickets): the base of edge-popup and supermask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.prune.network import from_weights
from lth_core.prune.select import Quotas, keep_highest, quotas_of
from lth_core.prune.structure import WeightUnits
from lth_core.seeds import generator
from lth_core.spec import Pruning
from lth_core.train.masking.base import Masking

Tensors = Mapping[str, Tensor]
"""Tensors by parameter name."""


class Learned(ABC):
    """Trains a score for each prunable weight; every parameter of the network is frozen.

    Every evaluation keeps exactly the requested number of weights; ties are broken by a draw. Where
    layers compete, the last weight of a layer may be pruned, and an empty layer may regain weights
    while scores are learned.

    Args:
        model: the network; its weights are overwritten by weight x mask at each step.
        mask: (out, in, ...) bool by parameter name; names the prunable layers.
        seed, level: seed the first scores, and the masks drawn at each step.
    """

    def __init__(self, model: nn.Module, mask: Mask, spec: Pruning, seed: int, level: int) -> None:
        self.model, self.spec, self.seed, self.level, self.mask = model, spec, seed, level, mask
        named = dict(model.named_parameters())
        for parameter in named.values():
            parameter.requires_grad_(False)
        self.weights = {name: named[name].requires_grad_() for name in mask}
        self.frozen = {name: w.detach().clone() for name, w in self.weights.items()}
        draws = generator(seed, "mask", "learned", level)
        network = from_weights({name: w.cpu() for name, w in self.frozen.items()}, mask)
        self.quotas: Quotas = quotas_of(network, mask, spec, 1.0, draws)
        self.scores = {
            name: nn.Parameter(self.initial_scores(w, draws))
            for name, w in self.weights.items()
            if any(name in names for names, _ in self.quotas)
        }
        self.apply_mask()

    @abstractmethod
    def initial_scores(self, weight: Tensor, draws: torch.Generator) -> Tensor:
        """Initial scores of a layer, from its weight (out, in, ...), in the same shape."""

    @classmethod
    @abstractmethod
    def step_masks(cls, members: Sequence[Self], scores: Tensors, step: int) -> Tensors:
        """Masks of P networks for the loss of a step: (P, out, in, ...) of 0 and 1, as floats.

        Args:
            members: the networks' methods, (P,), with scores of the same layers.
            scores: their scores, (P, out, in, ...) of each layer.
        """

    @classmethod
    def score_gradients(
        cls, members: Sequence[Self], name: str, scores: Tensor, gradients: Tensor
    ) -> Tensor:
        """Gradients of a layer's scores, from those of its masks, all (P, out, in, ...)."""
        return gradients

    def ranking(self, score: Tensor) -> Tensor:
        """Values that rank a layer's weights, highest kept, in the shape of ``score``."""
        return score

    def trained(self) -> Iterable[nn.Parameter]:
        return self.scores.values()

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        scores = {name: score[None] for name, score in self.scores.items()}
        masks = self.step_masks([self], scores, step)
        self._apply({name: mask[0] for name, mask in masks.items()})

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Set the gradients of the scores from those of weight x mask."""
        for name, score in self.scores.items():
            gradient = self.weights[name].grad
            if gradient is not None:  # else the network skipped the layer in this step
                gradients = gradient.mul_(self.frozen[name])[None]
                score.grad = self.score_gradients([self], name, score[None], gradients)[0]
        for weight in self.weights.values():
            weight.grad = None
        return True

    def after_step(self) -> None:
        return

    def apply_mask(self) -> None:
        """Apply the mask that keeps exactly the requested number of highest-scored weights."""
        scores = {name: self.ranking(score.detach()).cpu() for name, score in self.scores.items()}
        full = {name: torch.ones_like(m) for name, m in self.mask.items()}
        draws = generator(self.seed, "mask", "ties")
        self.mask = keep_highest(scores, full, self.quotas, WeightUnits(), draws)
        self._apply({name: self.mask[name].to(self.frozen[name]) for name in self.scores})

    def after_evaluation(self, accuracy: float | None) -> None:
        return

    def finish(self) -> None:
        return

    def tensors(self) -> dict[str, Tensor]:
        scores = {f"score/{name}": score for name, score in self.scores.items()}
        masks = {f"mask/{name}": mask for name, mask in self.mask.items()}
        return scores | masks

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, score in self.scores.items():
                score.copy_(tensors[f"score/{name}"])
        self.mask = {name: tensors[f"mask/{name}"] for name in self.mask}

    @classmethod
    def by_layer(cls, names: Sequence[str], flat: Tensor, scores: Tensors) -> dict[str, Tensor]:
        """Values (P, n) of competing layers by layer, in the shapes of their scores."""
        sizes = [scores[name][0].numel() for name in names]
        parts = zip(names, flat.split(sizes, 1), strict=True)
        return {name: part.reshape(scores[name].shape) for name, part in parts}

    def _apply(self, mask: Tensors) -> None:
        """Set each weight to its frozen value x mask, (out, in, ...) of 0 and 1 as floats.

        torch computes with floats several times as fast as with bools.
        """
        with torch.no_grad():
            for name in self.scores:
                torch.mul(self.frozen[name], mask[name], out=self.weights[name])


def in_rows(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors (P, ...) of competing layers as (P, n)."""
    parts = [tensor.flatten(1) for tensor in tensors]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


class LearnedStack:
    """Masks of P networks that are learned as one computation.

    From its creation on, the scores of the members are views into stacked tensors. Other calls than
    `before_forward` and `before_step` are those of the members.

    Args:
        members: methods of one class, with scores of the same layers.
        parameters: the networks' stacked parameters, (P, ...) by name.
    """

    def __init__(self, members: Sequence[Learned], parameters: Tensors) -> None:
        self._members, self._method = members, type(members[0])
        self._weights = {name: parameters[name] for name in members[0].weights}
        self.scores = shared([member.scores for member in members])
        self._frozen = {
            name: torch.stack([member.frozen[name] for member in members]) for name in self.scores
        }

    @torch.no_grad()
    def before_forward(self, step: int) -> None:
        """Apply the masks of a step to the networks' weights."""
        masks = self._method.step_masks(self._members, self.scores, step)
        for name, mask in masks.items():
            torch.mul(self._frozen[name], mask, out=self._weights[name])

    @torch.no_grad()
    def before_step(self) -> None:
        """Set the gradients of the stacked scores from those of weight x mask."""
        for name, score in self.scores.items():
            gradient = self._weights[name].grad
            if gradient is not None:
                score.grad = self._method.score_gradients(
                    self._members, name, score, gradient.mul_(self._frozen[name])
                )


def learned_together(maskings: Sequence[Masking], parameters: Tensors) -> LearnedStack | None:
    """The stack of methods of one class with the same competing layers; None for others."""
    members = [masking for masking in maskings if isinstance(masking, Learned)]
    alike = {(type(each), str([names for names, _ in each.quotas])) for each in members}
    if len(members) < len(maskings) or len(alike) > 1:
        return None
    return LearnedStack(members, parameters)


def shared(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the tensors of several networks, (P, ...) by name; theirs become views into it."""
    stacks: dict[str, Tensor] = {}
    for name, first in members[0].items():
        stacked = torch.stack([tensors[name].detach() for tensors in members])
        for tensors, part in zip(members, stacked, strict=True):
            tensors[name].data = part
        stacks[name] = stacked.requires_grad_(first.requires_grad)
    return stacks
