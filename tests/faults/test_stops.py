"""A sweep that is stopped, from the terminal or by who ends its process, and called again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from swept import Swept, kill, session, wait_for

pytestmark = pytest.mark.ray


def test_stopped_sweep_keeps_what_it_trains_and_the_same_command_goes_on_from_there(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """Whether anything is left to be handed out or not: of 20 trainings, 16 are of all 4 trials."""
    swept = study()
    for finished, number, code in ((3, signal.SIGTERM, 143), (16, signal.SIGINT, 130)):
        driver = swept.start()
        with swept.held(finished):
            if number == signal.SIGINT:
                os.killpg(driver.pid, number)  # as a terminal does
            else:
                kill(driver.pid, number)
        assert swept.wait(driver) == code, swept.log()
        log = swept.log()
        assert log.splitlines()[-1] == "stopped; `lth sweep hit.yaml` resumes it", log
        for noise in ("Traceback", "ERROR", "SIGTERM", "raylet", "failed", "report:"):
            assert noise not in log
        told = swept.status()
        assert (told["state"], told["failures"]) == ("stopped", [])
        kept = list(swept.store.glob("checkpoints/*/*"))
        assert {path.name.partition("-")[0] for path in kept} == {"entry.json", "run"}, kept
        wait_for(lambda driver=driver: not session(driver.pid), lambda: "Ray to be gone")
    assert swept.sweep() == 0, swept.log()
    unharmed("SIGTERM and Ctrl-C of the driver", swept, steps_again=0, begun_again=4)
    assert not list(swept.store.glob("checkpoints/*/entry.json")), "they are over"
