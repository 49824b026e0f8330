"""A user's own modules: found in the study's folder, and never in place of what is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from lth_core.errors import SpecError

if TYPE_CHECKING:
    from lth_core.spec import TicketSpec

PACKAGES = ("lth_core", "tracking", "sweeps")


def search_last(folder: str) -> None:
    """Let the modules of a folder be imported, except those with the name of an installed one.

    A `random.py` or `tracking.py` there would otherwise be imported by torch or by us.
    """
    # An editable install's finder comes after the folders of sys.path, so ours are imported first.
    for package in PACKAGES:
        import_module(package)
    if folder not in sys.path:
        sys.path.append(folder)


def refuse_main(specs: Iterable[TicketSpec]) -> None:
    """Check that another process can import the functions that specs name.

    Raises:
        SpecError: one is in this process's `__main__`.
    """
    for spec in specs:
        names = {"data.name": spec.data.name, "model.name": spec.model.name,
                 "prune.score": spec.prune.score}  # fmt: skip
        for field, name in names.items():
            module, _, function = name.partition(":")
            if module == "__main__":
                rule = "must be in a file of its own to run on Ray: put it into a module, mine.py, "
                raise SpecError(field, f"{rule}and name it mine:{function}", name)
