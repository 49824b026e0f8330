"""Independent random streams from the seed of a replicate.

Every draw in lth_core names its purpose (``"init"``, ``"order"``, ``"mask"``, ...), so no two
purposes share numbers, and a new purpose changes no other. Nothing draws from a global generator;
what a user's network or factory draws from one is seeded (`seeded_draws`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for ``purpose``, a path such as ``("order", level, epoch)``."""
    path = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator for ``purpose``, on the CPU so that all devices use the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded_draws(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python in the block, then restore them.

    Torch's are those of the CPU and of the accelerator in use. Code in the block draws the same
    numbers for the same seed, and the draws of other code do not change.

    Args:
        seed: 63 bits, as from `derive`.
    """
    accelerators: list[Any] = [torch.cuda] if torch.cuda.is_initialized() else []
    accelerators += [torch.mps] if torch.backends.mps.is_available() else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cpu_state = torch.get_rng_state()
    accelerator_states = [module.get_rng_state() for module in accelerators]
    try:
        torch.default_generator.manual_seed(seed)
        for module in accelerators:
            module.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        torch.set_rng_state(cpu_state)
        for module, state in zip(accelerators, accelerator_states, strict=True):
            module.set_rng_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def is_global_generator(value: object) -> bool:
    """Whether a value is a generator of Python or numpy that `seeded_draws` seeds."""
    return any(value is getattr(draw, "__self__", None) for draw in (random.random, np.random.rand))
