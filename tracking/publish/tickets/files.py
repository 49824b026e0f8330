"""Files beside a ticket's file in MLflow: how to load it, and a picture of its mask.

A worker draws a picture a level while it trains, so this draws with Pillow, in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from math import ceil, prod, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lth_core.masks import layer_of
from lth_core.ticket import Ticket
from tracking.text import density_text

TICKET, README, PICTURE = "ticket.safetensors", "README.md", "ticket.png"

_WIDTH, _MARGIN, _LINE = 640, 24, 22
"""Width of the picture, its margin, and the height of a line of text, in pixels."""
_SIDE = 360
"""Largest width and height of the first layer's image, in pixels."""
_MOST_KERNELS = 256
"""Largest number of kernels that are drawn, the first ones."""
_WHITE, _INK, _GREY, _BLUE = (255, 255, 255), (33, 37, 41), (108, 117, 125), (0, 114, 178)
_TRACK, _NONE, _ALL = (233, 236, 239), (247, 251, 255), (8, 48, 107)


def ticket_files(ticket: Ticket) -> dict[str, bytes]:
    """The ticket's file, its README and its picture, by name."""
    return {
        TICKET: ticket.to_bytes(),
        README: readme(ticket).encode(),
        PICTURE: picture(ticket),
    }


def readme(ticket: Ticket) -> str:
    """Markdown: how to load the ticket, and its properties."""
    spec = ticket.spec
    kept, all_weights = sum(_kept(ticket)), sum(m.numel() for m in ticket.mask.values())
    rows = {
        "network": f"{spec.model.name} on {spec.data.name}",
        "weights kept": f"{kept:,} of {all_weights:,} in prunable layers, density "
        f"{density_text(ticket.density)}",
        "level": f"{ticket.level}, branch {ticket.branch}",
        "starts from": f"step {ticket.rewind_step} of the dense run, seed {spec.seed}",
        "ticket_digest": f"`{ticket.digest}`",
        "spec_digest": f"`{spec.digest()}`",
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    return (
        f"# {ticket.branch.capitalize()} at {density_text(ticket.density)} of the weights\n\n"
        "```python\n"
        "from lth_core import load_ticket\n"
        f'ticket = load_ticket("{TICKET}")\n'
        "```\n\n"
        "`ticket.model()` is the network with the starting weights, in training mode; call "
        "`ticket.apply_mask(model)` after each step of the optimizer.\n\n"
        f"| | |\n|---|---|\n{table}\n"
        f"`{PICTURE}` shows the density of each layer and, for images, the mask of the first.\n"
    )


def picture(ticket: Ticket) -> bytes:
    """PNG of the layers' densities and, for image inputs, of the first layer's mask."""
    first = first_layer(ticket)
    bars = _MARGIN + _LINE * (2 + len(ticket.mask))
    side = Image.fromarray(_colours(first.shares)) if first else None
    if side:
        scale = max(1, _SIDE // max(side.size))
        side = side.resize((side.width * scale, side.height * scale), Image.Resampling.NEAREST)
        side.thumbnail((_SIDE, _SIDE))
    height = bars + (side.height + 2 * _LINE if side else 0) + _MARGIN
    image = Image.new("RGB", (_WIDTH, height), _WHITE)
    draw = ImageDraw.Draw(image)
    _draw_densities(draw, ticket)
    if first and side:
        draw.text((_MARGIN, bars), first.title, _INK, _font())
        image.paste(side, (_MARGIN, bars + _LINE))
        corners = (_MARGIN - 1, bars + _LINE - 1, _MARGIN + side.width, bars + _LINE + side.height)
        draw.rectangle(corners, outline=_GREY)
        draw.text((_MARGIN, bars + _LINE + side.height + 4), first.legend, _GREY, _font())
    file = BytesIO()
    # A palette takes a quarter of the bytes, and no more time.
    palette = Image.Quantize.FASTOCTREE
    image.quantize(64, palette, dither=Image.Dither.NONE).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """Image of the first layer's mask: shares in [0, 1], (height, width); NaN is empty."""

    title: str
    shares: np.ndarray
    legend: str


def first_layer(ticket: Ticket) -> FirstLayer | None:
    """The first layer's mask as an image; None where the inputs are no images.

    Fully connected: weights kept of each pixel, over channels and units. Convolution: the share of
    each position of a kernel that is kept, over input channels, one kernel a tile.
    """
    if not ticket.mask or len(ticket.example_shape) != 3:
        return None
    mask = next(iter(ticket.mask.values())).cpu()
    channels, height, width = ticket.example_shape
    if mask.ndim == 2 and mask.shape[1] == prod(ticket.example_shape):
        kept = mask.sum(0).view(channels, height, width).sum(0).numpy()
        most, of = int(kept.max()), channels * mask.shape[0]
        return FirstLayer(
            "Weights of the first layer that each pixel keeps",
            kept / max(1, most),
            f"white: none, darkest: {most} of {of}; {int((kept > 0).sum())} of {kept.size} pixels "
            "keep some",
        )
    if mask.ndim == 4:
        shown = mask[:_MOST_KERNELS]
        left_out = f", the first {len(shown)} of {len(mask)}" if len(shown) < len(mask) else ""
        empty = int((~mask.flatten(1).any(1)).sum())
        return FirstLayer(
            f"Weights that the first layer's {len(mask)} kernels keep{left_out}",
            _tiles(shown),
            f"white: none, darkest: all {mask.shape[1]} input channels; {empty} of {len(mask)} "
            "kernels are empty",
        )
    return None


def _tiles(mask: Tensor) -> np.ndarray:
    """Kernels (out, in, h, w) as tiles of (h, w) in rows, one pixel apart."""
    shares = mask.float().mean(1).numpy()
    count, height, width = shares.shape
    columns = ceil(sqrt(count))
    tiles = np.full((-(-count // columns) * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for place, share in enumerate(shares):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        tiles[top : top + height, left : left + width] = share
    return tiles


def _colours(shares: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 colours of shares."""
    none, every, grey = np.array(_NONE), np.array(_ALL), np.array(_TRACK)
    part = shares[..., None]
    colours: np.ndarray = np.where(np.isnan(part), grey, none + (every - none) * part)
    return colours.round().astype(np.uint8)


def _draw_densities(draw: ImageDraw.ImageDraw, ticket: Ticket) -> None:
    """A bar of each layer's density, from 0 to 1."""
    title = f"{density_text(ticket.density)} of the prunable weights, by layer"
    draw.text((_MARGIN, _MARGIN), title, _INK, _font())
    left, right = _MARGIN + 200, _WIDTH - _MARGIN - 150
    for line, (name, share, count) in enumerate(_densities(ticket)):
        top = _MARGIN + _LINE * (line + 1)
        draw.text((_MARGIN, top), name, _INK, _font())
        draw.rectangle((left, top + 3, right, top + 15), _TRACK)
        if share:
            draw.rectangle((left, top + 3, left + (right - left) * share, top + 15), _BLUE)
        text = f"{density_text(share)}  ({count:,})"
        draw.text((right + 10, top), text, _GREY, _font())


def _densities(ticket: Ticket) -> Iterator[tuple[str, float, int]]:
    """Name, density and number of weights kept of each layer, in the network's order."""
    for (name, mask), kept in zip(ticket.mask.items(), _kept(ticket), strict=True):
        layer = layer_of(name)
        yield layer if len(layer) <= 26 else f"…{layer[-25:]}", kept / mask.numel(), kept


def _kept(ticket: Ticket) -> Sequence[int]:
    return [int(mask.count_nonzero()) for mask in ticket.mask.values()]


@lru_cache(maxsize=1)
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(14)
