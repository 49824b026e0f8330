"""A user's folder and terminal: files with names of ours, a deleted folder, a small character set."""

import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from tiny import Lth, StudyFile

from sweeps.cli.console import out

SHADOWS = (
    "lth_core",
    "tracking",
    "sweeps",
    "random",
    "queue",
    "statistics",
    "mlflow",
    "ray",
    "torch",
)
LTH = [sys.executable, "-P", "-c", "from sweeps.cli import run; run()"]
"""The command line as its script starts it: without the current folder in sys.path."""

OWN = """
import random
import tracking
from torch import nn

import parts

def net(spec, shape, classes):
    assert parts.HERE
    assert tracking.__path__
    assert random.random() >= 0
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


@pytest.fixture
def study(here: Path, tiny_file: StudyFile) -> Path:
    """A study of a user's network, beside files that end each process which imports them."""
    for name in SHADOWS:
        (here / f"{name}.py").write_text(f"raise SystemExit('imported {name}.py')")
    (here / "own_net.py").write_text(OWN)
    (here / "parts.py").write_text("HERE = True")
    return tiny_file({
        "base.model": {"name": "own_net:net"}, "base.levels": 1, "axes.seed": [0],
        "tracking.uri": "sqlite:///mlflow.db",
    })  # fmt: skip


def run(*arguments: object, **env: str) -> str:
    """Output of a command in a process of its own, which must succeed."""
    called = subprocess.run(
        [*LTH, *map(str, arguments)], env=os.environ | env, capture_output=True, text=True
    )
    assert called.returncode == 0, called
    return called.stdout


@pytest.mark.long
def test_files_with_our_names_are_not_imported_by_a_plan(study: Path) -> None:
    assert "own_net:net" in run("plan", study)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.mlflow
def test_rays_workers_import_no_files_with_our_names_and_take_a_long_folder(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR is too long for the path of a socket; Ray's logs stay in it."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("x" * 120)
    long.mkdir()
    assert "report: " in run("sweep", study, TMPDIR=str(long))
    assert list(long.glob("ray/session_*/logs"))
    links = [link for link in Path("/tmp").glob("lth-*/tmp") if link.is_symlink()]
    assert long not in [link.resolve() for link in links]


def test_a_folder_that_was_deleted_is_named_in_one_line(
    lth: Lth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    called = lth("plan", "study.yaml")
    assert called.code == 2
    assert called.err == "lth: the current folder was deleted; change to another\n"


def test_a_terminal_without_dashes_shows_the_rest(
    lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(screen, encoding="ascii"))
    lth("--version")
    out.print("p \N{EN DASH} n")
    sys.stdout.flush()
    assert screen.getvalue().endswith(b"p ? n\n")
