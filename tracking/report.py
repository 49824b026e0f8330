"""The report: a study's verdicts for the terminal, and all there is to see as one HTML file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from lth_core.store import FolderFiles
from lth_core.verdict import FEWEST
from tracking.cells import Record, cells
from tracking.figures import FIGURES, CurvesOf
from tracking.sections import MISSING, TOO_FEW, Section, count, density_text, sections

MOST_ROWS, MOST_ROWS_IN_ALL = 8, 60
"""Of a cell and of all cells in the terminal's table; the HTML has every level."""
WORD_STYLES = {"winning": "bold green", "matching": "cyan", TOO_FEW: "yellow"}
NOTHING = "Nothing has been trained yet."
SHORT = {TOO_FEW: "too few"}


def headlines(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None = None
) -> list[str]:
    """A line for each cell: its sparsest matching ticket, and whether that beats reinit.

    Args:
        records: as `lth_core.results.record`, with every axis by its dotted name.
        axes: dotted names of the study's axes; those but `seed` make a cell.
        tolerance: accuracy below dense that still matches; None: as `lth_core.verdict` says.
    """
    return [section.headline for section in sections(records, axes, tolerance)]


def verdict_table(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None = None
) -> Table:
    """The verdicts, for a terminal of at least 80 columns; arguments as in `headlines`.

    A cell with many levels shows some: first, last, the sparsest matching one and its next.
    """
    found = sections(records, axes, tolerance)
    most = max(min(MOST_ROWS, MOST_ROWS_IN_ALL // max(len(found), 1)), 1)
    table = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    for section in found:
        cell = Table.grid()
        cell.add_row(Text(section.headline, style="bold"))
        cell.add_row(Text(section.basis, style="dim"))
        if section.rows:
            cell.add_row(_levels_table(section, most))
        table.add_row(cell)
    if not found:
        table.add_row(NOTHING)
    return table


def write_report(
    file: Path,
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    tolerance: float | None,
    about: Mapping[str, str],
) -> Path:
    """Write one HTML file in need of no other, and figures/NAME.png and .pdf beside it.

    Args:
        file: its folder is made where it is missing; what is there is replaced, file by file.
        study: the study's name.
        records, axes, tolerance: as in `headlines`.
        curves: from a record's `training_digest` to its learning curves.
        about: how it was run, shown as it is: versions, machine, command, ...

    Returns:
        The file's absolute path.

    Raises:
        StoreError: a file cannot be written.
    """
    files, shown = FolderFiles(file.parent), []
    for name, chart in FIGURES.items() if records else ():
        png, pdf = _rendered(chart.draw(records, axes, curves))
        files.write(f"figures/{name}.png", png)
        files.write(f"figures/{name}.pdf", pdf)
        shown.append({"name": name, "chart": chart, "png": b64encode(png).decode()})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        study=study,
        scope=_scope(records, axes),
        sections=sections(records, axes, tolerance),
        figures=shown,
        about=about,
        fewest=FEWEST,
    )
    files.write(file.name, page.encode())
    return file.absolute()


def _rendered(figure: Figure) -> tuple[bytes, bytes]:
    """A figure as PNG and PDF; the same figure gives the same bytes."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    with rc_context({"pdf.fonttype": 42}):  # fonts that journals accept
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


def _scope(records: Sequence[Record], axes: Sequence[str]) -> str:
    if not records:
        return NOTHING
    trials = len({record["trial"] for record in records})
    seeds = len({record["seed"] for record in records})
    density = min(record["density"] for record in records)
    found = len(cells(records, axes))
    counts = count(trials, "trial"), count(found, "cell"), count(seeds, "seed")
    return f"{', '.join(counts)}; down to {density_text(density)} of the weights."


def _levels_table(section: Section, most: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in ("density", *section.branches, "faster", "p"):
        table.add_column(
            name.replace("_", " "), justify="right", no_wrap=name not in section.branches
        )
    table.add_column("verdict", no_wrap=True)
    for i in _telling(len(section.rows), section.best, most):
        row = section.rows[i]
        values = [row.accuracy.get(branch, MISSING) for branch in section.branches]
        word = Text(SHORT.get(row.verdict, row.verdict), style=WORD_STYLES.get(row.verdict, "dim"))
        style = "bold" if i == section.best else ""
        table.add_row(row.density, *values, row.faster, row.p, word, style=style)
    return table


def _telling(count: int, best: int | None, most: int) -> list[int]:
    """At most ``most`` of ``count`` positions, rising: the best, the last, the one after the best,
    the first, then whatever lies farthest from those."""
    wanted = [count - 1, 0] if best is None else [best, count - 1, min(best + 1, count - 1), 0]
    chosen = list(dict.fromkeys(wanted))
    while len(chosen) < min(most, count):
        chosen.append(max(range(count), key=lambda i: min(abs(i - j) for j in chosen)))
    return sorted(chosen[:most])
