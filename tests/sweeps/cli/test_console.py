"""What is printed is what was said: no markup, no emoji, no colour, no wrapping, no control."""

import errno
import io
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tiny import Lth, search, tiny_fields

from lth_core import Trainer
from lth_core.store import Store
from sweeps.cli import console
from sweeps.cli.console import PlainConsole, print_failure
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study
from tracking.report.terminal import verdict_table

NASTY = ":smile: [red]x[/red] [/] a:b:c \\[b] 12.5 'text' https://h/p [link=x]y[/]"
"""What rich makes an emoji, a colour, an error, a number, a quotation and a link of."""


@pytest.fixture
def screen() -> PlainConsole:
    """A terminal of 40 columns that can do everything."""
    return PlainConsole(file=io.StringIO(), width=40, force_terminal=True, color_system="truecolor")


def printed(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_text_is_printed_as_it_is_on_one_line(screen: PlainConsole) -> None:
    screen.print(NASTY)
    screen.print(Text(NASTY))
    screen.print("said:", f"{NASTY}\n{NASTY}")
    assert printed(screen) == f"{NASTY}\n{NASTY}\nsaid: {NASTY}\n{NASTY}\n"


def test_failure_is_red_and_its_reason_is_printed_as_it_is(screen: PlainConsole) -> None:
    print_failure(screen, NASTY)
    assert printed(screen) == f"\x1b[31mfailed\x1b[0m {NASTY}\n"


def test_table_prints_heads_and_cells_as_they_are(screen: PlainConsole) -> None:
    short = ":smile: [red]x[/red]"
    table = Table(short, short, box=None, header_style="", padding=0, pad_edge=False)
    table.add_row(short, Text(short))
    screen.width = 80
    screen.print(table)
    assert [line.rstrip() for line in printed(screen).splitlines()] == [short + short] * 2


def test_lines_of_a_pipe_end_without_blanks_and_are_else_the_same() -> None:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_row(Text("a  b"), Text("c"))
    table.add_row(Text("  d"), Text(""))
    pipe = PlainConsole(file=io.StringIO(), width=40)
    pipe.print(table, Text("e  "), "f")
    assert printed(pipe).splitlines() == [
        f"a  b{'c':>31}", "  d", "e   f",
    ]  # fmt: skip


def test_progress_prints_what_is_trained_as_it_is() -> None:
    from sweeps.run.progress import _bar

    wide = PlainConsole(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    with _bar(wide) as bar:
        bar.add_task(NASTY, total=3, left="")
    assert NASTY in printed(wide)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b\x1b[2Jc", "a\\x1b]0;titleb\\x1b[2Jc"),
        ("\x9b31mred", "\\x9b31mred"),
        ("txt.\u202egnp", "txt.\\u202egnp"),
        ("a\udcffb", "a\\udcffb"),
    ],
)
def test_characters_that_command_a_terminal_are_printed_as_escapes(
    text: str, shown: str, screen: PlainConsole
) -> None:
    screen.print(text)
    screen.print(Text(text))
    table = Table.grid(expand=True)
    table.add_row(text)
    screen.print(table)
    assert [line.rstrip() for line in printed(screen).splitlines()] == [shown] * 3


# The commands

OWN = """
from torch import nn
def net(spec, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, classes))
globals()["smile:"] = globals()["[red]x[/red]"] = net
"""
NAMES = ["own_net:smile:", "own_net:[red]x[/red]"]


@pytest.fixture
def own_net(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks whose names are emoji and markup."""
    (here / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(here)


@pytest.mark.usefixtures("own_net")
def test_plan_prints_names_of_networks_as_they_are(lth: Lth, here: Path) -> None:
    path = here / "a:smile:[red]x.yaml"
    path.write_text(yaml.safe_dump(tiny_fields({"axes.model.name": NAMES})))
    called = lth("plan", path, "--list")
    assert called.code == 0
    for name in NAMES:
        assert called.out.count(name) > 2, "in a line of each trial, and where its time is unknown"


@pytest.mark.usefixtures("own_net")
@pytest.mark.slow
def test_verdicts_print_values_of_axes_as_they_are(screen: PlainConsole) -> None:
    study = parse_study(tiny_fields({"axes.model.name": NAMES, "base.levels": 1}))
    records = [row for _, rows in search(study, Trainer(Store())) for row in rows]
    screen.width = 200
    screen.print(verdict_table(records, make_plan(study).axes))
    for name in NAMES:
        assert name in printed(screen)


@pytest.mark.parametrize("name", ["a:smile:.yaml", "[red]x[bold].yaml", "\x1b[2J.yaml"])
def test_error_names_a_file_as_it_is(name: str, lth: Lth, here: Path) -> None:
    (here / name).write_text("[")
    called = lth("plan", name)
    assert called.code == 2
    shown = name.replace("\x1b", "\\x1b")
    assert called.err.startswith(f"lth: {shown}: must be YAML, but got")
    assert called.err.count("\n") == 1


def test_error_prints_a_value_as_it_is(lth: Lth) -> None:
    called = lth("plan", "digits", "prune.score=':smile: [red]x[/red]'")
    assert (called.code, called.out) == (2, "")
    assert "but got ':smile: [red]x[/red]'\n" in called.err


@pytest.mark.slow
def test_report_prints_its_path_as_it_is(lth: Lth, swept: Path, tmp_path: Path) -> None:
    target = tmp_path / ":smile:[red]x[/red]" / ("long" * 30) / "page.html"
    target.parent.mkdir(parents=True)
    called = lth("report", "tiny", "-o", target)
    assert called.code == 0
    assert called.out.endswith(f"report: {target}\n")


def test_no_command_has_another_console_or_markup() -> None:
    other = re.compile(
        r"(?<!Plain)Console\(\w*=|(?<!Plain)Console\(\)|rich\.markup|from_markup|markup=True"
    )
    root = Path(console.__file__).parents[2]
    files = [path for part in ("sweeps", "tracking") for path in (root / part).rglob("*.py")]
    assert len(files) > 60
    assert [path.name for path in files if other.search(path.read_text())] == []


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_output_to_a_full_disk_is_one_error(lth: Lth, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the process's own console, which would print the text with that of the next test.
    monkeypatch.setattr("sweeps.cli.main.out", PlainConsole(file=FullDisk()))
    called = lth("--version")
    assert (called.code, called.err) == (2, "lth: output: no space is left\n")
