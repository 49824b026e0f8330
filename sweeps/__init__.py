"""Sweeps of studies: a command line, and the same in a notebook or script.

import sweeps

study = sweeps.run("digits")  # a preset or a file; sweeps.load reads what was swept before
study.verdict
study.to_frame()
study.plot_accuracy()
study.ticket(density=0.1)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lth_core import installed_version
from sweeps import run as _runs

if TYPE_CHECKING:
    from sweeps.notebook import SweptStudy, load, load_ticket

    __version__: str

__all__ = ["SweptStudy", "load", "load_ticket", "run"]


class _CallablePackage(ModuleType):
    """The package `sweeps.run`, which runs a study when it is called.

    Python binds the name of an imported sub-package in its parent, so a function `run` of this
    module would be gone after the first import from `sweeps.run`.
    """

    def __call__(
        self,
        study: str | os.PathLike[str],
        overrides: Mapping[str, Any] | Iterable[str] = (),
        *,
        ray: bool = False,
        address: str | None = None,
        quiet: bool = False,
    ) -> SweptStudy:
        """Run or resume a study, and write its records, MLflow runs and report, as `lth sweep`.

        Args:
            study: a study file, or a study's name.
            overrides: values by field, as ``{"levels": 5, "seed": [0, 1, 2]}``, or texts as
                ``["levels=5"]``.
            ray: run on Ray, in a process of its own; False: in this process.
            address: address of a Ray cluster; by default Ray starts on this machine.
            quiet: print nothing but failures.

        Raises:
            LthError: bad input, before any training; or no trial has finished.
            KeyboardInterrupt: it was interrupted; the next call resumes it.
        """
        run: Any = import_module("sweeps.notebook").run_study
        swept: SweptStudy = run(study, overrides, ray=ray, address=address, quiet=quiet)
        return swept


_runs.__class__ = _CallablePackage


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch takes seconds to import (PEP 562)."""
    if name == "__version__":
        value: object = installed_version()
    elif name in __all__:
        value = getattr(import_module("sweeps.notebook"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
