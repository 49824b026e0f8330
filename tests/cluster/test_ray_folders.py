"""What Ray cannot write to is named in one sentence, before it starts."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lth_core.errors import LaunchError
from sweeps.clusters.ray_folders import (
    LONGEST_SOCKET,
    SOCKET,
    check_ray_folders,
    check_scratch,
    short_ray_folder,
)

MOST = LONGEST_SOCKET - len(f"/{SOCKET}")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    """An environment with one short folder, and a token."""
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    for name in ("RAY_TMPDIR", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def complaint(token: Path = Path("/nowhere/.ray/auth_token")) -> str:
    with pytest.raises(LaunchError) as refused:
        check_ray_folders(token)
    return str(refused.value)


def test_folders_that_can_be_written_are_left_as_they_were(short: Path) -> None:
    check_scratch()
    check_ray_folders(short / "home" / ".ray" / "auth_token")
    assert [str(path.relative_to(short)) for path in short.rglob("*")] == ["ray"]


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_ray_reaches_a_folder_too_long_for_its_sockets_by_a_short_link_of_this_users(
    variable: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = short / ("x" * (MOST - len(f"{short}/")))
    monkeypatch.setenv(variable, str(fits))
    before = dict(os.environ)
    check_ray_folders(fits)
    with short_ray_folder():
        assert dict(os.environ) == before
    monkeypatch.setenv(variable, f"{fits}x")
    before = dict(os.environ)
    check_ray_folders(fits)
    with short_ray_folder():
        link = Path(os.environ["RAY_TMPDIR"])
        assert len(str(link)) < MOST
        assert link.resolve() == Path(f"{fits}x")
        assert link.parent.stat().st_mode & 0o777 == 0o700
    assert dict(os.environ) == before
    assert not link.parent.exists()
    assert Path(f"{fits}x/ray").is_dir()


def test_a_long_folder_without_a_place_for_the_link_is_named(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = short / ("x" * MOST)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("sweeps.clusters.ray_folders.SHORT", short / "absent")
    with pytest.raises(LaunchError) as refused, short_ray_folder():
        pass
    assert str(refused.value) == (
        f"TMPDIR: must name a folder whose path has at most {MOST} bytes, for Ray's sockets in it, "
        f"but got {long} ({len(str(long))} bytes, and no short link can be made in "
        f"{short}/absent: No such file or directory)"
    )


def test_a_file_in_the_way_is_named(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = short / "way"
    way.touch()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    assert complaint(way / ".ray" / "auth_token") == (
        "HOME: must name a folder that can be written, for Ray's token, but got "
        f"{way}/.ray (Not a directory)"
    )
    check_ray_folders(way)  # it is there
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    check_ray_folders(way / ".ray" / "auth_token")  # it is not needed
    monkeypatch.setenv("RAY_TMPDIR", str(way))
    assert complaint() == (
        "RAY_TMPDIR: must name a folder that can be written, with 16 MiB free, for Ray's sockets "
        f"and logs, but got {way}/ray (Not a directory)"
    )


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    said = complaint(Path("~/.ray/auth_token"))  # as `expanduser` leaves it
    assert said.endswith("for Ray's token, but got no home folder")


# File systems of a test's own


def alone(folder: Path, script: str, *arguments: str, **env: str) -> list[list[Any]]:
    """Lines of JSON that a script prints which may mount what it likes, its first process's work.

    Nothing that it starts may be left when it has ended.
    """
    tried = subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True
    ) if shutil.which("unshare") else None  # fmt: skip
    if tried is None or tried.returncode:
        pytest.skip(f"needs root and unshare: {tried.stderr.strip() if tried else 'not found'}")
    called = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-c", script, *arguments],
        env=os.environ | env | {"MARK": str(folder)}, cwd=folder,
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    until = time.monotonic() + 20
    while (left := marked(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == []
    return [json.loads(line) for line in called.stdout.splitlines() if line.startswith("[")]


def marked(folder: Path) -> list[str]:
    """Commands that run with a folder in their environment as MARK."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"MARK={folder}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


SWEEPS = """
import contextlib, io, json, os, subprocess, sys, tempfile
from sweeps.cli.main import main

plain = dict(os.environ)
for env, mounts in json.loads(sys.argv[1]):
    subprocess.run(["sh", "-ec", mounts], check=True)
    os.environ.clear()
    os.environ.update(plain | env)
    tempfile.tempdir = None
    sys.argv = ["lth", "sweep", "asks.yaml"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue(), "ray" in sys.modules]), flush=True)
"""

FULL = "mount -t tmpfs -o size=64k none {0}; head -c 99999 /dev/zero > {0}/zeros 2>&- || true"
SMALL = "mount -t tmpfs -o size=1m none {0}"
LOCKED = "mount -t tmpfs -o ro none {0}"
NO_ROOM, NO_WRITING = "(No space left on device)", "(Read-only file system)"


@pytest.mark.ray
def test_a_sweep_whose_folders_cannot_be_written_ends_with_the_variable_to_change(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last takes /dev away, and is the last for that."""
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (short / "asks.yaml").write_text("{name: asks, tracking: {uri: null}, base: {levels: 1}}")
    home, place = short / "home", short / "place"
    home.mkdir()
    place.mkdir()
    cases = [
        ("RAY_TMPDIR", FULL.format(place), f"{place}/ray {NO_ROOM}"),
        ("RAY_TMPDIR", SMALL.format(place), f"{place}/ray {NO_ROOM}"),
        ("RAY_TMPDIR", LOCKED.format(place), f"{place}/ray {NO_WRITING}"),
        ("TMPDIR", LOCKED.format(place), f"{place}/ray {NO_WRITING}"),
        # Not full: where no file can be written at all, Python takes another folder than Ray.
        ("TMPDIR", SMALL.format(place), f"{place} {NO_ROOM}"),
        ("HOME", FULL.format(home), f"{home}/.ray {NO_ROOM}"),
        ("HOME", LOCKED.format(home), f"{home}/.ray {NO_WRITING}"),
        ("/dev/shm", LOCKED.format("/dev/shm"), f"/dev/shm {NO_WRITING}"),
        ("/dev/shm", LOCKED.format("/dev"), "no folder"),
    ]
    asked = [({name: str(place)} if "TMP" in name else {}, mounts) for name, mounts, _ in cases]
    said = alone(short, SWEEPS, json.dumps(asked), HOME=str(home))
    for (name, _, end), (code, sentence, started) in zip(cases, said, strict=True):
        assert (code, started) == (2, False), sentence
        assert sentence.startswith(f"lth: {name}: must "), sentence
        assert sentence.endswith(f", but got {end}\n"), sentence
        assert sentence.count("\n") == 1, sentence


STARTS = """
import json, os, subprocess, sys, time
import ray
from lth_core.errors import LaunchError
from sweeps.clusters.connect import start_ray

start_ray(None)
ray.shutdown()
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", "/dev/shm"], check=True)
begun = time.monotonic()
try:
    start_ray(None)
except LaunchError as error:
    print(json.dumps([str(error), time.monotonic() - begun]), flush=True)
os._exit(0)  # as `lth` ends
"""


@pytest.mark.ray
@pytest.mark.slow
def test_ray_starts_in_the_longest_folder_and_its_own_failure_is_one_sentence(short: Path) -> None:
    """Ray 2.60 gives its raylet 30 s."""
    folder = short / ("x" * (MOST - len(f"{short}/")))
    folder.mkdir()
    ((sentence, seconds),) = alone(short, STARTS, RAY_TMPDIR=str(folder))
    assert sentence.startswith("Ray must start on this machine, but does not: ")
    assert sentence.endswith("; RAY_TMPDIR, TMPDIR and HOME name the folders that it writes to")
    assert "\n" not in sentence
    assert seconds < 200  # 40 s on a machine that has nothing else to do
