"""Calls in threads: at most sixteen at a time, results in the items' order."""

import threading
import time

import pytest

from lth_core.parallel import MOST_AHEAD, MOST_THREADS, map_in_threads


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    def late(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return -number

    assert list(map_in_threads(late, range(50))) == [-number for number in range(50)]


def test_sixteen_calls_run_at_a_time() -> None:
    everyone_is_here = threading.Barrier(MOST_THREADS, timeout=30)
    calls = range(MOST_THREADS)
    assert len(list(map_in_threads(lambda _: everyone_is_here.wait(), calls))) == MOST_THREADS


def test_single_item_is_read_in_the_calling_thread() -> None:
    assert list(map_in_threads(lambda _: threading.get_ident(), [0])) == [threading.get_ident()]


def test_few_results_wait_to_be_asked_for_and_none_follow_a_failure() -> None:
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        if number == 100:
            raise ValueError(number)
        return number

    results = map_in_threads(call, range(1000))
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= MOST_AHEAD + 1
    with pytest.raises(ValueError, match="100"):
        list(results)
    assert len(begun) <= 100 + MOST_AHEAD + 1
