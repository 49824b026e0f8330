"""The order of lots, without a cluster: Tune's part is played by hand."""

import pytest

from lth_core.jobs import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.spec import TicketSpec

pytestmark = pytest.mark.ray  # imports Ray, starts none


def dense(seed: int) -> Job:
    return next(levels(resolve(TicketSpec(seed=seed))))["dense"]


def test_lots_wait_for_the_dense_run_that_another_is_training() -> None:
    from sweeps.dense_first import DenseFirst

    stored: set[str] = set()
    order = DenseFirst([dense(0), dense(0), dense(1), None], lambda job: job.digest in stored)
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") == {"work": 2}
    assert order.suggest("c") == {"work": 3}
    assert order.suggest("d") is None
    stored.add(dense(0).digest)
    assert order.suggest("d") == {"work": 1}
    assert order.suggest("e") == DenseFirst.FINISHED


def test_the_next_lot_takes_over_where_the_first_failed() -> None:
    from sweeps.dense_first import DenseFirst

    order = DenseFirst([dense(0), dense(0)], lambda job: False)
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") is None
    order.on_trial_complete("a", error=True)
    assert order.suggest("b") == {"work": 1}
