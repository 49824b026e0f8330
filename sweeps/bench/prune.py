"""Benchmark of pruning: exact top-k, masks in the store, memory of a long chain of levels."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import torch
from safetensors.torch import save

from lth_core import Trainer, find_tickets
from lth_core.masks import pack_bits
from lth_core.models.latency import torch_threads
from lth_core.prune import prune
from lth_core.prune.network import from_weights
from lth_core.prune.top_k import lowest
from lth_core.spec import ModelSpec, PruneAfter, TicketSpec, TrainSpec
from lth_core.store import open_store
from sweeps.bench.baselines.turns import take_turns
from sweeps.bench.sweep import resident_mib

LAYERS, SIDE = 25, 1000
"""Layers of SIDE x SIDE weights: 25 million in all, as many as ResNet-50 has."""
FRACTION = 0.2
ROUNDS = 5
EARLY, LATE = 5, 20
"""Levels of a chain between which its memory is compared."""
CHAIN_MIB = 8.0
"""Most MiB that it may grow by; a state of the network that stayed at each level would be 34."""


@dataclass(frozen=True)
class PruneBench:
    """Cost of one level's pruning, one thread.

    weights: number of weights.
    top_k_seconds: CPU seconds for the exact choice of the lowest fifth of the scores.
    prune_seconds: CPU seconds for a whole pruning: scores of all layers, choice and new mask.
    mask_seconds: wall time for masks to be packed and written, durably, to a store's folder.
    """

    weights: int
    top_k_seconds: float
    prune_seconds: float
    mask_seconds: float

    @property
    def mask_mb_per_second(self) -> float:
        """Megabytes of bool masks, one byte a weight, that are packed and written in a second."""
        return self.weights / 1e6 / self.mask_seconds


def bench_prune(layers: int = LAYERS, side: int = SIDE, rounds: int = ROUNDS) -> PruneBench:
    """Cost of a global pruning of layers of side x side weights."""
    draw = torch.Generator().manual_seed(0)
    weights = {
        f"layer{number}.weight": torch.randn(side, side, generator=draw) for number in range(layers)
    }
    scores = torch.cat([w.flatten() for w in weights.values()]).abs()
    network, spec = from_weights(weights), PruneAfter(scope="global", fraction=FRACTION)
    k = round(FRACTION * len(scores))

    def ties() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    with torch_threads(1), tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        store, mask = open_store(folder), prune(network, spec, ties())

        def write() -> None:
            packed = {f"mask/{name}": pack_bits(m) for name, m in mask.items()}
            store.put("trainings", "0" * 64, {}, {"mask.safetensors": save(packed)})

        computed = {
            "top_k": lambda: lowest(scores, k, ties()),
            "prune": lambda: prune(network, spec, ties()),
        }
        seconds = take_turns(computed, rounds)
        seconds |= take_turns({"mask": write}, rounds, time.perf_counter)  # a disk is waited for
    return PruneBench(len(scores), *(median(seconds[name]) for name in ("top_k", "prune", "mask")))


def bench_chain(levels: int = LATE) -> list[float]:
    """Resident MiB of another process after each level of a small search, level 0 first."""
    with tempfile.TemporaryDirectory(
        prefix="lth-bench-"
    ) as folder:  # deleted if the child is killed
        program = f"from sweeps.bench.prune import print_chain; print_chain({levels}, {folder!r})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
    return [float(line) for line in done.stdout.splitlines()]


def print_chain(levels: int, folder: str) -> None:
    """Search for tickets on the digits, and print this process's resident MiB after each level.

    The trainer's caches are nearly full at level 5. Freed memory that the C library keeps for later
    use is returned before each measurement: how much it keeps varies.

    Args:
        folder: of the store.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: None)
    spec = TicketSpec(
        model=ModelSpec(name="mlp", widths=(1000, 500)),
        train=TrainSpec(steps="20it", evaluate_every="20it"), levels=levels,
    )  # fmt: skip
    for level in find_tickets(spec, Trainer(open_store(folder), "cpu")):
        _ = level.records
        trim(0)
        print(resident_mib(os.getpid()), flush=True)  # noqa: T201
