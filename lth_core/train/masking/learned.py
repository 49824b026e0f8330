"""Masks learned over frozen weights (strong tickets): the base of edge-popup and supermask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.prune.network import from_weights
from lth_core.prune.select import Quotas, keep_highest, quotas_of
from lth_core.prune.structure import WeightUnits
from lth_core.seeds import generator
from lth_core.spec import Pruning


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

    @abstractmethod
    def step_mask(self, step: int) -> Mask:
        """The mask for the loss of a step: (out, in, ...) bool of the layers that have scores."""

    def ranking(self, score: Tensor) -> Tensor:
        """Values that rank a layer's weights, highest kept, in the shape of ``score``."""
        return score

    def score_gradient(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of a layer's scores, from that of its mask, in the same shape."""
        return gradient

    def trained(self) -> Iterable[nn.Parameter]:
        return self.scores.values()

    def before_forward(self, step: int) -> None:
        self._apply(self.step_mask(step))

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Set the gradients of the scores from those of weight x mask."""
        for name, score in self.scores.items():
            gradient = self.weights[name].grad
            if gradient is not None:  # else the network skipped the layer in this step
                score.grad = self.score_gradient(name, gradient.mul_(self.frozen[name]))
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
        self._apply({name: self.mask[name].to(self.frozen[name].device) for name in self.scores})

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

    def flat_ranking(self, names: Sequence[str]) -> Tensor:
        """Ranking values of competing layers, (n,) float."""
        parts = [self.ranking(self.scores[name].detach()).reshape(-1) for name in names]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def split_by_layer(self, names: Sequence[str], flat: Tensor) -> dict[str, Tensor]:
        """Values (n,) of competing layers by layer, each (out, in, ...)."""
        sizes = [self.scores[name].numel() for name in names]
        parts = zip(names, flat.split(sizes), strict=True)
        return {name: part.view(self.scores[name].shape) for name, part in parts}

    def _apply(self, mask: Mask) -> None:
        with torch.no_grad():
            for name in self.scores:
                torch.mul(self.frozen[name], mask[name], out=self.weights[name])
