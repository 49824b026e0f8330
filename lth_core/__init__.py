"""The science: find lottery tickets, in a notebook or under a sweep.

for level in find_tickets(TicketSpec()):
    print(level)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lth_core.errors import LthError
    from lth_core.files.export import load_compact
    from lth_core.lottery import find_tickets
    from lth_core.spec import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
    from lth_core.store import open_store
    from lth_core.ticket import Ticket, load_ticket
    from lth_core.train import Trainer

    __version__: str

__all__ = [
    "DataSpec",
    "LthError",
    "ModelSpec",
    "PruneSpec",
    "Ticket",
    "TicketSpec",
    "TrainSpec",
    "Trainer",
    "find_tickets",
    "load_compact",
    "load_ticket",
    "open_store",
]

_MODULES = {
    "DataSpec": "spec",
    "LthError": "errors",
    "ModelSpec": "spec",
    "PruneSpec": "spec",
    "Ticket": "ticket",
    "TicketSpec": "spec",
    "TrainSpec": "spec",
    "Trainer": "train",
    "find_tickets": "lottery",
    "load_compact": "files.export",
    "load_ticket": "ticket",
    "open_store": "store",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch takes seconds to import (PEP 562)."""
    if name == "__version__":
        value: object = installed_version()
    elif name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def installed_version() -> str:
    """Version of the installed project; `unknown` where its folders were only copied."""
    try:
        return version("lottery-ticket-sweeps")
    except PackageNotFoundError:
        return "unknown"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
