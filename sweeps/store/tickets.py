"""Tickets of the store: export by digest, list, and description of ticket files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lth_core.columns import Record
from lth_core.errors import SpecError
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.store import Store, existing_store
from lth_core.ticket import Ticket, load_ticket
from lth_core.train import Trainer
from sweeps.store.records import every_trial
from sweeps.studies.reader import parse_stored_spec

SHORTEST_DIGEST = 6
"""Least number of characters of a digest on the command line."""


def export(store: str, digest: str, output: Path) -> Ticket:
    """Write the ticket of a digest to a file.

    Raises:
        SpecError: no ticket, or more than one, has the digest.
        StoreError: the store lacks the training of the ticket.
    """
    if len(digest) < SHORTEST_DIGEST:
        raise SpecError("DIGEST", f"must have at least {SHORTEST_DIGEST} characters", digest)
    opened = existing_store(store, "--store")
    matches = {d: found for d, found in _tickets(opened).items() if d.startswith(digest)}
    if len(matches) != 1:
        rule = f"must be the digest of one ticket in {store}, listed by `lth ticket ls`"
        raise SpecError("DIGEST", rule, digest, sorted(matches))
    ((trial, record),) = matches.values()
    spec, trainer = resolve(parse_stored_spec(trial["spec"])), Trainer(opened, frozen=True)
    level, branch = record["level"], record["branch"]
    job = list(levels(spec))[level][branch]
    ticket = trainer.ticket(spec, level, branch, job)
    ticket.save(output)
    return ticket


def listing(store: str) -> list[dict[str, Any]]:
    """Records of the tickets in the store, each ticket once."""
    return [record for _, record in _tickets(existing_store(store, "--store")).values()]


def _tickets(store: Store) -> dict[str, tuple[dict[str, Any], Record]]:
    """A trial with each ticket and its record there, by the ticket's digest.

    Several trainings may start from one ticket, such as a twin or one with `restart_schedule`. The
    record is of the branch `ticket` where there is one, else of the first branch.
    """
    found: dict[str, tuple[dict[str, Any], Record]] = {}
    for trial in every_trial(store):
        for record in trial["records"]:
            _, known = found.setdefault(record["ticket_digest"], (trial, record))
            if record["branch"] == "ticket" != known["branch"]:
                found[record["ticket_digest"]] = trial, record
    return found


def describe_ticket(path: Path) -> dict[str, str]:
    """Header and counts of a ticket file, after a check of the whole file.

    Raises:
        TicketFileError: the file is damaged.
    """
    ticket = load_ticket(path)
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
