"""Tickets of the store and of files: export by digest, and description."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.files.export import Export
from lth_core.files.weights import write_file
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.models.layers import load_state
from lth_core.resolve import resolve
from lth_core.spec import TicketSpec
from lth_core.store import existing_store
from lth_core.ticket import Ticket, load_ticket
from lth_core.train import Trainer
from sweeps.plan.recorded import ticket_records
from sweeps.plan.tickets import SHORTEST_DIGEST
from sweeps.studies.reader import parse_stored_spec


def export(
    store: str,
    digest: str,
    output: Path | None,
    *,
    compact: bool = False,
    onnx: Path | None = None,
    torch_export: Path | None = None,
) -> list[str]:
    """Write the ticket of a digest, or the smaller network of its training, to files.

    Args:
        output: file of the ticket or, with `compact`, of the smaller network's trained weights.
            Without it only the other files are written.
        onnx, torch_export: files of the smaller network in these formats.

    Returns:
        A description of each file.

    Raises:
        SpecError: no ticket, or more than one, has the digest; the network cannot be made smaller
            or exported.
        StoreError: the store lacks the training of the ticket.
        TicketFileError: a file cannot be written.
    """
    found, files = find_ticket(store, digest), list[tuple[Path, bytes, str]]()
    if output and not compact:
        ticket = found.ticket()
        described = f"level {ticket.level} {ticket.branch}, density {ticket.density:.4f}"
        files.append((output, ticket.to_bytes(), described))
    if compact or onnx or torch_export:
        smaller = found.smaller()
        contents = {output if compact else None: smaller.to_bytes, onnx: smaller.to_onnx,
                    torch_export: smaller.to_torch}  # fmt: skip
        files += [(path, content(), str(smaller)) for path, content in contents.items() if path]
    for path, content, _ in files:
        write_file(path, content)
    return [f"{path}: {described}" for path, _, described in files]


def stored_ticket(store: str, digest: str) -> Ticket:
    """The ticket of a digest, or of its start.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
        StoreError: the store lacks the training of the ticket.
    """
    return find_ticket(store, digest).ticket()


@dataclass(frozen=True, slots=True)
class FoundTicket:
    """A ticket of the store, and the training that started from it."""

    trainer: Trainer
    spec: TicketSpec
    record: Record
    job: Job

    def ticket(self) -> Ticket:
        level, branch = self.record["level"], self.record["branch"]
        return self.trainer.ticket(self.spec, level, branch, self.job)

    def smaller(self) -> Export:
        """The smaller network with the trained weights."""
        full = copy.deepcopy(self.trainer.model(self.job))
        state, mask = self.trainer.final(self.job)
        load_state(full, state)
        return Export.of(
            full, mask, self.trainer.data(self.job), self.job.model,
            test_accuracy=self.record["final_test_accuracy"],
            ticket_digest=self.record["ticket_digest"], training_digest=self.job.digest,
        )  # fmt: skip


def find_record(store: str, digest: str) -> tuple[dict[str, Any], Record]:
    """A ticket's trial and record, by the ticket's digest or its start.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
    """
    if len(digest) < SHORTEST_DIGEST:
        raise SpecError("DIGEST", f"must have at least {SHORTEST_DIGEST} characters", digest)
    tickets = ticket_records(existing_store(store, "--store"))
    matches = {d: found for d, found in tickets.items() if d.startswith(digest)}
    if len(matches) != 1:
        rule = f"must be the digest of one ticket in {store}, listed by `lth ticket ls`"
        raise SpecError("DIGEST", rule, digest, sorted(matches))
    (found,) = matches.values()
    return found


def find_ticket(store: str, digest: str) -> FoundTicket:
    """A ticket of the store, by its digest or its start.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
    """
    trial, record = find_record(store, digest)
    spec = resolve(parse_stored_spec(trial["spec"]))
    job = list(levels(spec))[record["level"]][record["branch"]]
    trainer = Trainer(existing_store(store, "--store"), "cpu", frozen=True)
    return FoundTicket(trainer, spec, record, job)


def open_ticket(store: str, name: str) -> Ticket:
    """The ticket of a file, or of a digest in the store.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
        TicketFileError: the file is missing or damaged.
        StoreError: the store lacks the training of the ticket.
    """
    is_digest = re.fullmatch("[0-9a-f]{1,64}", name) and not os.path.isfile(name)
    return stored_ticket(store, name) if is_digest else load_ticket(name)


def describe_ticket(ticket: Ticket) -> dict[str, str]:
    """Header and counts of a ticket."""
    return {
        "ticket_digest": ticket.digest,
        "branch": ticket.branch,
        "level": str(ticket.level),
        "density": f"{ticket.density:.6f}",
        "weights_kept": str(sum(int(m.sum()) for m in ticket.mask.values())),
        "rewind_step": str(ticket.rewind_step),
        "model": ticket.spec.model.name,
        "data": ticket.spec.data.name,
        "seed": str(ticket.spec.seed),
        "shapes": json.dumps({name: list(m.shape) for name, m in ticket.mask.items()}),
    }
