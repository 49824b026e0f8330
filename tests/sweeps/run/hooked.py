"""Network of a user's own that does something in the middle of a training; tests copy this file
beside their study."""

import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lth_core.spec import ModelSpec

PLACE = Path(__file__).parent
"""The copy's folder."""
STEP = 10
"""Forward passes after which it happens."""


class Net(nn.Sequential):
    """A linear network that counts its forward passes in training."""

    def __init__(self, features: int, classes: int, hook: Any) -> None:
        super().__init__(nn.Flatten(), nn.Linear(features, classes))
        self.hook, self.passes = hook, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training
        if self.training and self.passes == STEP:
            self.hook()
        return super().forward(x)


def once(name: str) -> bool:
    """Whether this is the first time that something is done."""
    mark = PLACE / name
    is_first = not mark.exists()
    mark.touch()
    return is_first


def _net(shape: tuple[int, ...], classes: int, hook: Any) -> nn.Module:
    return Net(shape[0] * shape[1] * shape[2], classes, hook)


def debugged(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return _net(shape, classes, lambda: breakpoint() if once("debugged") else None)


def interrupted(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network that is interrupted once, as by Ctrl-C."""
    return _net(
        shape, classes, lambda: os.kill(os.getpid(), signal.SIGINT) if once("interrupted") else None
    )


def out_of_memory(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    def hook() -> None:
        if once("out_of_memory"):
            raise MemoryError("so many bytes")

    return _net(shape, classes, hook)


def always_out_of_memory(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    def hook() -> None:
        raise MemoryError("so many bytes")

    return _net(shape, classes, hook)
