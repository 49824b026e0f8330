"""A user's own modules: found in the study's folder, and never in place of what is installed."""

from __future__ import annotations

import sys
from importlib import import_module

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
