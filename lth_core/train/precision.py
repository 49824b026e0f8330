"""Arithmetic and determinism during a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lth_core.spec import Precision


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute forward and backward passes in ``precision``, with cuDNN deterministic.

    On a CPU tf32 is fp32.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    tf32 = precision == "tf32"
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = (
        tf32,
        tf32,
        True,
        False,
    )
    try:
        bf16 = precision == "bf16"
        # No cache: torch would reuse the bf16 copy of each weight in all steps.
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
