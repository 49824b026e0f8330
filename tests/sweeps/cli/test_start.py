"""What starts without torch: the command line's help, catalogue, schema and completion."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny import Lth

HEAVY = ("torch", "ray", "mlflow", "optuna", "scipy", "matplotlib", "sklearn", "pyarrow")

CHILD = """
import io, json, os, sys
from contextlib import redirect_stdout
import sweeps.cli.main

answers = []
for arguments, environment in json.loads(sys.argv[1]):
    sys.argv = ["lth", *arguments]
    os.environ.update(environment)
    with redirect_stdout(io.StringIO()) as printed:
        try:
            sweeps.cli.main.main()
        except SystemExit as ended:
            assert not ended.code, (arguments, environment, ended.code)
    loaded = {name.partition(".")[0] for name in sys.modules}
    answers.append([printed.getvalue(), sorted(loaded)])
print(json.dumps(answers))
"""

COMMANDS = {
    ("--help",): "Run or resume a study",
    ("plan", "--help"): "--at-once",
    ("--version",): version("torch"),
    ("studies",): "lenet-mnist",
    ("list",): "prune.fraction",
    ("schema",): "$defs",
}
"""Command -> a text that it prints."""
COMPLETIONS = {
    "lth st": {"status", "studies", "store"},
    "lth plan dig": {"digits"},
    "lth store du dig": {"digits"},
    "lth list sco": {"scopes", "scores"},
    "lth plan digits --wh": {"--where"},
}
"""Typed words -> their completions in bash."""


@dataclass(frozen=True)
class Answer:
    """Text that a command printed, and all packages that its process had imported by then."""

    printed: str
    loaded: set[str]


def ask(*questions: tuple[tuple[str, ...], dict[str, str]]) -> list[Answer]:
    """Run commands, given as arguments and environment, one after another in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(questions)], capture_output=True, text=True,
        check=True, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    return [Answer(printed, set(loaded)) for printed, loaded in json.loads(done.stdout)]


def completion(words: str) -> tuple[tuple[str, ...], dict[str, str]]:
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return (), {"_LTH_COMPLETE": "complete_bash", **variables}


@pytest.fixture(scope="module")
def answers() -> dict[object, Answer]:
    """Answers to all commands, then to all completions, of one process."""
    questions = [*((command, {}) for command in COMMANDS), *map(completion, COMPLETIONS)]
    return dict(zip([*COMMANDS, *COMPLETIONS], ask(*questions), strict=True))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.slow
def test_command_imports_no_torch(command: tuple[str, ...], answers: dict[object, Answer]) -> None:
    assert COMMANDS[command] in answers[command].printed
    assert answers[command].loaded & set(HEAVY) == set()


@pytest.mark.slow
def test_help_imports_no_pydantic(answers: dict[object, Answer]) -> None:
    assert "pydantic" not in answers[("--help",)].loaded


@pytest.mark.parametrize("words", COMPLETIONS)
def test_completion_imports_no_torch(words: str, answers: dict[object, Answer]) -> None:
    assert set(answers[words].printed.split()) == COMPLETIONS[words]
    assert answers[words].loaded & set(HEAVY) == set()


def test_studies_that_were_swept_here_are_completed(lth: Lth, here: Path) -> None:
    folder = here / "lth-studies" / "digits-of-mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("name: digits-of-mine\n")
    (answer,) = ask(completion("lth report dig"))
    assert answer.printed.split() == ["digits", "digits-of-mine"]


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    # The shell is named: a process without one among its parents, as in CI, has none to detect.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(tmp_path)}
    (answer,) = ask((("--install-completion", "bash"), named))
    assert "bash completion installed" in answer.printed
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_LTH_COMPLETE=complete_bash" in script.read_text()


def test_version_names_lth_python_and_torch(lth: Lth) -> None:
    called = lth("--version")
    assert called.code == 0
    assert called.out == (
        f"lth {version('lottery-ticket-sweeps')}, Python {platform.python_version()}, "
        f"torch {version('torch')}\n"
    )
