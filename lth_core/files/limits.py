"""Limits of a ticket file, checked before a small file can cost much time or memory.

Every check raises a TicketFileError that names the field or tensor.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lth_core.errors import TicketFileError
from lth_core.masks import State
from lth_core.spec import PruneBase
from lth_core.spec.fields import LARGEST

MOST_HEADER = 4 * 2**20
"""Most bytes of a file's header: enough for about 30,000 tensors; ResNet-1202 has 8,400."""

MOST_DIMENSIONS = 8
"""Most dimensions of a weight or of an example."""

MOST_MATCHES, LONGEST_PATTERN = 1_000_000, 1_000
"""Most patterns in ``prune`` times layers, as each pattern is matched with each layer; and most
characters of a pattern."""

WEIGHT_BYTES = 6
"""Bytes of memory for each weight while it is read: 4, and 2 for two copies of its mask."""


def check_file(path: str | os.PathLike[str]) -> None:
    """Check type and header size before safetensors, which waits for pipes and reads any header."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise TicketFileError("must be a regular file, but got a folder, pipe, socket or device")
    with open(path, "rb") as file:
        check_header(int.from_bytes(file.read(8), "little"), status.st_size)


def check_header(length: int, size: int) -> None:
    """Check the length of a header, in bytes, against the size of its file."""
    if length + 8 > size:
        rule = f"is not a whole safetensors file: it must hold its header of {length:,} bytes"
        raise TicketFileError(f"{rule}, but got {size:,} bytes")
    if length > MOST_HEADER:
        raise TicketFileError(
            f"its header must be at most {MOST_HEADER:,} bytes, but got {length:,}"
        )


def check_memory(tensors: State) -> None:
    """Check that the masked weights fit in memory.

    A sparse file takes no space on the disk, and a ticket takes up to 48 times its file's size in
    memory.

    Args:
        tensors: ``mask/NAME`` (n/8 rounded up,) uint8, among others.
    """
    masks = (bits for name, bits in tensors.items() if name.startswith("mask/"))
    check_weights("its masks must cover", 8 * sum(bits.numel() for bits in masks))


def check_weights(rule: str, weights: int) -> None:
    """Check that a number of weights fits in memory.

    Args:
        rule: what has the weights, and a verb.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // WEIGHT_BYTES
    if weights > most:
        limit = f"at most {most:,} weights, the limit of this machine's memory"
        raise TicketFileError(f"{rule} {limit}, but got {weights:,}")


def check_finite(tensors: State) -> None:
    """Check that no value is NaN or infinite.

    Args:
        tensors: of any shape and type, by name in the file.
    """
    for name, value in tensors.items():
        if value.is_floating_point() or value.is_complex():
            finite = torch.isfinite(value)
            if not finite.all():
                got = f"{int((~finite).sum()):,} that are NaN or infinite"
                raise TicketFileError(f"{name}: must hold finite values, but got {got}")


def check_patterns(spec: PruneBase, layers: int) -> None:
    """Check the number and length of the patterns of layers."""
    patterns = [*spec.layer_fractions, *spec.ignore, *spec.include]
    if any(len(pattern) > LONGEST_PATTERN for pattern in patterns):
        raise TicketFileError(f"prune: a layer's name must be at most {LONGEST_PATTERN} characters")
    if len(patterns) * layers > MOST_MATCHES:
        rule = f"prune: names of layers times layers must be at most {MOST_MATCHES:,}"
        raise TicketFileError(f"{rule}, but got {len(patterns):,} x {layers:,}")


def check_sizes(name: str, sizes: object) -> None:
    """Check a shape before anything is computed from it: its product may have a million digits."""
    if (
        not isinstance(sizes, (list, tuple))
        or not 1 <= len(sizes) <= MOST_DIMENSIONS
        or any(type(n) is not int or not 1 <= n <= LARGEST for n in sizes)
    ):
        rule = f"must be 1 to {MOST_DIMENSIONS} sizes of at least 1"
        raise TicketFileError(f"{name}: {rule}, but got {sizes!r:.80}")


@contextmanager
def no_larger_than(model: str, expected_tensors: int, expected_weights: int) -> Iterator[None]:
    """Stop the block from building a built-in network much larger than a file's.

    The spec in a small file may name a network that does not fit in memory. Some builders create a
    layer twice and use the second, so the limit is 4 times the expected size. A user's own factory
    is not limited.

    Args:
        model: name of the network.
        expected_tensors, expected_weights: numbers that the file gives.

    Raises:
        TicketFileError: the network is larger.
    """
    thread = threading.get_ident()  # the hook is called for the networks of every thread
    most_tensors = 4 * expected_tensors + 1_000
    most_weights = 4 * expected_weights + 1_000_000
    tensors = weights = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, weights
        if parameter is None or threading.get_ident() != thread:
            return
        tensors, weights = tensors + 1, weights + parameter.numel()
        if tensors > most_tensors or weights > most_weights:
            raise TicketFileError(f"the ticket does not fit {model}: the network is larger")

    if ":" in model:
        yield
        return
    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
