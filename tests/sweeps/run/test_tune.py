"""Ray Tune's adapter, without a cluster: Tune's part is played by hand."""

import pytest

from lth_core import Trainer
from lth_core.errors import PreemptedError
from sweeps.run.queue import WorkItem, WorkQueue

pytestmark = pytest.mark.ray  # imports Ray, starts none


def test_one_tuner_is_given_so_many_items_and_the_next_one_the_rest() -> None:
    from sweeps.run.tune import QueueSearcher

    queue = WorkQueue([WorkItem({"work": n}, []) for n in range(5)], lambda job: False)
    handed: list[list[int]] = []
    while queue.is_pending:
        searcher, works = QueueSearcher(queue, 2), list[int]()
        while (config := searcher.suggest(str(len(works)))) != QueueSearcher.FINISHED:
            assert isinstance(config, dict)
            searcher.on_trial_complete(str(len(works)))
            works.append(config["work"])
        handed.append(works)
    assert handed == [[0, 1], [2, 3], [4]]


def test_searcher_tells_the_queue_what_a_worker_died_of() -> None:
    from sweeps.run.tune import QueueSearcher

    queue = WorkQueue([WorkItem({"name": "x"}, [])], lambda job: True)
    searcher = QueueSearcher(queue, 9)
    assert searcher.suggest("a") == {"name": "x"}
    assert searcher.suggest("b") is None, "x is running"
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b") == {"name": "x"}
    searcher.on_trial_complete("b", {"failed": [["x", "the loss is not finite"]]})
    assert searcher.suggest("c") == QueueSearcher.FINISHED


def test_worker_that_was_told_to_end_takes_no_other_trial() -> None:
    """By raising: where a worker says no, Tune drops the trial, and tells no searcher."""
    from sweeps.run.tune import Worker

    worker = Worker.__new__(Worker)
    worker._trainer = Trainer()
    worker._trainer.ending.set()
    with pytest.raises(PreemptedError):
        worker.reset_config({})
