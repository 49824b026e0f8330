"""What starts without torch: the command line's help, catalogue, schema and completion."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny import Lth

HEAVY = ("torch", "ray", "mlflow", "optuna", "scipy", "matplotlib", "sklearn", "pyarrow")

CHILD = """
import json, sys
sys.argv = ["lth", *sys.argv[1:]]
import sweeps.cli.main
try:
    sweeps.cli.main.main()
except SystemExit as ended:
    assert not ended.code, ended.code
finally:
    loaded = {name.partition(".")[0] for name in sys.modules}
    sys.stderr.write(json.dumps(sorted(loaded)))
"""


def run(*arguments: str, **environment: str) -> tuple[str, set[str]]:
    """What a command prints in a process of its own, and the packages it imports."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True,
        env={**os.environ, "COLUMNS": "120", **environment},
    )  # fmt: skip
    return done.stdout, set(json.loads(done.stderr))


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--help"], "Run or resume a study"),
        (["plan", "--help"], "--at-once"),
        (["--version"], version("torch")),
        (["studies"], "lenet-mnist"),
        (["list"], "prune.fraction"),
        (["schema"], "$defs"),
    ],
)
def test_command_imports_no_torch(arguments: list[str], shown: str) -> None:
    printed, loaded = run(*arguments)
    assert shown in printed
    assert loaded & set(HEAVY) == set()


def test_help_imports_no_pydantic() -> None:
    _, loaded = run("--help")
    assert "pydantic" not in loaded


@pytest.mark.parametrize(
    ("words", "completed"),
    [("lth st", {"status", "studies", "store"}), ("lth plan dig", {"digits"}),
     ("lth store du dig", {"digits"}), ("lth list sco", {"scopes", "scores"}),
     ("lth plan digits --wh", {"--where"})],
)  # fmt: skip
def test_completion_imports_no_torch(words: str, completed: set[str]) -> None:
    printed, loaded = run(
        _LTH_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    assert set(printed.split()) == completed
    assert loaded & set(HEAVY) == set()


def test_studies_that_were_swept_here_are_completed(lth: Lth, here: Path) -> None:
    folder = here / "lth-studies" / "digits-of-mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("name: digits-of-mine\n")
    printed, _ = run(_LTH_COMPLETE="complete_bash", COMP_WORDS="lth report dig", COMP_CWORD="2")
    assert printed.split() == ["digits", "digits-of-mine"]


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    # The shell is named: a process without one among its parents, as in CI, has none to detect.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    printed, _ = run("--install-completion", "bash", **named)
    assert "bash completion installed" in printed
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_LTH_COMPLETE=complete_bash" in script.read_text()


def test_version_names_lth_python_and_torch(lth: Lth) -> None:
    called = lth("--version")
    assert called.code == 0
    assert called.out == (
        f"lth {version('lottery-ticket-sweeps')}, Python {platform.python_version()}, "
        f"torch {version('torch')}\n"
    )
