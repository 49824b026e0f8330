"""Tickets that a study's trials start from, by the names that the study gives."""

from __future__ import annotations

import os.path
import re
from typing import Any

from lth_core.errors import SpecError
from lth_core.jobs.transfer import GivenTicket
from lth_core.lottery import job_of
from lth_core.resolve import check_unchanged
from lth_core.store import Store, open_store
from lth_core.store.kinds import DIGEST
from lth_core.ticket import Ticket, load_ticket
from lth_core.train import Trainer
from sweeps.plan.recorded import tickets_by_digest
from sweeps.studies.axes import variants
from sweeps.studies.reader import parse_stored_spec
from sweeps.studies.schema import Study

SHORTEST_DIGEST = 6
"""Least number of characters of a digest."""
_START = re.compile(rf"[0-9a-f]{{{SHORTEST_DIGEST},64}}")


def study_tickets(study: Study) -> dict[str, Ticket]:
    """The tickets that a study's `ticket` names, by name: files, or digests in its store.

    A digest is left out where the store has the ticket, but no longer the search that found it.

    Raises:
        SpecError: a name is neither; or the search is adaptive.
        TicketFileError: a file is altered, or no ticket.
        StoreError: the store lacks what a ticket is made from.
    """
    values = (fields.get("ticket", study.base.ticket) for fields in variants(study, "ticket"))
    names = [value for value in values if isinstance(value, str)]  # the reader refuses others
    if names and study.search.algorithm == "optuna":
        rule = "must be grid or random beside ticket"
        raise SpecError("search.algorithm", rule, study.search.algorithm)
    found = {}
    for name in names:
        ticket = load_ticket(name) if os.path.isfile(name) else _stored(study, name)
        if ticket:
            found[name] = ticket
    return found


def _stored(study: Study, digest: str) -> Ticket | None:
    rule = f"must be a ticket file, or the digest of a ticket in {study.store}, or its start of at "
    rule += f"least {SHORTEST_DIGEST} characters"
    if not _START.fullmatch(digest):
        raise SpecError("ticket", rule, digest)
    store = open_store(study.store, make=False)
    found = tickets_by_digest(store, digest)
    if len(found) == 1:
        ((first, *_),) = found.values()
        return _made(store, *first)
    if re.fullmatch(DIGEST, digest) and store.has("tickets", GivenTicket(content=digest).digest):
        return None
    raise SpecError("ticket", rule, digest, sorted(found))


def _made(store: Store, trial: dict[str, Any], record: dict[str, Any]) -> Ticket:
    """The ticket of a record, made from the trainings in the store."""
    spec, level, branch = parse_stored_spec(trial["spec"]), record["level"], record["branch"]
    check_unchanged(spec, "the ticket was found")
    trainer = Trainer(store, "cpu", frozen=True)
    return trainer.ticket(spec, level, branch, job_of(spec, level, branch))
