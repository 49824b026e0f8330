"""Seeding of the global generators, for networks, factories and scores that draw from them."""

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

    Torch's are those of the CPU and of the accelerator in use. Code in the block draws the same
    numbers for the same seed, and the draws of other code do not change.

    Args:
        seed: 63 bits, as from `lth_core.seeds.derive`.
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
