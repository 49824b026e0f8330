"""A network that notes where and when it is trained; a test puts it onto the machines' path."""

import os
import socket
import sys
import time
from pathlib import Path

import torch
from torch import nn

from lth_core.spec import ModelSpec

NOTES = Path("/srv/notes")
"""A file for each machine; nothing is noted where the folder is not."""
PATIENCE = 480
"""Seconds for the other machine; less than the sweep itself is given, which could not say why."""


class Noted(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > 2 and "default_worker" in sys.argv[0] and NOTES.is_dir():
            note()
        return super().forward(x)


def note() -> None:
    """Say that this process trains; go on when two machines have said so."""
    with (NOTES / socket.gethostname()).open("a") as notes:
        notes.write(f"{time.time():.6f} {os.getpid()}\n")
    patience = time.monotonic() + PATIENCE
    while len(list(NOTES.iterdir())) < 2:
        if time.monotonic() > patience:
            raise RuntimeError("no other machine came")
        time.sleep(0.05)


def noted(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    inputs = shape[0] * shape[1] * shape[2]
    return Noted(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, classes))
