"""A network of a user's own that writes down every step that trains it; beside the study's file.

A line is the process, the network, and a digest of the weights and the batch: two steps of one
digest are one step trained twice, and equal trainings have equal lines, to the bit.
"""

import hashlib
import os
import time
import uuid
from pathlib import Path

import torch
from torch import Tensor, nn

from lth_core.spec import ModelSpec

JOURNAL = Path(__file__).with_name("steps.txt")
PAUSE = 0.004
"""Seconds by which a step is longer, so that a training can be hit while the machine rests."""
INTERVAL = 0.1
"""Seconds between two checkpoints of a training, in tests that count steps between them."""
AT_MOST = round(INTERVAL / PAUSE) + 2
"""Steps of a training between two of its checkpoints."""
GATE = Path(__file__).with_name("gate")
"""While it is there, a training stays at its first step."""
TRIES = Path(__file__).with_name("tries.txt")
DEATHS = Path(__file__).with_name("deaths.txt")
DIED = Path(__file__).with_name("died.txt")


class Counted(nn.Sequential):
    """Told apart by a name that it takes at its first step."""

    name = ""

    def takes_a_step(self, x: Tensor) -> bool:
        """Whether a step trains it: a plan tries every network on two examples."""
        return self.training and torch.is_grad_enabled() and len(x) > 2

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_a_step(x) and JOURNAL.exists():
            self.name = self.name or uuid.uuid4().hex
            said = hashlib.blake2b(digest_size=8)
            for value in (x, *self.state_dict().values()):
                said.update(value.contiguous().numpy().tobytes())
            with JOURNAL.open("a") as journal:
                journal.write(f"{os.getpid()} {self.name} {said.hexdigest()}\n")
            time.sleep(PAUSE)
            while GATE.exists():
                time.sleep(PAUSE)
        return super().forward(x)


class Dying(Counted):
    """Ends its process at its first step, as a fault in a library's C++ does."""

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_a_step(x):
            with DEATHS.open("a") as deaths:
                deaths.write(f"{os.getpid()}\n")
            os._exit(139)
        return super().forward(x)


class DyingOnce(Counted):
    """Ends the first process that trains it, at its first step."""

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_a_step(x) and not DIED.exists():
            DIED.touch()
            os._exit(139)
        return super().forward(x)


class Raising(Counted):
    """Has a fault of its own, which tells a password."""

    def forward(self, x: Tensor) -> Tensor:
        if self.takes_a_step(x):
            with TRIES.open("a") as tries:
                tries.write(f"{os.getpid()}\n")
            raise RuntimeError("no such layer\nat https://bob:hunter22@host/x")
        return super().forward(x)


def net(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return Counted(*layers(shape, classes))


def dying(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return Dying(*layers(shape, classes))


def dying_once(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return DyingOnce(*layers(shape, classes))


def raising(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    return Raising(*layers(shape, classes))


def layers(shape: tuple[int, ...], classes: int) -> list[nn.Module]:
    pixels = shape[0] * shape[1] * shape[2]
    return [nn.Flatten(), nn.Linear(pixels, 16), nn.ReLU(), nn.Linear(16, classes)]
