"""Dropout that draws from no global generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        self.begin_stacked_step([(seed, run)], step)

    def begin_stacked_step(self, runs: Sequence[tuple[int, str]], step: int) -> None:
        """Set the seed and run of each network of a pack, and the step, of the next draws."""
        self._steps = [(seed, "dropout", run, self.name, step) for seed, run in runs]
        self.choose(None)

    def choose(self, number: int | None) -> None:
        """Draw for one network of the pack from now on; None: for all of them."""
        self._chosen = self._steps if number is None else [self._steps[number]]
        self._calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, with dropped entries, in the same shape."""
        if not self.training or not self.p:
            return x
        if len(self._chosen) > 1:  # within `torch.vmap`, whose hidden dimension is the pack's
            return _StackedDropout.apply(x, self)  # type: ignore[no-any-return]
        return self.stacked(x[None])[0]

    def stacked(self, x: Tensor) -> Tensor:
        """x (P, ...) of a pack's networks, with entries dropped by each network's own draws."""
        return x * self.kept(x) / (1 - self.p) if self.training and self.p else x

    def kept(self, x: Tensor) -> Tensor:
        """Mask of the next draws for x (P, ...): 1 is kept, 0 is dropped; in the type of x."""
        call = [self._calls] if self._calls else []
        self._calls += 1
        streams = (generator(*step, *call) for step in self._chosen)
        kept = torch.stack([torch.rand(x.shape[1:], generator=s) >= self.p for s in streams])
        return kept.to(x.device, x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _StackedDropout(torch.autograd.Function):
    """`Dropout.stacked` under `torch.vmap`, which shows a layer one network's x."""

    @staticmethod
    def forward(x: Tensor, layer: Dropout) -> Tensor:
        raise NotImplementedError("dropout of several networks needs torch.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, None], x: Tensor, layer: Dropout) -> tuple[Tensor, int]:
        return layer.stacked(x.movedim(in_dims[0], 0)), 0


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
