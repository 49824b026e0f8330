"""Verdicts and methods as tables for a terminal of at least 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import STABLE_BELOW, merge_rewound_methods
from lth_core.analysis.structures import only_structures
from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from lth_core.columns import Record
from tracking.report.method_table import Mark, MethodTable, method_tables
from tracking.report.rewind_table import RewindMark, RewindTable, rewind_tables
from tracking.report.structure_table import (
    CostTable,
    SimilarityTable,
    cost_tables,
    similarity_tables,
)
from tracking.report.verdict_table import NO_RECORDS, TOO_FEW, Row, Section, sections
from tracking.text import MISSING

MOST_ROWS, MOST_ROWS_IN_ALL = 20, 60
"""Largest numbers of rows of a cell and of all cells; the HTML report has every level."""
TERMINAL_COLUMNS, MOST_TABLES = 5, 4
"""Largest numbers of densities in a table and of tables; the HTML report has more."""
ROOM = 3
"""Branches beside which a line of 80 columns has room for raw p, and for whether it is faster."""
WORD_STYLES = {"winning": "bold green", "matching": "cyan", TOO_FEW: "yellow"}
BRIEF = {TOO_FEW: "too few", "not matching": "no match"}
COST_NAMES = {"flops": "FLOPs", "parameters": "params", "latency": "latency"}
SIGNS = {"winning": "\N{BLACK CIRCLE}", "matching": "\N{WHITE CIRCLE}"}
COLLAPSED = "\N{MULTIPLICATION SIGN}"
SHORT = "!"
SHORT_MEANS = f"{SHORT} fewer replicates than planned"


def verdict_table(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
    stable_below: float = STABLE_BELOW,
    *,
    every_level: bool = False,
) -> Table:
    """Verdicts for a terminal of at least 80 columns; arguments as in `html.write_report`.

    A cell with many levels shows some: the first, the last, the sparsest matching one, the next;
    with `every_level`, it shows all.
    A study of several rewind points or methods has a table of their accuracy at a few densities
    instead, and one line a cell; with `every_level`, it has both. Structures have tables of their
    cost and similarity first.
    """
    records = merge_rewound_methods(records, axes)
    costs = cost_tables(records, axes, rule)
    structures = [*map(_costs, costs[:MOST_TABLES])]
    structures += map(_similarity, similarity_tables(records, axes)[:MOST_TABLES])
    if not structures:
        return _verdicts(records, axes, rule, stable_below, every_level)
    whole = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    for table in structures:
        whole.add_row(table)
    if costs:
        rows = [row.mark for table in costs for group in table.groups.values() for row in group]
        whole.add_row(Text(", ".join([*_key(len(costs), rows), "bold: best"]), style="dim"))
    whole.add_row(_verdicts(records, axes, rule, stable_below, every_level))
    return whole


def _verdicts(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule, stable_below: float,
    every_level: bool,
) -> Table:  # fmt: skip
    """The verdicts of each cell, or its rewind points or methods side by side; with
    ``every_level``, both."""
    cell_sections = sections(records, axes, rule)
    side_by_side = _side_by_side(records, axes, rule, stable_below, cell_sections)
    if side_by_side is None:
        return _by_level(cell_sections, every_level)
    if not every_level:
        return side_by_side
    whole = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    whole.add_row(side_by_side)
    whole.add_row(_by_level(cell_sections, every_level))
    return whole


def _side_by_side(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule, stable_below: float,
    cell_sections: Sequence[Section],
) -> Table | None:  # fmt: skip
    """Rewind points or methods side by side; None where there is one."""
    headlines = [section.headline for section in cell_sections]
    if points := rewind_tables(records, axes, rule, stable_below, TERMINAL_COLUMNS):
        return _by_rewind_point(points, headlines)
    if len(methods(records)) > 1 and only_structures(records, axes):
        whole = Table.grid()
        whole.add_row(Text("\n".join(headlines)))
        return whole
    tables = method_tables(records, axes, rule, TERMINAL_COLUMNS)
    return _by_method(tables, headlines) if tables else None


def _by_level(cell_sections: Sequence[Section], every_level: bool) -> Table:
    """The verdicts of each cell, by level."""
    most = max(min(MOST_ROWS, MOST_ROWS_IN_ALL // max(len(cell_sections), 1)), 1)
    if every_level:
        most = max((len(section.rows) for section in cell_sections), default=1)
    table = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    for section in cell_sections:
        cell = Table.grid()
        if len(cell_sections) > 1:  # one cell is the study, whose answer is printed first
            cell.add_row(Text(section.headline, style="bold"))
        cell.add_row(Text(section.basis, style="dim"))
        if section.rows:
            cell.add_row(_levels_table(section, most))
        if len(section.rows) > most:
            cell.add_row(Text(f"{len(section.rows) - most} more levels in the report", "dim"))
        table.add_row(cell)
    if any(row.short for section in cell_sections for row in section.rows):
        table.add_row(Text(SHORT_MEANS, style="yellow"))
    if not cell_sections:
        table.add_row(NO_RECORDS)
    return table


def _costs(shown: CostTable) -> Table:
    """Structures by method: their costs, their accuracy, and the cost of finding them."""
    whole = Table.grid()
    whole.add_row(Text(shown.label or "Structures", style="bold"))
    words = f"Costs as shares of the dense network's; accuracy in %, dense {', '.join(shown.dense)}"
    whole.add_row(Text(words, style="dim"))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", overflow="fold")
    names = [COST_NAMES[cost] for cost in shown.costs]
    for name in (*names, "accuracy ", "search", "less"):
        table.add_column(name, justify="right", no_wrap=True)
    for family, rows in shown.groups.items():
        table.add_row(Text(family, style="dim italic"))
        for row in rows:
            shares = [row.shares.get(cost, MISSING) for cost in shown.costs]
            table.add_row(
                Text(f"    {row.differs}" if row.differs else f"  {row.name}"),
                *shares,
                _mark(row.mark),
                row.search_seconds,
                row.factor,
            )
    whole.add_row(table)
    whole.add_row(Text("less: how many times fewer FLOPs the search takes than the dense training",
                       style="dim"))  # fmt: skip
    return whole


def _similarity(shown: SimilarityTable) -> Table:
    """Similarity of structures between seeds, by rewind point, and the answer."""
    whole = Table.grid()
    whole.add_row(Text(f"Does training narrow the structures? {shown.label}", style="bold"))
    whole.add_row(Text(shown.answer, style="" if shown.grows is None else "bold"))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    first = f"with {shown.rows[0].point}"
    for name in ("after", "seeds alike", "95% interval", first, "FLOPs", "params", "scratch_e"):
        table.add_column(name, justify="left" if name == "after" else "right", no_wrap=True)
    for row in shown.rows:
        table.add_row(
            Text(row.point), row.similarity, row.interval or MISSING, row.with_first, row.flops,
            f"{row.parameters} ({row.parameters_range})", row.accuracy,
        )  # fmt: skip
    whole.add_row(table)
    return whole


def _by_method(tables: Sequence[MethodTable], headlines: Sequence[str]) -> Table:
    """Tables of methods, and one line a cell."""
    whole = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    for table in tables[:MOST_TABLES]:
        cell = Table.grid()
        dense = f"Test accuracy (%) by density; dense {', '.join(table.dense)}"
        cell.add_row(Text(table.label or "Methods", style="bold"))
        cell.add_row(Text(dense, style="dim"))
        cell.add_row(_methods_table(table))
        whole.add_row(cell)
    marks = [m for t in tables for rows in t.groups.values() for row in rows.values() for m in row]
    key = [*_key(len(tables), marks), "bold: best of its column"]
    worse = f"dim: shown to be worse than another ({tables[0].confidence} confidence a column)"
    whole.add_row(Text(f"{', '.join(key)}\n{worse}", style="dim"))
    whole.add_row(Text("\n".join(headlines)))
    return whole


def _methods_table(shown: MethodTable) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("", overflow="fold")
    for density in shown.densities:
        # The sign at the end is not part of the number.
        table.add_column(f"{density} ", justify="right", no_wrap=True)
    for family, rows in shown.groups.items():
        table.add_row(Text(family, style="dim italic"))
        for name, marks in rows.items():
            table.add_row(Text(f"  {name}"), *map(_mark, marks))
    return table


def _by_rewind_point(tables: Sequence[RewindTable], headlines: Sequence[str]) -> Table:
    """Tables of rewind points, with one line a cell where they leave out levels."""
    whole = Table.grid(padding=(0, 0, 1, 0), collapse_padding=False, pad_edge=True)
    for table in tables[:MOST_TABLES]:
        cell = Table.grid()
        dense = f"; dense {table.dense}" if table.dense else ""
        cell.add_row(Text(table.label or "Rewind points", style="bold"))
        cell.add_row(Text(f"Test accuracy (%) of the ticket, by density{dense}", style="dim"))
        cell.add_row(_points_table(table))
        cell.add_row(Text(table.matching))
        whole.add_row(cell)
    marks = [mark for table in tables for row in table.rows for mark in row.marks]
    whole.add_row(Text(", ".join(_key(len(tables), marks)), style="dim"))
    if any(table.left_out for table in tables):
        whole.add_row(Text("\n".join(headlines)))
    return whole


def _points_table(shown: RewindTable) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("rewind")
    table.add_column("step ", justify="right")
    for density in shown.densities:
        table.add_column(f"{density} ", justify="right", no_wrap=True)
    for row in shown.rows:
        table.add_row(Text(row.point), f"{row.step} ", *map(_mark, row.marks))
    return table


def _key(tables: int, marks: Sequence[Mark | RewindMark | None]) -> list[str]:
    """Meanings of the signs, and the number of tables that are left out."""
    key = [f"{sign} {word}" for word, sign in SIGNS.items()] + [f"{COLLAPSED} layer collapse"]
    key += [SHORT_MEANS] * any(mark.short for mark in marks if mark)
    return key + [f"{tables - MOST_TABLES} more tables in the report"] * (tables > MOST_TABLES)


def _mark(mark: Mark | RewindMark | None) -> Text:
    if mark is None:
        return Text(f"{MISSING} ", style="dim")
    sign = COLLAPSED if mark.collapsed else SIGNS.get(mark.verdict, " ")
    style = ""
    if isinstance(mark, Mark):
        style = "bold" if mark.best else "dim" if mark.worse else ""
    text, colour = Text(mark.accuracy, style=style), WORD_STYLES.get(mark.verdict, "red")
    if mark.short:
        return text.append(sign.strip(), colour).append(SHORT, "bold yellow")
    return text.append(sign, colour)


def _levels_table(section: Section, most: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    tested = ["faster", "p", "adj."] if len(section.branches) <= ROOM else ["adj. p"]
    if not section.early_stops:
        tested = [name for name in tested if name != "faster"]
    for name in ("density", *section.branches, *tested):
        table.add_column(
            name.replace("_", " "), justify="right", no_wrap=name not in section.branches
        )
    table.add_column("verdict", no_wrap=True)
    table.add_column("n", no_wrap=True)
    for i in _chosen_rows(len(section.rows), section.best, most):
        row = section.rows[i]
        values = [row.accuracy.get(branch, MISSING) for branch in section.branches]
        word = Text(BRIEF.get(row.verdict, row.verdict), style=WORD_STYLES.get(row.verdict, "dim"))
        style = "bold" if i == section.best else ""
        table.add_row(
            row.density,
            *values,
            *[row.faster, row.p_reinit.raw, row.p_reinit.adjusted][-len(tested) :],
            word,
            _replicates(row, section),
            style=style,
        )
    return table


def _replicates(row: Row, section: Section) -> Text:
    """`3/3`, with a sign where the replicates are fewer than planned."""
    text = f"{row.replicates}/{section.planned}" if section.planned else str(row.replicates)
    return Text(f"{text}{SHORT}", style="bold yellow") if row.short else Text(text)


def _chosen_rows(count: int, best: int | None, most: int) -> list[int]:
    """At most ``most`` of ``count`` positions, in rising order.

    They are the best, the last, the one after the best, the first, then those farthest from the
    chosen ones.
    """
    wanted = [count - 1, 0] if best is None else [best, count - 1, min(best + 1, count - 1), 0]
    chosen = list(dict.fromkeys(wanted))
    while len(chosen) < min(most, count):
        chosen.append(max(range(count), key=lambda i: min(abs(i - j) for j in chosen)))
    return sorted(chosen[:most])
