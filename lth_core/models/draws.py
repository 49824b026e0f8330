"""Seeded draws: what networks, factories and scores draw from the global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded_draws(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and Python in the block, then restore them.

    Torch's are those of the CPU and of the accelerator in use. So code that draws from them gives
    the same numbers for the same seed, and no other code's draws change.

    Args:
        seed: 63 bits, as `lth_core.seeds.derive` gives.
    """
    accelerators: list[Any] = [torch.cuda] if torch.cuda.is_initialized() else []
    accelerators += [torch.mps] if torch.backends.mps.is_available() else []
    cpu, python, arrays = torch.get_rng_state(), random.getstate(), np.random.get_state()
    others = [module.get_rng_state() for module in accelerators]
    try:
        torch.default_generator.manual_seed(seed)
        for module in accelerators:
            module.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        torch.set_rng_state(cpu)
        for module, state in zip(accelerators, others, strict=True):
            module.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(arrays)
