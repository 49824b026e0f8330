"""Masks that are learned over weights that never train (strong tickets).

edge-popup (Ramanujan et al. 2020): a score for each weight; the highest are kept, and the loss is
differentiated in the scores as if they were the weights' factors (straight through).
supermask (Zhou et al. 2019): each weight is kept with a probability, drawn anew at every step;
here a layer's probabilities sum to what it is to keep, and in evaluation the likeliest are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.prune.candidate import plain
from lth_core.prune.exact import kth_lowest
from lth_core.prune.select import Parts, keep_highest, parts_of
from lth_core.seeds import generator
from lth_core.spec import PruneSpec


class Learned:
    """Trains a score for each prunable weight; every parameter of the network stays as it is.

    At every evaluation exactly as many weights are kept as are asked for; equal scores are drawn.
    The last weight of a layer goes as any other where layers compete, and a layer without survivors
    may come back while scores are learned.

    >>> from lth_core import PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> for score in ("edge-popup", "supermask"):
    ...     prune = PruneSpec(when="never", score=score, fraction=0.5, lr=0.05)
    ...     spec = TicketSpec(train=TrainSpec(steps=20), prune=prune, levels=1)
    ...     *_, level = find_tickets(spec)
    ...     print(level.records()[0]["method"], round(level.ticket.density, 2))
    edge-popup 0.5
    supermask 0.5

    Args:
        model: the network; its weights are overwritten by weight x mask, and come back by the mask.
        seed, level: draw the first scores, and the masks that are tried.
    """

    def __init__(
        self, model: nn.Module, mask: Mask, spec: PruneSpec, seed: int, level: int
    ) -> None:
        self.model, self.spec, self.seed, self.level, self.mask = model, spec, seed, level, mask
        named = dict(model.named_parameters())
        for parameter in named.values():
            parameter.requires_grad_(False)
        self.weights = {name: named[name].requires_grad_() for name in mask}
        self.frozen = {name: w.detach().clone() for name, w in self.weights.items()}
        draws = generator(seed, "mask", "learned", level)
        self.parts: Parts = parts_of(plain(self.frozen, mask), mask, spec, 1.0, draws)
        self.scores = {
            name: nn.Parameter(_first(w, spec.score, draws))
            for name, w in self.weights.items()
            if any(name in names for names, _ in self.parts)
        }
        self._thresholds = [0.0] * len(self.parts)
        self._probabilities: dict[str, Tensor] = {}
        self.settle()

    def trained(self) -> Iterable[nn.Parameter]:
        return self.scores.values()

    def before_forward(self, step: int) -> None:
        """Use the mask of the highest scores, or try one drawn from the probabilities."""
        if self.spec.score == "edge-popup":
            self._use(self._highest())
            return
        self._probabilities = self._summing_to_keep()
        draws = generator(self.seed, "mask", "tried", self.level, step)
        self._use({
            name: torch.rand(p.shape, generator=draws).to(p.device) < p
            for name, p in self._probabilities.items()
        })  # fmt: skip

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Hand the gradient of weight x mask on to the scores."""
        for name, score in self.scores.items():
            gradient = self.weights[name].grad
            assert gradient is not None
            score.grad = gradient * self.frozen[name]
            if self._probabilities:
                p = self._probabilities[name]
                score.grad *= p * (1 - p)  # how a probability follows its score
        for weight in self.weights.values():
            weight.grad = None
        return True

    def after_step(self) -> None:
        return

    def settle(self) -> None:
        """Keep exactly as many weights as are asked for, those of the highest score."""
        scores = {name: score.detach().cpu() for name, score in self.scores.items()}
        everything = {name: torch.ones_like(m) for name, m in self.mask.items()}
        draws = generator(self.seed, "mask", "ties")
        self.mask = keep_highest(scores, everything, self.parts, "weights", draws)
        self._use({name: self.mask[name].to(self.frozen[name].device) for name in self.scores})

    def tensors(self) -> dict[str, Tensor]:
        scores = {f"score/{name}": score for name, score in self.scores.items()}
        masks = {f"mask/{name}": mask for name, mask in self.mask.items()}
        return {
            **scores,
            **masks,
            "thresholds": torch.tensor(self._thresholds, dtype=torch.float64),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, score in self.scores.items():
                score.copy_(tensors[f"score/{name}"])
        self.mask = {name: tensors[f"mask/{name}"] for name in self.mask}
        self._thresholds = tensors["thresholds"].tolist()

    def _highest(self) -> Mask:
        """As `settle`, but equal scores at the threshold are all pruned, to save time."""
        found: Mask = {}
        for names, keep in self.parts:
            flat = torch.cat([self.scores[name].detach().reshape(-1) for name in names])
            chosen = torch.ones_like(flat, dtype=torch.bool)
            if keep < len(flat):
                chosen = flat > kth_lowest(flat, len(flat) - keep)
            found |= self._unflat(names, chosen)
        return found

    def _summing_to_keep(self) -> dict[str, Tensor]:
        """sigmoid(score - t), t so that each part's sum is what it keeps (Newton's method)."""
        found: dict[str, Tensor] = {}
        for i, (names, keep) in enumerate(self.parts):
            flat = torch.cat([self.scores[name].detach().reshape(-1) for name in names])
            for _ in range(50):
                p = torch.sigmoid(flat - self._thresholds[i])
                excess, slope = float(p.sum()) - keep, float((p * (1 - p)).sum())
                if abs(excess) < 0.5 or slope < 1e-3:
                    break
                # At most 1 at a time: far from the root the slope says little.
                self._thresholds[i] += max(-1.0, min(1.0, excess / slope))
            found |= self._unflat(names, p)
        return found

    def _unflat(self, names: Sequence[str], flat: Tensor) -> dict[str, Tensor]:
        """A part's values by parameter, each in its shape."""
        sizes = [self.scores[name].numel() for name in names]
        parts = zip(names, flat.split(sizes), strict=True)
        return {name: part.view(self.scores[name].shape) for name, part in parts}

    def _use(self, mask: Mask) -> None:
        with torch.no_grad():
            for name in self.scores:
                self.weights[name].copy_(self.frozen[name] * mask[name])


def _first(weight: Tensor, score: str, draws: torch.Generator) -> Tensor:
    """Uniform within 1/sqrt(fan in), as the authors of edge-popup draw; 0 for probabilities."""
    if score == "supermask":
        return torch.zeros_like(weight)
    bound = 1 / sqrt(max(1, weight[0].numel()))
    drawn = torch.rand(weight.shape, generator=draws) * 2 * bound - bound
    return torch.empty_like(weight).copy_(drawn)


LEARN: dict[str, str] = {
    "edge-popup": "learned for each frozen weight; the highest stay (Ramanujan et al. 2020)",
    "supermask": "a learned probability for each frozen weight (Zhou et al. 2019)",
}
