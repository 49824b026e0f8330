"""Tickets of a study that MLflow registers: the sparsest winning one of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lth_core.analysis.groups import group_by, key_of, values_of
from lth_core.analysis.verdict import Verdict, sparsest
from lth_core.columns import Record
from sweeps.report.study_results import StudyResults
from tracking.publish.tickets.registry import FoundTicket

PROVENANCE = ("seed", "branch", "method", "verdict", "weights_kept", "rewind_step", "spec_digest",
              "mask_digest", "training_digest")  # fmt: skip
"""Columns of a record that are tags of its registered ticket."""


def winning_tickets(study: str, results: StudyResults) -> list[FoundTicket]:
    """The sparsest winning ticket of each cell, of the cell's first seed.

    The seed is not chosen by accuracy: the ticket's accuracy would then be a maximum over seeds.
    """
    cells = group_by(results.verdicts, lambda verdict: list(verdict.cell.values()))
    best = (sparsest(verdicts, ["winning"]) for verdicts in cells.values())
    tickets = (_tickets_of(found, results.records, results.axes) for found in best if found)
    return [
        found_ticket(study, min(rows, key=lambda row: row["seed"]), results.axes)
        for rows in tickets
        if rows
    ]


def found_ticket(study: str, record: Record, axes: Sequence[str]) -> FoundTicket:
    """The ticket of a record."""
    known = {name: record[name] for name in PROVENANCE if record.get(name) is not None}
    return FoundTicket(
        run_key=record["spec_digest"],
        level=record["level"],
        density=record["density"],
        digest=record["ticket_digest"],
        study=study,
        cell={axis: record.get(axis) for axis in axes if axis != "seed"},
        provenance={"test_accuracy": f"{record['final_test_accuracy']:.4f}", **known},
    )


def _tickets_of(
    verdict: Verdict, records: Iterable[Record], axes: Sequence[str]
) -> list[Record]:  # fmt: skip
    """The records of the tickets that a verdict is about."""
    place = values_of(["level", *(axis for axis in axes if axis != "seed")])
    key = key_of([verdict.level, *verdict.cell.values()])
    return [row for row in records if row["branch"] == "ticket" and key_of(place(row)) == key]
