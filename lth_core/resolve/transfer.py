"""Tickets that a search starts from: found, checked, and named by their digest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lth_core.errors import SpecError
from lth_core.jobs.branches import RETRAINED
from lth_core.jobs.transfer import check_layers_alike
from lth_core.masks import parameter_of
from lth_core.spec import TicketSpec
from lth_core.store.kinds import DIGEST
from lth_core.ticket import Ticket, load_ticket


def check_transfer(spec: TicketSpec) -> None:
    """Check that the fields of a search fit a given ticket.

    Args:
        spec: a spec with a ticket.

    Raises:
        SpecError: a field asks for what a given ticket does not have.
    """
    retrained = [branch for branch in spec.branches if branch in RETRAINED]
    rules = {
        "levels": (spec.levels == 1, "must be 1 beside ticket, which is the only level"),
        "prune.when": (spec.prune.when == "after", "must be after beside ticket"),
        "prune.structure": (spec.prune.structure == "weights", "must be weights beside ticket"),
        "predictors": (not spec.predictors, "must be false beside ticket, which is not rewound"),
        "branches": (not retrained, f"must be without {retrained} beside ticket"),
    }
    for field, (is_met, rule) in rules.items():
        if not is_met:
            part, _, name = field.rpartition(".")
            raise SpecError(field, rule, getattr(getattr(spec, part) if part else spec, name))


def with_ticket_digest(
    spec: TicketSpec, tickets: Mapping[str, Ticket], shapes: Mapping[str, tuple[int, ...]]
) -> TicketSpec:
    """The spec with the digest of its ticket, whose layers are checked.

    A digest that is not among the tickets stays: a resolved spec is resolved again.

    Args:
        spec: a spec with a ticket.
        tickets: as in `resolve`.
        shapes: shapes of the network's prunable layers, by name.

    Raises:
        SpecError: the ticket is no file, or does not fit the network.
        TicketFileError: the file is altered, or no ticket.
    """
    name = spec.ticket
    assert name is not None
    if name not in tickets and re.fullmatch(DIGEST, name):
        return spec
    ticket = tickets[name] if name in tickets else _read(name)
    layers = {parameter_of(layer): shape for layer, shape in shapes.items()}
    check_layers_alike({layer: mask.shape for layer, mask in ticket.mask.items()}, layers)
    return replace(spec, ticket=ticket.digest)


def _read(name: str) -> Ticket:
    if not Path(name).is_file():
        rule = "must be a ticket file, or the digest of a ticket in the study's store, or its start"
        raise SpecError("ticket", rule, name)
    return load_ticket(name)
