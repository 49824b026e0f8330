"""Modules that are imported when they are first used."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from sweeps.cli.lazy import lazy_imports


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `toy` of modules `one` and `two`, and of a package `inner`."""
    folder = tmp_path / "toy"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("from toy.two import NUMBER\nSUM = NUMBER + 1\n")
    (folder / "two.py").write_text("NUMBER = 1\n")
    (folder / "inner" / "__init__.py").write_text("from toy.inner.leaf import LEAF\n")
    (folder / "inner" / "leaf.py").write_text("from toy.two import NUMBER\nLEAF = NUMBER\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return folder


def imported() -> set[str]:
    return {name for name in sys.modules if name.startswith("toy.")}


@pytest.mark.usefixtures("package")
def test_module_is_imported_when_a_name_of_it_is_read() -> None:
    with lazy_imports():
        from toy import one  # type: ignore[import-not-found]
    assert imported() == set()
    assert one.SUM == 2
    assert imported() == {"toy.one", "toy.two"}


@pytest.mark.usefixtures("package")
def test_other_code_imports_the_module_itself() -> None:
    with lazy_imports():
        from toy import one
    real = import_module("toy.one")
    assert type(real) is ModuleType
    assert type(one) is not ModuleType
    real.SUM = 7  # as a test's monkeypatch does
    assert one.SUM == 7


@pytest.mark.usefixtures("package")
def test_package_that_reads_its_own_modules_is_imported_whole() -> None:
    with lazy_imports():
        from toy.inner import leaf
    assert leaf.LEAF == 1
    assert import_module("toy.inner").leaf is import_module("toy.inner.leaf")


@pytest.mark.usefixtures("package")
def test_module_or_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ImportError, match="nowhere"), lazy_imports():
        from toy import nowhere  # noqa: F401
    with lazy_imports():
        from toy import two
    with pytest.raises(AttributeError, match="nothing"):
        two.nothing  # noqa: B018


def test_imports_are_ordinary_again_afterwards() -> None:
    before = list(sys.meta_path)
    with pytest.raises(RuntimeError), lazy_imports():
        raise RuntimeError
    assert sys.meta_path == before
