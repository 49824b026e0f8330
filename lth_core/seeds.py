"""One replicate seed -> independent streams of randomness.

Every draw in lth_core names its purpose (``"init"``, ``"order"``, ``"mask"``, ...), so no two
purposes share numbers and adding one never shifts another. Nothing reads or sets a global seed.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for ``purpose``, a path such as ``("order", level, epoch)``."""
    path = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for ``purpose``. On the CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(derive(seed, *purpose))
