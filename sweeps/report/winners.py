"""Tickets of a study that MLflow registers: the sparsest winning one of each cell."""

from __future__ import annotations

from collections.abc import Sequence

from lth_core.analysis.groups import group_by, key_of, values_of
from lth_core.analysis.verdict import sparsest
from lth_core.columns import Record
from sweeps.report.study_results import StudyResults
from tracking.publish.tickets.registry import FoundTicket

PROVENANCE = ("seed", "branch", "method", "verdict", "weights_kept", "rewind_step", "spec_digest",
              "mask_digest", "training_digest")  # fmt: skip
"""Columns of a record that are tags of its registered ticket."""


def winning_tickets(study: str, results: StudyResults) -> list[FoundTicket]:
    """The sparsest winning ticket of each cell, of the cell's first seed; equal tickets once.

    The seed is not chosen by accuracy: the ticket's accuracy would then be a maximum over seeds.
    """
    cells = group_by(results.verdicts, lambda verdict: list(verdict.cell.values()))
    best = (sparsest(verdicts, ["winning"]) for verdicts in cells.values())
    place = values_of(["level", *(axis for axis in results.axes if axis != "seed")])
    tickets = group_by((row for row in results.records if row["branch"] == "ticket"), place)
    places = (key_of([found.level, *found.cell.values()]) for found in best if found)
    found = [
        found_ticket(study, min(rows, key=lambda row: row["seed"]), results.axes)
        for rows in (tickets.get(each, []) for each in places)
        if rows
    ]
    return list({ticket.digest: ticket for ticket in reversed(found)}.values())[::-1]


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
