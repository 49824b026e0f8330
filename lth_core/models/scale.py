"""Width multiplier of the model families, and checks of fields that do not apply to them."""

from __future__ import annotations

from dataclasses import fields

from lth_core.errors import SpecError
from lth_core.spec import ModelSpec


def scaled(width: int, multiplier: float) -> int:
    """``width`` units times the multiplier, rounded, at least 1."""
    return max(1, round(width * multiplier))


def check_unused(spec: ModelSpec, *names: str) -> None:
    """Raise a SpecError where a field that the network does not use is not at its default."""
    defaults = {f.name: f.default for f in fields(ModelSpec)}
    for name in names:
        if getattr(spec, name) != defaults[name]:
            rule = f"does not apply to {spec.name}, so it must be {defaults[name]!r}"
            raise SpecError(f"model.{name}", rule, getattr(spec, name))


def check_images(spec: ModelSpec, shape: tuple[int, ...], side: int = 1) -> None:
    """Raise a SpecError unless examples are images of at least ``side`` pixels in each direction.

    Args:
        shape: shape of one example, such as (3, 32, 32).
    """
    if len(shape) != 3 or min(shape[1:]) < side:
        rule = f"needs images of at least {side} pixels a side, not shape {shape}"
        raise SpecError("model.name", rule, spec.name)
