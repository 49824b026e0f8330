"""Tickets of the store and of files: export by digest, and description."""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.files.export import Export
from lth_core.files.weights import write_file
from lth_core.jobs.recipes import Job
from lth_core.lottery import job_of
from lth_core.models.layers import load_state
from lth_core.resolve import check_unchanged
from lth_core.spec import TicketSpec
from lth_core.store import existing_store
from lth_core.ticket import Ticket, load_ticket
from lth_core.train import Trainer
from sweeps.plan.recorded import Found, tickets_by_digest
from sweeps.plan.tickets import SHORTEST_DIGEST
from sweeps.studies.reader import parse_stored_spec


def export(
    store: str,
    digest: str,
    output: Path | None,
    *,
    training: str | None = None,
    compact: bool = False,
    onnx: Path | None = None,
    torch_export: Path | None = None,
) -> list[str]:
    """Write the ticket of a digest, or the smaller network of its training, to files.

    Args:
        output: file of the ticket or, with `compact`, of the smaller network's trained weights.
            Without it only the other files are written.
        training: digest, or its start, of the training; needed for the smaller network where
            several started from the ticket.
        onnx, torch_export: files of the smaller network in these formats.

    Returns:
        A description of each file.

    Raises:
        SpecError: no ticket, or more than one, has the digest; the network cannot be made smaller
            or exported.
        StoreError: the store lacks the training of the ticket.
        TicketFileError: a file cannot be written.
    """
    options = {"--output": output, "--onnx": onnx, "--torch-export": torch_export}
    given = [path.resolve() for path in options.values() if path]
    for option, path in options.items():
        if path and given.count(path.resolve()) > 1:
            raise SpecError(option, "must be a file of its own", str(path))
        if path and not path.parent.is_dir():
            raise SpecError(option, "must lie in a folder that exists", str(path))
    smaller_files = bool(compact or onnx or torch_export)
    found = find_ticket(store, digest, training or "", one_training=smaller_files)
    files = list[tuple[Path, bytes, str]]()
    if output and not compact:
        ticket = found.ticket()
        described = f"level {ticket.level} {ticket.branch}, density {ticket.density:.4f}"
        files.append((output, ticket.to_bytes(), described))
    if smaller_files:
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
class StoredTicket:
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


def find_records(store: str, digest: str) -> list[Found]:
    """The trials and records of a ticket's trainings, by the ticket's digest or its start; first
    that of its branch `ticket`, if it has one.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
    """
    if len(digest) < SHORTEST_DIGEST:
        raise SpecError("DIGEST", f"must have at least {SHORTEST_DIGEST} characters", digest)
    matches = tickets_by_digest(existing_store(store, "--store"), digest)
    if len(matches) != 1:
        rule = f"must be the digest of one ticket in {store}, listed by `lth ticket ls`"
        raise SpecError("DIGEST", rule, digest, sorted(matches))
    (found,) = matches.values()
    return found


def find_ticket(
    store: str, digest: str, training: str = "", *, one_training: bool = False
) -> StoredTicket:
    """A ticket of the store, by its digest or its start.

    Args:
        training: start of the digest of the training that started from it.
        one_training: whether only one training may fit; a twin counts where it is named alone.

    Raises:
        SpecError: no ticket, or more than one, has the digest; no training, or more than one, fits;
            the code or data of its search have changed since.
    """
    trainings: dict[str, Found] = {}
    for found in find_records(store, digest):
        trainings.setdefault(found[1]["training_digest"], found)
    fitting = [each for each in trainings if each.startswith(training)]
    if not training:
        twins = [each for each in fitting if trainings[each][1]["branch"] == "twin"]
        fitting = [each for each in fitting if each not in twins] or twins
    if len(fitting) != 1 and (training or one_training):
        rule = "must be one training that started from this ticket, by its digest or its start"
        known = [f"{key[:12]} ({record['study']} {record['branch']}, test accuracy "
                 f"{record['final_test_accuracy']:.4f})"
                 for key, (_, record) in trainings.items()]  # fmt: skip
        raise SpecError("--training", rule, training or "none", known)
    trial, record = trainings[fitting[0]]
    spec = parse_stored_spec(trial["spec"])
    check_unchanged(spec, "the ticket was found")
    job = job_of(spec, record["level"], record["branch"])
    trainer = Trainer(existing_store(store, "--store"), "cpu", frozen=True)
    return StoredTicket(trainer, spec, record, job)


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
        "weights_kept": str(ticket.weights_kept),
        "rewind_step": str(ticket.rewind_step),
        "model": ticket.spec.model.name,
        "data": ticket.spec.data.name,
        "seed": str(ticket.spec.seed),
        "shapes": json.dumps({name: list(m.shape) for name, m in ticket.mask.items()}),
    }
