"""The report: a study's verdicts for the terminal, and all there is to see as one HTML file."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from lth_core.store import FolderFiles
from lth_core.verdict import FEWEST, Summary, Verdict, sparsest, verdicts
from tracking.cells import Cell, Record, cells
from tracking.figures import FIGURES, CurvesOf

MOST_ROWS, MOST_ROWS_IN_ALL = 8, 60
"""Of a cell and of all cells in the terminal's table; the HTML has every level."""
STYLES = {"winning": "bold green", "matching": "cyan", "too few replicates": "yellow"}
SHORT = {"too few replicates": "too few"}


@dataclass(frozen=True, slots=True)
class Row:
    """A verdict in words: density and accuracies in percent, differences in points."""

    level: int
    density: str
    accuracy: dict[str, str]
    """By branch: mean, and half of the 95% interval."""
    beyond_dense: str
    """The ticket's mean accuracy less the dense run's."""
    early_stop: str
    """The ticket's mean early-stop step, and the dense run's."""
    faster: str
    p: str
    verdict: str
    collapsed: bool
    """Whether the ticket has a layer without weights, in any replicate."""


@dataclass(frozen=True, slots=True)
class Section:
    """A cell in words."""

    label: str
    headline: str
    basis: str
    """What the ticket is held against."""
    branches: list[str]
    """Ticket and controls."""
    rows: list[Row]
    """Every level's."""
    best: int | None
    """Position of the sparsest matching row."""


def headlines(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None = None
) -> list[str]:
    """A line for each cell: its sparsest matching ticket, and whether that beats reinit.

    Args:
        records: as `lth_core.results.record`, with every axis by its dotted name.
        axes: dotted names of the study's axes; those but `seed` make a cell.
        tolerance: accuracy below dense that still matches; None: as `lth_core.verdict` says.
    """
    return [section.headline for section in _sections(records, axes, tolerance)]


def verdict_table(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None = None
) -> Table:
    """The verdicts, for a terminal of at least 80 columns; arguments as in `headlines`.

    A cell with many levels shows some: first, last, the sparsest matching one and its next.
    """
    sections = _sections(records, axes, tolerance)
    most = max(min(MOST_ROWS, MOST_ROWS_IN_ALL // max(len(sections), 1)), 1)
    table = Table.grid(padding=(0, 0, 1, 0))
    for section in sections:
        cell = Table.grid()
        cell.add_row(Text(section.headline, style="bold"))
        cell.add_row(Text(section.basis, style="dim"))
        if section.rows:
            cell.add_row(_levels_table(section, most))
        table.add_row(cell)
    return table


def write_report(
    folder: Path,
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    tolerance: float | None,
    about: Mapping[str, str],
) -> Path:
    """Write report.html, whole and in need of no other file, and figures/NAME.png and .pdf.

    Args:
        folder: made where it is missing; what is there is replaced, file by file, atomically.
        study: the study's name.
        records, axes, tolerance: as in `headlines`.
        curves: from a record's `training_digest` to its learning curves.
        about: how it was run, shown as it is: versions, machine, command, ...

    Returns:
        The path of report.html.

    Raises:
        StoreError: a file cannot be written.
    """
    files, shown = FolderFiles(folder), []
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
        sections=_sections(records, axes, tolerance),
        figures=shown,
        about=about,
        fewest=FEWEST,
    )
    files.write("report.html", page.encode())
    return folder / "report.html"


def _rendered(figure: Figure) -> tuple[bytes, bytes]:
    """A figure as PNG and PDF; the same figure gives the same bytes."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    with rc_context({"pdf.fonttype": 42}):  # fonts that journals accept
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


def _scope(records: Sequence[Record], axes: Sequence[str]) -> str:
    if not records:
        return "Nothing has been trained yet."
    trials = len({record["trial"] for record in records})
    seeds = len({record["seed"] for record in records})
    density = min(record["density"] for record in records)
    counts = (_count(trials, "trial"), _count(len(cells(records, axes)), "cell"), _count(seeds, "seed"))
    return f"{', '.join(counts)}; down to {_density(density)} of the weights."


def _sections(
    records: Sequence[Record], axes: Sequence[str], tolerance: float | None
) -> list[Section]:
    return [_section(cell, tolerance) for cell in cells(records, axes)]


def _section(cell: Cell, tolerance: float | None) -> Section:
    found = verdicts(cell.records, list(cell.values), tolerance)
    dense = cell.series("dense", "final_test_accuracy")
    basis = f"Dense {_accuracy(dense[0].value)} %" if dense else "The dense run is missing"
    if found:
        slack = max(verdict.tolerance for verdict in found)
        basis += f"; within {100 * slack:.2f} points of it is matching"
    best = sparsest(found)
    return Section(
        label=cell.label or "All trials",
        headline=f"{cell.label}: {_finding(found)}" if cell.label else _finding(found).capitalize(),
        basis=f"{basis}; {_count(cell.seeds, 'seed')}.",
        branches=[branch for branch in cell.branches if branch != "dense"],
        rows=[_row(cell, verdict) for verdict in found],
        best=found.index(best) if best else None,
    )


def _finding(found: Sequence[Verdict]) -> str:
    """The outcome of a cell in a line."""
    if not found:
        return "no ticket yet"
    seeds = _count(max(verdict.accuracy["ticket"].n for verdict in found), "seed")
    if all(verdict.verdict == "too few replicates" for verdict in found):
        return f"too few replicates ({seeds}; a verdict takes {FEWEST})"
    best, winner = sparsest(found), sparsest(found, of=["winning"])
    if best is None:
        last = min(verdict.density for verdict in found)
        return f"no matching ticket down to {_density(last)} density ({seeds})"
    seeds = _count(best.accuracy["ticket"].n, "seed")
    line = f"sparsest matching ticket at {_density(best.density)} density ({seeds})"
    if best is winner:
        return f"{line}, winning against reinit {_p(best.p_reinit, 'p')}"
    if winner:
        line += f"; sparsest winning one at {_density(winner.density)} {_p(winner.p_reinit, 'p')}"
    elif best.p_reinit is not None:
        line += f", not better than reinit {_p(best.p_reinit, 'p')}"
    return line


def _row(cell: Cell, verdict: Verdict) -> Row:
    ticket, dense = verdict.accuracy["ticket"], verdict.accuracy["dense"]
    steps = verdict.early_stop
    return Row(
        level=verdict.level,
        density=_density(verdict.density),
        accuracy={branch: _accuracy(summary) for branch, summary in verdict.accuracy.items()},
        beyond_dense=f"{100 * (ticket.mean - dense.mean):+.2f}".replace("-", "−"),
        early_stop=f"{steps['ticket'].mean:.0f} / {steps['dense'].mean:.0f}",
        faster="yes" if verdict.faster else "no",
        p=_p(verdict.p_reinit),
        verdict=verdict.verdict,
        collapsed=any(r["collapsed_layers"] for r in cell.levels("ticket")[verdict.level]),
    )


def _levels_table(section: Section, most: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in ("density", *section.branches, "faster", "p"):
        table.add_column(name.replace("_", " "), justify="right", no_wrap=name not in section.branches)
    table.add_column("verdict", no_wrap=True)
    for i in _telling(len(section.rows), section.best, most):
        row = section.rows[i]
        values = [row.accuracy.get(branch, "–") for branch in section.branches]
        word = Text(SHORT.get(row.verdict, row.verdict), style=STYLES.get(row.verdict, "dim"))
        style = "bold" if i == section.best else ""
        table.add_row(row.density, *values, row.faster, row.p, word, style=style)
    return table


def _telling(count: int, best: int | None, most: int) -> list[int]:
    """At most ``most`` of ``count`` positions: the best, the last, best's next, the first; then
    whatever lies farthest from those."""
    first = [] if best is None else [best]
    chosen = [*dict.fromkeys(i for i in [*first, count - 1, *(b + 1 for b in first), 0] if i < count)]
    while len(chosen) < min(most, count):
        chosen.append(max(range(count), key=lambda i: min(abs(i - j) for j in chosen)))
    return sorted(chosen[:most])


def _accuracy(summary: Summary) -> str:
    mean = f"{100 * summary.mean:.2f}"
    return mean if summary.high is None else f"{mean} ±{100 * (summary.high - summary.mean):.2f}"


def _density(share: float) -> str:
    return f"{100 * share:.3g}%"


def _p(p: float | None, name: str = "") -> str:
    if p is None:
        return "–"
    relation = f"{name}=" if name else ""
    return f"{name}<0.001" if p < 0.001 else f"{relation}{p:.3f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
