"""Small real searches on the digits, trained once a session."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from places import files, nfs  # noqa: F401  fixtures
from toys import BRANCHES

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.jobs.recipes import Job
from lth_core.masks import State
from lth_core.results import LevelResult


@pytest.fixture(scope="session")
def small() -> TicketSpec:
    """32-16 on the digits: 40 steps, two levels of pruning, rewinding to step 7, all branches."""
    return TicketSpec(
        model=ModelSpec(widths=(32, 16)),
        train=TrainSpec(lr=0.01, steps=40, evaluate_every=10),
        prune=PruneSpec(fraction=0.5, output_fraction=0.25),
        levels=2,
        rewind=7,
        branches=BRANCHES,
    )


@pytest.fixture(scope="session")
def trainer() -> Trainer:
    """One for the session: what one test has trained the next is given."""
    return Trainer()


@pytest.fixture(scope="session")
def search(small: TicketSpec, trainer: Trainer) -> list[LevelResult]:
    """The levels of `small`."""
    return list(find_tickets(small, trainer))


@pytest.fixture
def final(trainer: Trainer) -> Callable[[Job], State]:
    """Weights and buffers after a job's last step."""
    return lambda job: trainer.final(job)[0]


@pytest.fixture(scope="session")
def normed(small: TicketSpec) -> TicketSpec:
    """`small` on a network with batch norm."""
    model = ModelSpec(name="toys:batch_norm_net")
    return replace(small, model=model, branches=("ticket",), levels=1)
