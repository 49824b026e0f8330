"""A store that is full, and one whose files were harmed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from swept import HURRIED, STEPS, Swept, timeless

from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

ROOM = 200_000
"""Bytes that are left: enough for some trainings."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a full disk takes the right to mount one: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.ray
def test_full_disk_ends_the_sweep_soon_and_with_room_the_same_command_finishes(
    small_disk: Path, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - ROOM))
    swept = study(store=str(small_disk / "lth-store"))
    assert swept.wait(swept.start(lth=HURRIED)) == 2, swept.log()
    told = [line for line in swept.log().splitlines() if "No space left" in line]
    assert len(told) == 1, swept.log()
    assert told[0].startswith("lth: store ")
    assert swept.status()["state"] in ("stopped", "silent")  # what it said last may have not fitted
    kept = swept.finished()
    begun = len({step.training for step in swept.steps()})
    assert 0 < kept < 4 * 5
    # One of each trial: those that were handed out before the first was heard meet it too.
    assert begun - kept <= 4
    filler.unlink()
    assert swept.sweep("--serial") == 0, swept.log()
    unharmed("disk full", swept, levels_again=begun - kept, steps_again=(begun - kept) * STEPS)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def exchange(one: Path, other: Path) -> None:
    away = one.rename(one.with_name("away"))
    other.rename(one)
    away.rename(other)


def test_harmed_entries_and_nothing_else_are_made_again(
    undisturbed: Swept, study: Callable[..., Swept], unharmed: Callable[..., None]
) -> None:
    """Of all kinds; where a file's size tells, by a sweep, else by `lth store verify` before it."""
    swept = study()
    shutil.copytree(undisturbed.store, swept.store)
    shutil.copy(undisturbed.folder / "steps.txt", swept.folder)
    trials = make_plan(parse_study(swept.fields)).trials
    jobs = [[job.digest for job in trial.jobs()] for trial in trials]
    files = {path: path.read_bytes() for path in swept.store.rglob("*") if path.is_file()}

    def one(pattern: str) -> Path:
        return next(swept.store.glob(pattern))

    cut(one(f"trainings/{jobs[0][1]}/entry.json"))
    flip(one(f"trainings/{jobs[1][2]}/entry.json"))
    cut(one(f"trainings/{jobs[2][4]}/state-*"))
    exchange(*(swept.store / "trainings" / jobs[trial][3] for trial in (1, 2)))
    for kind in ("trials", "studies", "status", "speeds"):
        (cut if kind == "trials" else flip)(one(f"{kind}/*/entry.json"))
    claim = swept.store / "claims" / jobs[3][0] / "claim.json"
    claim.parent.mkdir(parents=True)
    claim.write_bytes(b'{"machine": "')
    checkpoint = swept.store / "checkpoints" / jobs[0][1]
    checkpoint.mkdir(parents=True)
    (checkpoint / "entry.json").write_bytes(b'{"entry":{"blobs"')
    assert swept.sweep("--serial") == 0, swept.log()
    # Before anything is trained, of each trial the first; then all of them.
    assert swept.log().count("it is computed again") == 3 + 5
    again = {path.parent.name for path in swept.store.glob("trainings/*/entry.json")
             if path.read_bytes() != files.get(path)}  # fmt: skip
    assert again == {jobs[0][1], jobs[1][2], jobs[2][4], jobs[1][3], jobs[2][3]}
    unharmed("entries cut, flipped, exchanged", swept, levels_again=5, steps_again=5 * STEPS)

    flip(one(f"trainings/{jobs[0][3]}/state-*"))
    flip(one(f"trainings/{jobs[3][3]}/mask-*"))
    flip(one("points/*/state-*"))
    verify = "store", "verify", str(swept.store), "--remove", "--older", "0s", "--json"
    kinds = [json.loads(line)["kind"] for line in swept.lth(*verify, code=1).splitlines()]
    assert sorted(kinds) == ["points", "trainings", "trainings"]
    assert swept.sweep("--serial") == 0, swept.log()
    assert list(map(timeless, swept.report())) == list(map(timeless, undisturbed.report()))
