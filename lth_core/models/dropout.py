"""Dropout that draws from no global generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lth_core.seeds import generator


class Dropout(nn.Module):
    """``torch.nn.Dropout`` whose draws are a function of (seed, run, name, step).

    Draws are made on the CPU, so that every device drops the same units. A layer that is called
    more than once in a step draws anew in each call.

    Args:
        p: share of entries set to 0 in training, in [0, 1); the others are divided by 1 - p.
        name: the module's name in its network, so that no two layers share draws.
    """

    def __init__(self, p: float, name: str) -> None:
        super().__init__()
        self.p, self.name = p, name
        self.begin_step(0, "0", 0)

    def begin_step(self, seed: int, run: str, step: int) -> None:
        """Set the seed, run and step of the next draws."""
        self._step = (seed, "dropout", run, self.name, step)
        self._calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, with dropped entries, in the same shape."""
        if not self.training or not self.p:
            return x
        stream = generator(*self._step, *([self._calls] if self._calls else []))
        self._calls += 1
        kept = torch.rand(x.shape, generator=stream) >= self.p
        return x * kept.to(x.device, x.dtype) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def replace_dropout(model: nn.Module) -> None:
    """Replace every ``torch.nn.Dropout``, which draws from the global generator, by ``Dropout``."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, Dropout(module.p, name))


def dropout_off(model: nn.Module) -> None:
    """Put every dropout layer in evaluation mode."""
    for module in model.modules():
        if isinstance(module, Dropout | nn.modules.dropout._DropoutNd):
            module.eval()
