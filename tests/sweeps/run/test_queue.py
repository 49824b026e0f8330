"""The order of pieces, without a cluster: Tune's part is played by hand."""

from collections import deque
from typing import Any

import pytest

from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
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
    from sweeps.run.queue import Piece, TrainOnce

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
    from sweeps.run.queue import Piece, TrainOnce

    pieces = [Piece({"work": number}, [dense(0)]) for number in range(2)]
    order = begun(TrainOnce(pieces, lambda job: False))
    assert order.suggest("a") == {"work": 0}
    assert order.suggest("b") is None
    order.on_trial_complete("a", {"failed": [["a", "the loss is not finite"]]})
    assert order.suggest("b") == {"work": 1}


def test_a_finished_piece_may_be_followed_by_others() -> None:
    from sweeps.run.queue import Piece, TrainOnce

    def then(piece: Piece) -> list[Piece]:
        return [Piece({"work": piece.config["work"] + 1}, [])] if piece.config["work"] < 2 else []

    order = begun(TrainOnce([Piece({"work": 0}, [])], lambda job: False, then=then))
    for number in range(3):
        assert order.suggest("a") == {"work": number}
        assert order.suggest("b") is None
        order.on_trial_complete("a")
    assert order.suggest("a") == TrainOnce.FINISHED


def test_a_piece_whose_worker_dies_goes_out_again_as_long_as_it_comes_further() -> None:
    from sweeps.run.queue import RETRIES, Piece, TrainOnce

    steps = iter([0, 10, 20, 30, *[40] * 10])
    order = begun(TrainOnce([Piece({"name": "x"}, [])], lambda job: True, lambda p: next(steps)))
    for number in range(4 + 1 + RETRIES):
        assert order.suggest(str(number)) == {"name": "x"}, number
        order.on_trial_complete(str(number), error=True)
    assert order.suggest("last") == TrainOnce.FINISHED, "it came no further and was given up"


def test_one_tuner_is_given_so_many_pieces_and_the_next_one_the_rest() -> None:
    from sweeps.run.queue import Piece, TrainOnce

    order = TrainOnce([Piece({"work": n}, []) for n in range(5)], lambda job: False)
    handed: list[list[int]] = []
    for tuner in order.rounds(2):
        handed.append([])
        while (config := tuner.suggest(f"{handed}")) != TrainOnce.FINISHED:
            handed[-1].append(config["work"])
            tuner.on_trial_complete(f"{handed[:-1] + [handed[-1][:-1]]}")
    assert handed == [[0, 1], [2, 3], [4]]


class Ill:
    """A store that fails so many times it is tried, on a clock that only tries move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        from sweeps.run import queue as once

        self.left, self.now, self.tries = times, 0.0, 0
        monkeypatch.setattr(once.time, "monotonic", lambda: self.now)

    def try_store(self) -> None:
        self.tries += 1
        if self.left > 0:
            self.left -= 1
            raise StoreError("no space left")


def five(ill: Ill, **kwargs: Any) -> Any:
    from sweeps.run.queue import Piece, TrainOnce

    pieces = [Piece({"name": str(n)}, []) for n in range(5)]
    return begun(TrainOnce(pieces, lambda job: False, try_store=ill.try_store, **kwargs))


def test_nothing_goes_out_while_the_store_fails_and_all_of_it_once_it_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ill = Ill(monkeypatch, times=3)
    order = five(ill)
    assert [order.suggest(trial) for trial in "ab"] == [{"name": "0"}, {"name": "1"}]
    for trial in "ab":
        order.on_trial_complete(trial, {"store": "no space left"})
    asked = 0
    while (config := order.suggest("c")) is None:
        asked, ill.now = asked + 1, ill.now + 1
    assert asked > ill.tries == 4, "it is tried now and then, not whenever Tune asks"
    handed = [config]
    while (config := order.suggest("d")) is not None:
        handed.append(config)
    assert sorted(each["name"] for each in handed) == list("01234")
    assert order.store_error == ""


def test_sweep_ends_with_a_store_that_does_not_get_well(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.run.queue import PATIENCE, TrainOnce

    ill = Ill(monkeypatch, times=float("inf"))
    order = five(ill)
    order.suggest("a")
    order.on_trial_complete("a", {"store": "no space left"})
    while order.suggest("b") is None:
        ill.now += 1
    assert PATIENCE < ill.now < 2 * PATIENCE
    assert order.suggest("b") == TrainOnce.FINISHED
    assert order.store_error == "no space left"
    assert not list(order.rounds(100)), "nothing is left to be handed out"


def test_sweep_ends_with_a_store_that_takes_a_try_and_no_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sweeps.run.queue import RETRIES, TrainOnce

    order = five(Ill(monkeypatch, times=0))
    for number in range(1 + RETRIES):
        assert order.suggest(str(number)) == {"name": "0"}
        order.on_trial_complete(str(number), {"store": "refused"})
    assert order.suggest("b") == TrainOnce.FINISHED
    assert order.store_error == "refused"


def test_store_that_fails_the_driver_ends_nothing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.run.queue import Piece, TrainOnce

    ill, failing = Ill(monkeypatch, times=0), True

    def known(job: Job) -> bool:
        if failing:
            raise StoreError("away for a moment")
        return True

    def standing(piece: Piece) -> object:
        return known(dense(0))

    pieces = [Piece({"name": str(n)}, [dense(0)]) for n in range(2)]
    order = begun(TrainOnce(pieces, known, standing, try_store=ill.try_store))
    assert order.suggest("a") == {"name": "0"}
    assert order.suggest("b") is None
    order.on_trial_complete("a", error=True)
    first = order.suggest("a")
    assert order.suggest("b") is None, "the other needs what that one trains"
    failing = False
    ill.now += 60
    assert [first, order.suggest("b")] in (
        [{"name": "0"}, {"name": "1"}],
        [{"name": "1"}, {"name": "0"}],
    )


def test_nothing_is_kept_of_pieces_that_are_done() -> None:
    from sweeps.run.queue import Piece, TrainOnce

    stored: set[str] = set()
    pieces = [Piece({"work": n}, [dense(n // 3)]) for n in range(30)]
    order, running, asked = TrainOnce(pieces, lambda job: job.digest in stored), deque(), 0
    order = begun(order)
    while (config := order.suggest(str(asked))) != TrainOnce.FINISHED:
        if config is not None:
            running.append((str(asked), dense(config["work"] // 3).digest))
            asked += 1
        elif running[0][1] not in stored:  # those that wait for it come in while it runs
            stored.add(running[0][1])
            order._look_again = 0
        else:
            order.on_trial_complete(running.popleft()[0])
    assert asked == 30
    held = [
        order._ready,
        order._waiting,
        order._running,
        order._training,
        order._trained,
        order._deaths,
    ]
    assert [len(each) for each in held] == [0] * 6
