"""Dropout that draws from no global generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.seeds import generator


class Dropout(nn.Module):
    """``torch.nn.Dropout`` whose draws are a function of (seed, run, name, step).

    Draws are made on the CPU, so that every device drops the same units. Each call in training mode
    is one step; ``restart_dropout`` sets seed, run and step.

    Args:
        p: share of entries set to 0 in training, in [0, 1); the others are divided by 1 - p.
        name: the module's name in its network, so that no two layers share draws.
    """

    def __init__(self, p: float, name: str) -> None:
        super().__init__()
        self.p, self.name = p, name
        self.seed, self.run, self.step = 0, "0", 0

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, with dropped entries, in the same shape."""
        if not self.training or not self.p:
            return x
        stream = generator(self.seed, "dropout", self.run, self.name, self.step)
        self.step += 1
        kept = torch.rand(x.shape, generator=stream) >= self.p
        return x * kept.to(x.device, x.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def replace_dropout(model: nn.Module) -> None:
    """Replace every ``torch.nn.Dropout``, which draws from the global generator, by ``Dropout``.

    Raises:
        SpecError: the model has another kind of dropout, whose draws cannot be seeded.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Dropout(module.p, name))
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            rule = "must have no dropout but torch.nn.Dropout, whose draws can be seeded"
            raise SpecError("model.name", rule, f"{name}: {type(module).__name__}")


def restart_dropout(model: nn.Module, seed: int, run: str, step: int) -> None:
    """Set every ``Dropout`` to draw for a run from ``step`` on."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.seed, module.run, module.step = seed, run, step
