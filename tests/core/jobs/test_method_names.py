"""The short name of each way, and what each level's ticket is pruned by."""

import pytest
from toys import jobs_of

from lth_core import PruneSpec, TicketSpec
from lth_core.jobs.methods import method
from lth_core.jobs.recipes import Job, Pruned

BEFORE, DURING = {"when": "before"}, {"when": "during"}
NEVER = {"when": "never", "score": "edge-popup"}


@pytest.mark.parametrize(
    ("fields", "rewind", "name"),
    [
        ({}, "0it", "imp"),
        ({}, "500it", "imp-rewind"),
        ({"one_shot": True}, "0it", "one-shot"),
        ({"one_shot": True}, "500it", "one-shot-rewind"),
        ({"score": "movement"}, "0it", "imp-movement"),
        ({"score": "movement", "one_shot": True}, "5it", "one-shot-movement-rewind"),
        ({"score": "mine:score"}, "0it", "imp-mine:score"),
        ({"scope": "global"}, "0it", "imp"),
        ({"scope": "erk"}, "0it", "imp-erk"),
        ({"scope": "like:snip"}, "0it", "imp-like-snip"),
        ({"structure": "channels"}, "5it", "imp-rewind-channels"),
        ({"structure": "2:4", "fraction": 0.5, "one_shot": True}, "0it", "one-shot-2:4"),
        (BEFORE, "0it", "magnitude-init"),
        ({**BEFORE, "score": "random"}, "0it", "random"),
        ({**BEFORE, "score": "random", "scope": "erk"}, "0it", "random-erk"),
        ({**BEFORE, "score": "random", "scope": "like:synflow"}, "0it", "random-like-synflow"),
        ({**BEFORE, "score": "snip"}, "0it", "snip"),
        ({**BEFORE, "score": "grasp"}, "500it", "grasp"),
        ({**BEFORE, "score": "synflow", "structure": "neurons"}, "0it", "synflow-neurons"),
        (DURING, "0it", "gmp"),
        ({**DURING, "score": "snip"}, "0it", "gradual-snip"),
        ({**DURING, "grow": "random"}, "0it", "set"),
        ({**DURING, "grow": "gradient"}, "0it", "rigl"),
        ({**DURING, "grow": "gradient", "scope": "erk"}, "0it", "rigl-erk"),
        (NEVER, "0it", "edge-popup"),
        ({**NEVER, "score": "supermask", "scope": "global"}, "0it", "supermask"),
    ],
)
def test_method_is_the_short_name_of_the_way(
    fields: dict[str, object], rewind: str, name: str
) -> None:
    spec = TicketSpec(prune=PruneSpec(**fields), rewind=rewind, levels=1)  # type: ignore[arg-type]
    assert method(spec) == name


def tickets(**fields: object) -> list[Job]:
    """The tickets of three levels."""
    prune = PruneSpec(**fields)  # type: ignore[arg-type]
    jobs = jobs_of(TicketSpec(prune=prune, branches=("ticket",), levels=3))
    return [level["ticket"] for level in jobs[1:]]


@pytest.mark.parametrize(
    ("fields", "fractions"),
    [
        ({}, [0.5, 0.2, 0.75]),
        ({"one_shot": True}, [0.5, 0.6, 0.9]),
        (BEFORE, [0.5, 0.6, 0.9]),
        (DURING, [0.5, 0.6, 0.9]),
        (NEVER, [0.5, 0.6, 0.9]),
    ],
)
def test_given_densities_are_reached_level_by_level_or_at_once(
    fields: dict[str, object], fractions: list[float]
) -> None:
    found = []
    for job in tickets(densities=(0.5, 0.4, 0.1), **fields):
        by = job.mask.prune if isinstance(job.mask, Pruned) else job.finds
        assert by is not None
        found.append(by.fraction)
    assert found == pytest.approx(fractions)


@pytest.mark.parametrize("grow", ["random", "gradient"])
def test_where_weights_grow_back_the_run_begins_as_sparse_as_it_ends(grow: str) -> None:
    own = {"output_fraction": 0.1, "ignore": ("fc1",), "layer_fractions": {"fc2": 0.3}}
    for job in tickets(grow=grow, scope="erk", fraction=0.5, **own, **DURING):
        assert isinstance(job.mask, Pruned)
        for name in ("fraction", "scope", *own):
            assert getattr(job.mask.prune, name) == getattr(job.finds, name)
