"""Drivers and heads that die in the middle of a sweep, and two sweeps of the same trials."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counted import AT_MOST, INTERVAL
from swept import Swept, kill, sound, timeless, wait_for

pytestmark = pytest.mark.ray


def test_the_command_line_tells_the_report_that_these_tests_compare(undisturbed: Swept) -> None:
    rows = list(map(json.loads, undisturbed.lth("report", "hit", "--json").splitlines()))
    assert rows == json.loads(json.dumps(undisturbed.report()))
    assert len(rows) == 4 * 5
    assert len({timeless(row)["trial"] for row in rows}) == 4


def test_killed_driver_and_dead_head_of_a_cluster_cost_no_more_than_a_checkpoint_interval_each(
    clusters: Callable[..., Any], study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """The same command goes on, on the same cluster or without one."""
    dies = clusters({})
    swept = study(dies.address, checkpoint_minutes=INTERVAL / 60)
    swept.env["RAY_gcs_rpc_server_reconnect_timeout_s"] = "5"  # not a minute
    driver = swept.start()
    with swept.held(finished=2):
        kill(driver.pid)
        driver.wait()
    kept = {entry: entry.read_bytes() for entry in swept.entries()}
    driver = swept.start()
    with swept.held(finished=5):
        dies.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=False)
    assert swept.wait(driver) not in (0, 2), swept.log()
    kept |= {entry: entry.read_bytes() for entry in swept.entries() if entry not in kept}
    assert swept.sweep("--serial") == 0, swept.log()
    assert kept == {entry: entry.read_bytes() for entry in kept}
    assert sound(swept)
    # Workers end some time later, perhaps between a training's last step and its entry.
    unharmed(
        "SIGKILL of a cluster's driver, then of its head", swept, levels_again=2,
        steps_again=2 * AT_MOST, begun_again=2,
    )  # fmt: skip


def test_two_sweeps_of_the_same_cells_under_other_clocks_train_each_once(
    study: Callable[..., Swept], unharmed: Callable[..., None], tmp_path: Path
) -> None:
    store = str(tmp_path / "lth-store")
    one = study(store=store)
    other = study(store=store, name="other", axes={"seed": [1, 0, 2, 3]})
    for swept, hours in ((one, 5), (other, -5)):
        (swept.folder / "gate").touch()  # however long either takes to start
        shutil.copy(Path(__file__).with_name("clock.py"), swept.folder / "sitecustomize.py")
        swept.env |= {"PYTHONPATH": f"{swept.folder}:{os.environ.get('PYTHONPATH', '')}",
                      "CLOCK_AHEAD": str(3600 * hours)}  # fmt: skip
    drivers = [one.start("--serial"), other.start("--serial")]
    wait_for(lambda: one.steps() and other.steps(), lambda: "both to train")
    for swept in (one, other):
        (swept.folder / "gate").unlink()
    for swept, driver in zip((one, other), drivers, strict=True):
        assert swept.wait(driver) == 0, swept.log()
    told = one.lth("status", "hit")  # by a clock that is ahead of the store's
    assert "finished" in told.splitlines()[0]
    assert " h ago" not in told
    assert one.lth("store", "gc", store, "--older", "1h", "--dry-run") == "Nothing to delete.\n"
    unharmed("two sweeps, clocks 10 h apart", one, other, steps_again=0)
