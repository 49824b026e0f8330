"""The order of pieces, without a cluster: Tune's part is played by hand."""

from typing import Any

import pytest

from lth_core.jobs import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.spec import TicketSpec

pytestmark = pytest.mark.ray  # imports Ray, starts none


def dense(seed: int) -> Job:
    return next(levels(resolve(TicketSpec(seed=seed))))["dense"]


def ticket(seed: int) -> Job:
    return list(levels(resolve(TicketSpec(seed=seed, levels=1))))[1]["ticket"]


def begun(order: Any) -> Any:
    """In its first round."""
    return next(order.rounds(100))


def test_pieces_wait_for_what_another_is_training() -> None:
    from sweeps.once import Piece, TrainOnce

    stored: set[str] = set()
    needs = [[dense(0), ticket(0)], [dense(0), ticket(0)], [dense(0)], [dense(1)], []]
    pieces = [Piece({"work": number}, jobs) for number, jobs in enumerate(needs)]
    order = begun(TrainOnce(pieces, lambda job: job.digest in stored))
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") == {"work": 3}
    assert order.suggest("c") == {"work": 4}
    assert order.suggest("d") is None
    stored.add(dense(0).digest)
    assert order.suggest("d") == {"work": 2}
    assert order.suggest("e") is None
    stored.add(ticket(0).digest)
    order.on_trial_complete("c")
    assert order.suggest("e") == {"work": 1}
    assert order.suggest("f") is None, "something is still running"
    for trial in "abde":
        order.on_trial_complete(trial)
    assert order.suggest("f") == TrainOnce.FINISHED


def test_the_next_piece_takes_over_where_the_first_failed() -> None:
    from sweeps.once import Piece, TrainOnce

    pieces = [Piece({"work": number}, [dense(0)]) for number in range(2)]
    order = begun(TrainOnce(pieces, lambda job: False))
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") is None
    order.on_trial_complete("a", {"failed": [["a", "the loss is not finite"]]})
    assert order.suggest("b") == {"work": 1}


def test_a_finished_piece_may_be_followed_by_others() -> None:
    from sweeps.once import Piece, TrainOnce

    def then(piece: Piece) -> list[Piece]:
        return [Piece({"work": piece.config["work"] + 1}, [])] if piece.config["work"] < 2 else []

    order = begun(TrainOnce([Piece({"work": 0}, [])], lambda job: False, then=then))
    for number in range(3):
        assert order.suggest("a") == {"work": number}
        assert order.suggest("b") is None
        order.on_trial_complete("a")
    assert order.suggest("a") == TrainOnce.FINISHED


def test_a_piece_whose_worker_dies_goes_out_again_as_long_as_it_comes_further() -> None:
    from sweeps.once import RETRIES, Piece, TrainOnce

    steps = iter([0, 10, 20, 30, *[40] * 10])
    order = begun(TrainOnce([Piece({"name": "x"}, [])], lambda job: True, lambda p: next(steps)))
    for number in range(4 + 1 + RETRIES):
        assert order.suggest(str(number)) == {"name": "x"}, number
        order.on_trial_complete(str(number), error=True)
    assert order.suggest("last") == TrainOnce.FINISHED, "it came no further and was given up"


def test_one_tuner_is_given_so_many_pieces_and_the_next_one_the_rest() -> None:
    from sweeps.once import Piece, TrainOnce

    order = TrainOnce([Piece({"work": n}, []) for n in range(5)], lambda job: False)
    handed: list[list[int]] = []
    for tuner in order.rounds(2):
        handed.append([])
        while (config := tuner.suggest(f"{handed}")) != TrainOnce.FINISHED:
            handed[-1].append(config["work"])
            tuner.on_trial_complete(f"{handed[:-1] + [handed[-1][:-1]]}")
    assert handed == [[0, 1], [2, 3], [4]]


def test_nothing_more_goes_out_once_the_store_cannot_be_written() -> None:
    from sweeps.once import Piece, TrainOnce

    order = begun(TrainOnce([Piece({"work": n}, []) for n in range(5)], lambda job: False))
    order.suggest("a")
    order.on_trial_complete("a", {"store": "no space left"})
    assert order.suggest("b") == TrainOnce.FINISHED
