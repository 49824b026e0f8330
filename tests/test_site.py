"""The site of docs/: links, pages made from the code, and blocks of code in the pages."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from sweeps.cli.main import app
from sweeps.studies.reader import parse_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, kind: str) -> Iterator[str]:
    return (text for found, text in _BLOCK.findall(page.read_text()) if found == kind)


@pytest.mark.slow
def test_site_has_no_broken_link_and_a_page_for_each_part_of_a_study(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    fields = (tmp_path / "fields" / "index.html").read_text()
    assert "prune.fraction" in fields
    assert "seed" in fields
    for page, text in {"columns": "final_test_accuracy", "commands": "lth sweep", "names": "synflow",
                       "contributing": "make fast", "tests": "planted"}.items():  # fmt: skip
        assert text in (tmp_path / page / "index.html").read_text(), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_studies_in_a_page_are_valid(page: Path) -> None:
    for text in blocks(page, "yaml"):
        values = yaml.safe_load(text)
        if "name" in values:
            parse_study(values)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_a_page_are_known(page: Path) -> None:
    for text in blocks(page, "sh"):
        for line in text.splitlines():
            name, *arguments = shlex.split(line, comments=True) or [""]
            if name == "lth":
                parsed(get_command(app), arguments)


def parsed(command: Any, arguments: list[str]) -> None:
    """Parse a command line, down to the last command in it, without running it."""
    with command.make_context("lth", arguments) as context:
        if hasattr(command, "commands"):
            _, below, rest = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
            assert below is not None
            parsed(below, rest)


def test_unknown_option_in_a_page_is_found() -> None:
    with pytest.raises(Exception, match="no-such-option"):
        parsed(get_command(app), ["sweep", "digits", "--no-such-option"])


@pytest.mark.long
def test_python_of_the_readme_and_of_the_first_hour_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sweeps

    monkeypatch.chdir(tmp_path)
    *_, code = blocks(ROOT / "README.md", "python")
    exec(code, names := {})
    assert names["level"].level == 5
    assert Path("ticket.safetensors").is_file()
    page = ROOT / "docs" / "start.md"
    (study,) = blocks(page, "yaml")
    Path("widths.yaml").write_text(study)
    short = {"train.steps": "30it", "levels": 2, "seed": [0, 1, 2], "tracking.uri": None}
    sweeps.run("widths.yaml", short)
    (code,) = blocks(page, "python")
    exec(code, names := {})
    assert len(names["frame"]) == 3 * 3 * (1 + 2 * 3)
    assert abs(names["ticket"].density - 0.49) < 0.01
