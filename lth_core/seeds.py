"""Independent random streams from the seed of a replicate.

Every draw in lth_core names its purpose (``"init"``, ``"order"``, ``"mask"``, ...), so no two
purposes share numbers, and a new purpose changes no other. Nothing draws from a global generator;
what a user's network or factory draws from one is seeded (`lth_core.models.draws`).
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for ``purpose``, a path such as ``("order", level, epoch)``."""
    path = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator for ``purpose``, on the CPU so that all devices use the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
