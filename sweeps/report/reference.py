"""Comparison of a finished study with published figures: an outcome for each row, and a table."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from lth_core.analysis.summary import Summary, summarize
from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.jobs.branches import BRANCHES
from lth_core.redaction import without_secrets
from lth_core.spec import describe
from sweeps.studies.schema import Reference, ReferenceRow, Study
from tracking.text import MISSING, density_text

STYLES = {"agrees": "green", "differs": "bold red", "not run": "yellow"}
SAME_DENSITY = 1.05
"""Largest factor between a published and a measured density that count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A published figure and the study's measurement of it; accuracies in percent."""

    row: ReferenceRow
    density: float | None = None
    """Achieved density at the nearest level; None where no matching trial was swept."""
    measured: Summary | None = None
    """Mean over seeds and its interval; None unless the density is within `SAME_DENSITY`."""
    planned: int | None = None
    """Number of replicates planned; None where the records lack it."""
    outcome: str
    """`agrees`, `differs`, or `not run`."""

    @property
    def difference(self) -> float | None:
        """Measured minus published, in points."""
        return self.measured.mean - self.row.accuracy if self.measured else None

    @property
    def replicates(self) -> str:
        """Number of replicates in the mean: `3`, or `2 of 3` where more were planned."""
        measured = self.measured.n if self.measured else 0
        return f"{measured} of {self.planned}" if self.is_short else str(measured)

    @property
    def is_short(self) -> bool:
        """Whether the mean is over fewer replicates than planned."""
        return bool(self.measured and self.planned and self.measured.n < self.planned)

    @property
    def explanation(self) -> str:
        """The outcome; for `not run`, with the reason."""
        if self.outcome != "not run":
            return self.outcome
        nearest = f"nearest is {density_text(self.density)}" if self.density else "not swept"
        return f"{self.outcome}: {nearest}"

    @property
    def name(self) -> str:
        """Method, branch and other fields of the row: `imp reinit, rewind=500it`."""
        branch = "" if self.row.branch == "ticket" else f" {self.row.branch}"
        return f"{self.row.method}{branch}" + "".join(
            f", {k}={v}" for k, v in self.row.where.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Flat JSON object, with the fields of the row."""
        measured = self.measured
        return {
            **self.row.model_dump(mode="json", exclude={"accuracy"}),
            "achieved_density": self.density,
            "published": self.row.accuracy,
            "measured": measured and measured.mean,
            "low": measured and measured.low,
            "high": measured and measured.high,
            "n": measured.n if measured else 0,
            "replicates_planned": self.planned,
            "difference": self.difference,
            "outcome": self.outcome,
        }


def verify(records: Sequence[Record], axes: Sequence[str], reference: Reference) -> list[Check]:
    """The outcome of each row, from the mean final test accuracy over seeds at the nearest density.

    Raises:
        SpecError: a row matches several cells of the study.
    """
    return [
        _check(records, axes, row, reference.within, f"reference.rows.{number}")
        for number, row in enumerate(reference.rows)
    ]


def conclusion(checks: Sequence[Check], swept_as: str | None = None) -> str:
    """A sentence on the rows that do not agree, and on what was swept otherwise than planned.

    Args:
        swept_as: command of a sweep of other settings than those in the study's file.
    """
    failed = [f"{_label(c)} {c.explanation}" for c in checks if c.outcome != "agrees"]
    short = [f"{_label(c)} on {c.replicates}" for c in checks if c.is_short]
    text = "All agree"
    if failed:
        text = f"{len(failed)} of {len(checks)} do not agree: {'; '.join(failed)}"
    if short:
        text += f". Means are over fewer replicates than planned: {'; '.join(short)}"
    if swept_as:
        text += f". Not the settings of the file; swept as: {swept_as}"
        return text
    return f"{text}."


def other_settings(published: Study, swept: Study) -> str | None:
    """Command of a sweep of other trials than those of the study with the published figures; it
    says where that study's file has changed since. None where the trials are the same."""
    parts = [(describe(s.base), s.axes, s.search, s.stop) for s in (published, swept)]
    if parts[0] == parts[1]:
        return None
    command = without_secrets(swept.command())
    return f"{command}, before the file changed" if command == published.command() else command


def _label(check: Check) -> str:
    return f"{check.name} at {density_text(check.row.density)}"


def check_table(checks: Sequence[Check]) -> Table:
    """The outcomes for a terminal: accuracies in percent, differences in points."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("method", overflow="fold")
    for name in ("density", "published", "measured", "seeds", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for check in checks:
        measured, difference = check.measured, check.difference
        table.add_row(
            Text(check.name),
            density_text(check.row.density),
            f"{check.row.accuracy:.2f}",
            _interval(measured) if measured else MISSING,
            Text(check.replicates, style="yellow" if check.is_short else "")
            if measured
            else MISSING,
            MISSING if difference is None else f"{difference:+.2f}",
            Text(check.explanation, style=STYLES[check.outcome]),
        )
    return table


def _interval(measured: Summary) -> str:
    width = "" if measured.high is None else f"±{measured.high - measured.mean:.2f}"
    return f"{measured.mean:.2f}{width}"


def _check(
    records: Sequence[Record], axes: Sequence[str], row: ReferenceRow, within: float, path: str
) -> Check:
    _check_row(records, row, path)
    groups = list(_groups(records, axes, row))
    cells = {cell for cell, _ in groups}
    if len(cells) > 1:
        rule = "must name one cell of the study, by values of its axes"
        raise SpecError(f"{path}.where", rule, row.where, sorted(cells))
    nearest = min(groups, key=lambda group: _distance(group[1], row), default=None)
    if nearest is None:
        return Check(row=row, outcome="not run")
    rows, density = nearest[1], _density(nearest[1])
    if _distance(rows, row) > log(SAME_DENSITY):
        return Check(row=row, density=density, outcome="not run")
    measured = summarize([100 * record["final_test_accuracy"] for record in rows])
    # In binary fractions 92.26 - 91.26 is slightly more than 1.
    agrees = abs(measured.mean - row.accuracy) <= within + 1e-9
    outcome = "agrees" if agrees else "differs"
    planned = max(
        (r["replicates_planned"] for r in rows if "replicates_planned" in r), default=None
    )
    return Check(row=row, density=density, measured=measured, planned=planned, outcome=outcome)


def _check_row(records: Sequence[Record], row: ReferenceRow, path: str) -> None:
    """Refuse names that no record has: such a row would read as not swept."""
    for name in row.where:
        if records and not any(name in record for record in records):
            known = sorted({each for record in records for each in record})
            raise SpecError(f"{path}.where", "must name axes or columns of the study", name, known)
    if row.branch not in BRANCHES and row.branch != "dense":
        raise SpecError(f"{path}.branch", "is not a known branch", row.branch, ("dense", *BRANCHES))


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a record's value is the wanted one; steps may be spelled as `5` and `5it`."""
    steps = [re.fullmatch(r"(\d+)(it)?", str(each)) for each in (value, wanted)]
    return value == wanted or bool(steps[0] and steps[1] and steps[0][1] == steps[1][1])


def _groups(
    records: Sequence[Record], axes: Sequence[str], row: ReferenceRow
) -> Iterator[tuple[str, list[Record]]]:
    """Cell and records of each cell and level that match a row, with one record a seed."""
    names = [axis for axis in axes if axis != "seed"]
    wanted = {"method": row.method, "branch": row.branch, **row.where}
    groups: dict[tuple[str, int], dict[int, Record]] = defaultdict(dict)
    for record in records:
        if record["density"] > 0 and all(_equal(record.get(k), v) for k, v in wanted.items()):
            cell = ", ".join(f"{name}={record.get(name)}" for name in names)
            groups[cell, record["level"]][record["seed"]] = record
    for (cell, _), rows in groups.items():
        yield cell, list(rows.values())


def _density(rows: Sequence[Record]) -> float:
    return fmean(row["density"] for row in rows)


def _distance(rows: Sequence[Record], row: ReferenceRow) -> float:
    """Distance of the mean density from the row's, as the absolute difference of logarithms."""
    return abs(log(_density(rows) / row.density))
