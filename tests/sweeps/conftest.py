"""A tiny study, a folder to run in, and the command line called in this process."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import Called, Lth, StudyFile, StudyOf, search, tiny_fields

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.store.records import register
from sweeps.studies.find import save_swept
from sweeps.studies.reader import parse_study
from tracking.report import html


@pytest.fixture
def tiny() -> StudyOf:
    """The tiny study, with dotted changes."""
    return lambda changes=None: parse_study(tiny_fields(changes))


@pytest.fixture
def tiny_file(here: Path) -> StudyFile:
    """The tiny study as a file in the current folder."""

    def write(changes: Mapping[str, Any] | None = None) -> Path:
        path = here / "tiny.yaml"
        path.write_text(yaml.safe_dump(tiny_fields(changes), sort_keys=False))
        return path

    return write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the test's own, so that nothing is written into the repository."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LTH_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture(autouse=True)
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans measure no speeds, which takes a moment and varies; where none is known is a range."""
    monkeypatch.setattr("sweeps.plan.probe.PROBE_SECONDS", 0)


@pytest.fixture(autouse=True)
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports draw each figure but render it to a few bytes: rendering takes a second a report."""

    def nothing(*arguments: Any) -> tuple[str, bytes]:
        return "<svg></svg>", b"not rendered"

    monkeypatch.setattr(html, "_rendered", nothing)


RENDERED = html._rendered


@pytest.fixture
def rendered(unrendered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports render their figures."""
    monkeypatch.setattr(html, "_rendered", RENDERED)


@pytest.fixture
def lth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lth:
    """`lth ARGUMENT ...` in this process; an exception that would be a traceback fails the test."""

    def call(*arguments: object) -> Called:
        from sweeps.cli.main import main

        monkeypatch.setattr(sys, "argv", ["lth", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capsys.readouterr()
        try:
            main()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        return Called(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def swept_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the tiny study was swept, three seeds, in this process."""
    folder = tmp_path_factory.mktemp("swept")
    study = parse_study(tiny_fields({"axes.seed": [0, 1, 2], "store": str(folder / "lth-store")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = open_store(study.store)
        register(store, study)
        for _ in search(study, Trainer(store)):
            pass
        save_swept(study)
    return folder


@pytest.fixture
def swept(swept_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The swept folder as the current one. To be read from, not written to."""
    monkeypatch.chdir(swept_once)
    return swept_once
