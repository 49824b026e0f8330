"""How results are kept: a state's blobs in the store, and what a process has at hand."""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import nn

from lth_core import masks, models, ticket
from lth_core.masks import Mask, State
from lth_core.seeds import generator
from lth_core.spec import ModelSpec
from lth_core.store import Entry

STATE, MASK = "state.safetensors", "mask.safetensors"
T = TypeVar("T")


def to_blobs(state: State, mask: Mask) -> dict[str, bytes]:
    """The mask's bits beside the rest, so that comparing masks reads one bit a weight."""
    packed = ticket.pack(state, mask)
    bits = {name for name in packed if name.startswith("mask/")}
    return {
        MASK: save({name: packed[name] for name in sorted(bits)}),
        STATE: save({name: packed[name] for name in packed.keys() - bits}),
    }


def from_blobs(entry: Entry, model: nn.Module) -> tuple[State, Mask]:
    """What `to_blobs` was given.

    Raises:
        CorruptEntryError, SafetensorError, TicketFileError: it is not whole.
    """
    shapes = {name: list(m.shape) for name, m in masks.ones(model).items()}
    return ticket.unpack({**load(entry.blob(MASK)), **load(entry.blob(STATE))}, shapes)


@lru_cache(maxsize=8)
def template(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network for its structure alone: names, shapes, layers."""
    return models.build(spec, shape, classes, generator(0, "template"))


def made_with(device: torch.device) -> dict[str, str]:
    """Versions and device, as a result remembers them."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def recent(cache: OrderedDict[str, T], key: str, make: Callable[[], T], size: int = 16) -> T:
    """The cached value, or the one just made; the least recently used goes."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > size:
        cache.popitem(last=False)
    return cache[key]
