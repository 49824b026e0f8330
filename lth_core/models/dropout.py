"""Dropout that draws from no global generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.seeds import generator


class Dropout(nn.Module):
    """``torch.nn.Dropout`` whose draws are a function of (seed, run, place, step).

    Draws are made on the CPU, so that every device drops the same units. The module counts its own
    calls in training mode, one a step; ``restart_dropout`` sets the run that they belong to.

    Args:
        p: share of entries set to 0 in training, in [0, 1); the others are divided by 1 - p.
        place: the module's name in its network, so that no two layers share draws.
    """

    def __init__(self, p: float, place: str) -> None:
        super().__init__()
        self.p, self.place = p, place
        self.seed, self.run, self.step = 0, "0", 0

    def forward(self, x: Tensor) -> Tensor:
        """x with dropped entries, in its shape, which may be any."""
        if not self.training or not self.p:
            return x
        stream = generator(self.seed, "dropout", self.run, self.place, self.step)
        self.step += 1
        kept = torch.rand(x.shape, generator=stream) >= self.p
        return x * kept.to(x.device, x.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def own_dropout(model: nn.Module) -> None:
    """Replace every ``torch.nn.Dropout``, which draws globally, by ``Dropout``.

    Raises:
        SpecError: there is another kind of dropout, whose draws cannot be seeded.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Dropout(module.p, name))
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            rule = "must have no dropout but torch.nn.Dropout, whose draws can be seeded"
            raise SpecError("model.name", rule, f"{name}: {type(module).__name__}")


def restart_dropout(model: nn.Module, seed: int, run: str, step: int) -> None:
    """Begin a run: dropout draws for (seed, run) from ``step`` on."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.seed, module.run, module.step = seed, run, step
