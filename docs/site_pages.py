"""Pages of the site that are made while it is built: the README and its like, and the reference.

A hook of mkdocs (`mkdocs.yml`), which `make docs` runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from lth_core.columns import descriptions
from sweeps.cli.main import app
from sweeps.studies.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "tests.md": "tests/README.md",
}
"""Pages that lie outside docs/, by their name on the site."""
TOUR = "tour.ipynb"
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#:\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, and those that are made from the code."""
    texts = {name: (ROOT / file).read_text() for name, file in OUTSIDE.items()}
    for name, text in {**texts, **{name: make() for name, make in MADE.items()}}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the project into links between pages.

    A link to a file that has no page becomes the file's path.
    """
    name = page.file.src_uri
    folder = (Path("docs") / name).parent
    if name in OUTSIDE:
        folder = Path(OUTSIDE[name]).parent
    pages = {file: page for page, file in OUTSIDE.items()} | {f"docs/{TOUR}": "tour.md"}

    def on_site(link: re.Match[str]) -> str:
        text, target, anchor = link.group(1), link.group(2), link.group(3) or ""
        if not target:
            return link.group()
        path = normpath(str(folder / target))
        if path in pages:
            return f"{text}({pages[path]}{anchor})"
        if path.startswith("docs/"):
            return f"{text}({path.removeprefix('docs/')}{anchor})"
        if not (ROOT / path).exists():
            return link.group()  # mkdocs reports it
        return f"`{path}`"

    return _LINK.sub(on_site, markdown)


def commands() -> str:
    """Every command with its arguments and options, as `--help` prints them."""
    return "# Commands\n\n" + "\n\n".join(_command("lth", get_command(app)))


def _command(name: str, command: Any) -> Iterator[str]:
    """Text of a command of click, which typer may bring along itself, and of those below it."""
    context = command.context_class(command, info_name=name)
    below = getattr(command, "commands", {})
    if not below:
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        yield f"## {name}\n\n    {usage}\n\n{(command.help or '').strip()}"
        rows = {
            f"`{_spelled(parameter)}`": getattr(parameter, "help", "") or ""
            for parameter in command.get_params(context)
            if "--help" not in parameter.opts
        }
        yield _table("", rows) if rows else ""
    for short, each in below.items():
        yield from _command(f"{name} {short}", each)


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).upper()
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def fields() -> str:
    """Every field of a study's `base`, from the docstrings of the specs."""
    by_part: dict[str, dict[str, str]] = {}
    for name, text in CATALOGUE["fields"]().items():
        part = name.partition(".")[0] if "." in name else "the search"
        by_part.setdefault(part, {})[f"`{name}`"] = text
    tables = [_table(f"## {part}", rows) for part, rows in by_part.items()]
    intro = "Fields of a study's `base`, and of its `axes`. `lth list fields` prints them."
    return "\n\n".join(["# Fields of a study", intro, *tables])


def columns() -> str:
    """Every column of a record."""
    rows = {f"`{name}`": text for name, text in dict(descriptions()).items()}
    intro = "One record is one branch of one level of one trial. `lth list columns` prints them."
    return "\n\n".join(["# Columns of a record", intro, _table("", rows)])


def names() -> str:
    """Names of datasets, networks, scores and the like that a study can use."""
    tables = [
        _table(f"## {kind}", {f"`{name}`": text for name, text in rows().items()})
        for kind, rows in CATALOGUE.items()
        if kind not in ("fields", "columns")
    ]
    return "\n\n".join(["# Names in a study", "`lth list` prints them.", *tables])


def tour() -> str:
    """The notebook with its outputs."""
    cells = json.loads((ROOT / "docs" / TOUR).read_text())["cells"]
    return "\n\n".join(text for cell in cells for text in _cell_texts(cell))


def _cell_texts(cell: Mapping[str, Any]) -> Iterator[str]:
    """A notebook's cell as Markdown: its source, then its outputs."""
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", ()):
        data = output.get("data", {"text/plain": output.get("text", [])})
        if "image/png" in data:
            yield f'<img alt="" src="data:image/png;base64,{data["image/png"]}">'
        elif "text/html" in data:
            lines = (line.strip() for line in "".join(data["text/html"]).splitlines())
            yield f"<div>{' '.join(lines)}</div>"  # an empty line would end the block
        else:
            yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"


MADE: Mapping[str, Callable[[], str]] = {
    "commands.md": commands,
    "fields.md": fields,
    "columns.md": columns,
    "names.md": names,
    "tour.md": tour,
}
"""Functions that make a page's text."""


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {name} | {_cell(text)} |" for name, text in rows.items()]
    return "\n".join([title, "", "| name | meaning |", "|---|---|", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
