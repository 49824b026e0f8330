"""The order of pieces, without a cluster: Tune's part is played by hand."""

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


def test_pieces_wait_for_what_another_is_training() -> None:
    from sweeps.once import Piece, TrainOnce

    stored: set[str] = set()
    needs = [[dense(0), ticket(0)], [dense(0), ticket(0)], [dense(0)], [dense(1)], []]
    pieces = [Piece({"work": number}, jobs) for number, jobs in enumerate(needs)]
    order = TrainOnce(pieces, lambda job: job.digest in stored)
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") == {"work": 3}
    assert order.suggest("c") == {"work": 4}
    assert order.suggest("d") is None
    stored.add(dense(0).digest)
    assert order.suggest("d") == {"work": 2}
    assert order.suggest("e") is None
    stored.add(ticket(0).digest)
    assert order.suggest("e") == {"work": 1}
    assert order.suggest("f") is None, "something is still running"
    for trial in "abcde":
        order.on_trial_complete(trial)
    assert order.suggest("f") == TrainOnce.FINISHED


def test_the_next_piece_takes_over_where_the_first_failed() -> None:
    from sweeps.once import Piece, TrainOnce

    pieces = [Piece({"work": number}, [dense(0)]) for number in range(2)]
    order = TrainOnce(pieces, lambda job: False)
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") is None
    order.on_trial_complete("a", error=True)
    assert order.suggest("b") == {"work": 1}


def test_a_finished_piece_may_be_followed_by_others() -> None:
    from sweeps.once import Piece, TrainOnce

    def then(piece: Piece) -> list[Piece]:
        return [Piece({"work": piece.config["work"] + 1}, [])] if piece.config["work"] < 2 else []

    order = TrainOnce([Piece({"work": 0}, [])], lambda job: False, then)
    for number in range(3):
        assert order.suggest("a") == {"work": number}
        assert order.suggest("b") is None
        order.on_trial_complete("a")
    assert order.suggest("a") == TrainOnce.FINISHED
