"""Lazy imports: `lth --help`, `lth list` and shell completion run without importing torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class LazyModule(ModuleType):
    """A stand-in for a module, which is imported when one of its names is read."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # read by the import machinery
            raise AttributeError(name)
        self.withdraw()
        return getattr(import_module(self.__name__), name)

    def withdraw(self) -> None:
        """Remove the stand-in from sys.modules and its package; other imports get the module."""
        if sys.modules.get(self.__name__) is self:
            package, _, name = self.__name__.rpartition(".")
            del sys.modules[self.__name__]
            delattr(sys.modules[package], name)


class _LazyFinder(MetaPathFinder, Loader):
    """Import finder that gives one stand-in for each module of a package."""

    def __init__(self) -> None:
        self.made: dict[str, LazyModule] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if path else None
        is_module = spec is not None and spec.submodule_search_locations is None
        return ModuleSpec(name, self) if is_module and name not in self.made else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = self.made[spec.name] = LazyModule(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the stand-in empty."""


@contextmanager
def lazy_imports() -> Iterator[None]:
    """Defer the imports of its body, each ``from package import module``, to the module's first
    use. Type checkers, editors and import-linter see ordinary imports.

    importlib.util.LazyLoader cannot be used: it leaves its unloaded modules in sys.modules, where
    `inspect`, which pydantic uses, reads an attribute of every module and so loads them all.
    """
    finder = _LazyFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in finder.made.values():
            module.withdraw()
