"""A store that goes away in the middle of a sweep: renamed, or on a share that is unmounted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from swept import HURRIED, Swept, wait_for


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as a share is: its folder stays when it is unmounted."""
    place = tmp_path / "share"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a share takes root")
    yield place
    subprocess.run(["umount", "-l", place], capture_output=True)


def test_store_that_was_renamed_ends_the_sweep_with_its_reason_and_is_not_made_anew(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study()
    driver = swept.start("--serial", lth=HURRIED)
    with swept.held(2):
        elsewhere = swept.store.rename(swept.folder / "elsewhere")
    assert swept.wait(driver) == 2, swept.log()
    assert "the store is gone, its lth-store.json cannot be found" in swept.log()
    assert not swept.store.exists()
    elsewhere.rename(swept.store)
    assert swept.sweep("--serial") == 0, swept.log()
    unharmed("store renamed", swept, levels_again=2, steps_again=4 * 150)


def test_share_that_is_away_for_a_while_loses_nothing_and_nothing_is_written_below_it(
    share: Path, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study(store=str(share))
    driver = swept.start("--serial")
    behind = swept.folder / "behind"
    behind.mkdir()
    with swept.held(2):
        subprocess.run(["mount", "--move", share, behind], check=True)
    wait_for(lambda: swept.steps() and not _is_stepping(swept), lambda: swept.log())
    assert [path.name for path in share.iterdir()] == []
    subprocess.run(["mount", "--move", behind, share], check=True)
    assert swept.wait(driver) == 0, swept.log()
    unharmed("share away for a while", swept, levels_again=2, steps_again=4 * 150)


def _is_stepping(swept: Swept) -> bool:
    """Whether any training goes on: a sweep whose store is away waits."""
    import time

    before = len(swept.steps())
    time.sleep(3)
    return len(swept.steps()) > before


def test_records_that_are_lost_in_mid_sweep_are_told_and_made_again_by_the_next(
    study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    swept = study()
    driver = swept.start("--serial")

    def finished_trial() -> Path | None:
        counts = {path: path.read_text().count('"training_digest"')
                  for path in swept.store.glob("trials/*/entry.json")}  # fmt: skip
        return next((path.parent for path, rows in counts.items() if rows == 5), None)

    lost = wait_for(finished_trial, swept.log)
    shutil.rmtree(lost)
    assert swept.wait(driver) == 1, swept.log()
    assert "has records of 0 of 3 levels, though the trial ended; sweep again" in swept.log()
    assert "1 of 4 trials is incomplete" in swept.log()
    assert swept.sweep("--serial") == 0, swept.log()
    unharmed("records lost", swept, levels_again=0, steps_again=0)
