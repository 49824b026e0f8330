"""Drivers that are killed again and again, wherever they are."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator

from counted import AT_MOST, INTERVAL
from in_process import start
from swept import Swept, sound, wait_for

KILLS = 20


def goals(swept: Swept) -> Iterator[int]:
    """Numbers of steps, each at which a driver is to be killed, as far as it has come till then."""
    draw = random.Random(0)
    for _ in range(KILLS):
        yield len(swept.steps()) + draw.randrange(1, 100)


def test_driver_killed_at_twenty_random_steps_repeats_no_more_than_a_checkpoint_interval_each_time(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(checkpoint_minutes=INTERVAL / 60)
    for goal in goals(swept):
        driver = start(swept)
        wait_for(lambda goal=goal: len(swept.steps()) >= goal, lambda: "the next step")
        driver.kill()
        driver.join()
        assert driver.exitcode == -signal.SIGKILL
    kept = {entry: entry.read_bytes() for entry in swept.entries()}
    assert 0 < len(kept) < 4 * 5
    driver = start(swept)
    driver.join()
    assert driver.exitcode == 0
    assert kept == {entry: entry.read_bytes() for entry in kept}
    seen = set[str]()
    steps = swept.steps()
    for worker in dict.fromkeys(step.worker for step in steps):
        own = {step.state for step in steps if step.worker == worker}
        assert len(own & seen) <= AT_MOST
        seen |= own
    assert sound(swept)
    unharmed(
        f"SIGKILL, {KILLS} times at random", swept, levels_again=KILLS,
        steps_again=KILLS * AT_MOST, begun_again=KILLS,
    )  # fmt: skip
