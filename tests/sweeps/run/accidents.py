"""Networks of a user's own that misbehave on a worker; tests copy this file beside their study."""

import os
import time
from pathlib import Path

from torch import nn

from lth_core.spec import ModelSpec

PLACE = Path(__file__).parent
"""The copy's folder. `driver` there holds the process id of the one that launches."""


def plain(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))


def on_worker() -> bool:
    return os.getpid() != int((PLACE / "driver").read_text())


def lingers(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Notes the worker, which while it is alone takes a moment: longer than nothing, shorter than
    another's start."""
    if on_worker():
        (PLACE / f"here-{os.getpid()}").touch()
        if len(list(PLACE.glob("here-*"))) < 2:
            time.sleep(1)
    return plain(shape, classes)
