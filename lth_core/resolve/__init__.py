"""Resolution of specs, and all checks that are made before anything is trained."""

from lth_core.resolve.channels import check_latency
from lth_core.resolve.pins import DataPin, Pins, find_pins, forget_pins
from lth_core.resolve.specs import check_unchanged, resolve

__all__ = [
    "DataPin",
    "Pins",
    "check_latency",
    "check_unchanged",
    "find_pins",
    "forget_pins",
    "resolve",
]
