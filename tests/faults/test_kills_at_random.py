"""Drivers that are killed again and again, wherever they are."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
from counted import PAUSE
from in_process import start
from swept import Swept, kill, wait_for

from lth_core.store import open_store
from sweeps.store.integrity import find_faults

KILLS = 20
INTERVAL = 0.1
"""Seconds between two checkpoints of a training."""
AT_MOST = round(INTERVAL / PAUSE) + 2
"""Steps of a training between two of its checkpoints."""


def goals(swept: Swept, kills: int) -> Any:
    """Numbers of steps, each at which a driver is to be killed, as far as it has come till then."""
    draw = random.Random(0)
    for _ in range(kills):
        yield len(swept.steps()) + draw.randrange(1, 100)


def sound(swept: Swept) -> bool:
    """Whether the store has no faults, and nothing that was for the time of a training alone."""
    store = open_store(str(swept.store))
    return not (
        [*find_faults(store)] or store.digests("checkpoints") or [*store.files.files("claims")]
    )


def test_driver_killed_at_twenty_random_steps_repeats_no_more_than_a_checkpoint_interval_each_time(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(checkpoint_minutes=INTERVAL / 60)
    for goal in goals(swept, KILLS):
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


@pytest.mark.ray
def test_driver_of_a_cluster_killed_at_random_steps_goes_on_from_the_checkpoints(
    cluster: Any, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept, kills = study(cluster.address, checkpoint_minutes=INTERVAL / 60), 2
    for goal in goals(swept, kills):
        driver = swept.start()
        wait_for(lambda goal=goal: len(swept.steps()) >= goal, swept.log)
        kill(driver.pid)
        driver.wait()
    assert swept.sweep() == 0, swept.log()
    assert sound(swept)
    again = 2 * kills  # both nodes train for it
    unharmed(
        f"SIGKILL of a cluster's driver, {kills} times at random", swept, levels_again=again,
        steps_again=again * AT_MOST, begun_again=again,
    )  # fmt: skip
