"""Training of gates alone, over weights that stay as they are (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core.masks import Mask
from lth_core.models.gates import GATE
from lth_core.spec import PruneGates


class Gates:
    """Trains the gates of a network in [0, 1]; weights, biases and norms stay as they are.

    The loss has a penalty on the mean gate. Batch norm uses the batch's statistics and keeps its
    running ones up to date. The final gates are those of the evaluation with the highest validation
    accuracy among those with few enough gates above 0; where none has, those of the last. The mask
    keeps every weight: `prune` removes the channels.

    >>> from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec, find_tickets
    >>> spec = TicketSpec(
    ...     data=DataSpec(name="digits"), model=ModelSpec(name="resnet-8", width=0.25),
    ...     train=TrainSpec(steps=20), levels=1, branches=("ticket",),
    ...     prune=PruneSpec(when="gates", structure="channels", scope="global",
    ...                     budget={"flops": 0.5}, gate_steps=40, gate_every=20),
    ... )
    >>> *_, level = find_tickets(spec)
    >>> record = level.records[0]
    >>> record["method"], record["flops"] <= 0.5 * record["dense_flops"]
    ('gates', True)

    Args:
        model: a network with gates, in place.
        mask: (out, in, ...) bool of each prunable layer, by parameter name.
    """

    def __init__(self, model: nn.Module, mask: Mask, spec: PruneGates) -> None:
        self.mask, self.spec = mask, spec
        named = dict(model.named_parameters())
        self.gates = {name: gate for name, gate in named.items() if name.endswith(GATE)}
        for name, parameter in named.items():
            parameter.requires_grad_(name in self.gates)
        self.best, self.best_accuracy = self._copies(), -1.0

    def trained(self) -> Iterable[nn.Parameter]:
        return self.gates.values()

    def before_forward(self, step: int) -> None:
        return

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        """Add the gradient of penalty x (mean gate - keep_share)^2, mean over the gates' sizes."""
        count = sum(gate.numel() for gate in self.gates.values())
        mean = torch.stack([gate.abs().sum() for gate in self.gates.values()]).sum() / count
        slope = 2 * self.spec.penalty * (mean - self.spec.keep_share) / count
        for gate in self.gates.values():
            assert gate.grad is not None
            gate.grad += slope * gate.sign()
        return True

    def after_step(self) -> None:
        """Clamp every gate to [0, 1]."""
        for gate in self.gates.values():
            gate.clamp_(0, 1)

    def apply_mask(self) -> None:
        return

    def after_evaluation(self, accuracy: float | None) -> None:
        """Keep the gates if they are the best so far, or if none have been few enough."""
        assert accuracy is not None
        open_ = sum(int((gate != 0).sum()) for gate in self.gates.values())
        few = open_ <= self.spec.keep_share * sum(gate.numel() for gate in self.gates.values())
        if few and accuracy > self.best_accuracy:
            self.best, self.best_accuracy = self._copies(), accuracy
        elif self.best_accuracy < 0:
            self.best = self._copies()

    def finish(self) -> None:
        """Give the network the best gates."""
        with torch.no_grad():
            for name, gate in self.gates.items():
                gate.copy_(self.best[name])

    def tensors(self) -> dict[str, Tensor]:
        return {**self.best, "accuracy": torch.tensor(self.best_accuracy, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.best = {name: tensors[name] for name in self.best}
        self.best_accuracy = float(tensors["accuracy"])

    def _copies(self) -> dict[str, Tensor]:
        return {name: gate.detach().clone() for name, gate in self.gates.items()}
