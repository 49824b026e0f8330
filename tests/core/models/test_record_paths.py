"""Equal specs give equal records and tickets, whatever way these come: trained at once, in parts, after
interruptions, or read from a store or a file.

Networks whose layers are not in alphabetical order, under settings whose counts depend on the order.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import same, timeless

from lth_core import (
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    find_tickets,
    load_ticket,
    models,
)
from lth_core.errors import PreemptedError
from lth_core.results import LevelResult
from lth_core.spec.fields import steps_in
from lth_core.store import Store, open_store

NETS = {
    "mlp": ModelSpec(widths=(12, 9)),
    "vit": ModelSpec(name="vit-tiny", width=0.25, depth=1),
    "lstm": ModelSpec(name="lstm", width=0.2),
    "conv": ModelSpec(name="conv-2", width=0.1),
    "tied": ModelSpec(name="odd_nets:tied"),
    "head_first": ModelSpec(name="odd_nets:head_first"),
}
PRUNES: dict[str, dict[str, Any]] = {
    "ignore": {"ignore": ("output",)},
    "output_fraction": {"output_fraction": 0.25},
    "global": {"layer_fractions": {"output": 0.2, "*o*": 0.1}, "scope": "global"},
    "channels": {"structure": "channels"},
    "neurons": {"structure": "neurons"},
    "2:4": {"structure": "2:4"},
    "erk": {"when": "before", "score": "snip", "scope": "erk", "output_fraction": 0.25},
    "like": {"scope": "like:snip", "ignore": ("output",)},
    "set": {"when": "during", "grow": "random", "every": "1it", "end": "2it", "ignore": ("output",)},
    "edge-popup": {"when": "never", "score": "edge-popup", "lr": 0.05, "output_fraction": 0.25},
}  # fmt: skip
CASES = [("mlp", "global"), ("vit", "neurons"), ("lstm", "output_fraction"),
         ("conv", "channels"), ("tied", "like"), ("tied", "set"), ("head_first", "ignore"),
         ("head_first", "2:4"), ("head_first", "erk"), ("head_first", "edge-popup")]  # fmt: skip
LONG = ("neurons", "channels", "output_fraction", "like", "2:4", "erk")


def spec_of(net: str, prune: str) -> TicketSpec:
    pruning = PruneSpec(**{"fraction": 0.5, **PRUNES[prune]})
    return TicketSpec(
        model=NETS[net],
        train=TrainSpec(lr=0.01, steps=3, evaluate_every=2),
        prune=pruning,
        levels=1,
        rewind=0 if pruning.when == "during" else 1,
        branches=("ticket", "random_mask")
        + (("finetune", "twin") if pruning.when == "after" else ()),
    )


def in_a_folder(spec: TicketSpec, folder: Path) -> list[LevelResult]:
    """Read by another process's trainer from the folder into which all was trained."""
    rows_of(find_tickets(spec, Trainer(open_store(str(folder)))))
    return list(find_tickets(spec, Trainer(open_store(str(folder)), frozen=True)))


def measured_later(spec: TicketSpec, folder: Path) -> list[LevelResult]:
    """Trained without measures, which are taken of what the store has."""
    store = Store()
    for _ in find_tickets(spec, Trainer(store)):
        pass
    return list(find_tickets(spec, Trainer(store, frozen=True)))


def extended(spec: TicketSpec, folder: Path) -> list[LevelResult]:
    """After a search of no levels, and one of another rewind point: the dense run lacks this one's."""
    store = Store()
    for other in (
        replace(spec, levels=0),
        replace(spec, rewind=1 - steps_in(spec.rewind), branches=("ticket",)),
    ):
        rows_of(find_tickets(other, Trainer(store)))
    return list(find_tickets(spec, Trainer(store)))


def interrupted(spec: TicketSpec, folder: Path) -> list[LevelResult]:
    """Interrupted after every step; a new process resumes each time."""
    store = Store()
    while True:
        trainer = Trainer(store)
        trainer.ending.set()
        try:
            return list(find_tickets(spec, trainer))
        except PreemptedError:
            models.template.cache_clear()


PATHS = (in_a_folder, measured_later, extended, interrupted)


def rows_of(levels: Any) -> list[dict[str, Any]]:
    return [timeless(row) for level in levels for row in level.records]


@pytest.mark.slow
@pytest.mark.parametrize(("net", "prune"), [
    pytest.param(*case, marks=pytest.mark.long if case[1] in LONG else ())
    for case in CASES
])  # fmt: skip
def test_records_and_tickets_do_not_depend_on_their_path(
    net: str, prune: str, tmp_path: Path
) -> None:
    spec = spec_of(net, prune)
    fresh = list(find_tickets(spec))
    expected = rows_of(fresh)
    for path in PATHS:
        models.template.cache_clear()  # as in a new process
        levels = path(spec, tmp_path / path.__name__)
        # As text: the order of layers and the last digit count too.
        assert json.dumps(rows_of(levels)) == json.dumps(expected), path.__name__
        for one, other in zip(fresh, levels, strict=True):
            for branch in one.results:
                ticket, again = one.ticket_of(branch), other.ticket_of(branch)
                assert (ticket.digest, list(ticket.mask)) == (again.digest, list(again.mask))
    for level in fresh:
        for row in level.records:
            ticket = level.ticket_of(row["branch"])
            ticket.save(tmp_path / "ticket")
            loaded = load_ticket(tmp_path / "ticket")
            assert loaded.digest == ticket.digest == row["ticket_digest"]
            assert loaded.density == ticket.density == row["density"]
            assert loaded.spec.digest() == row["spec_digest"]
            assert list(loaded.mask) == list(ticket.mask)
            assert same(loaded.start, ticket.start)
