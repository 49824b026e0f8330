"""An S3 that is slow, that never answers, and that stops answering in the middle of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from in_process import start
from proxy import Proxy
from servers import BUCKET, S3Server
from swept import FIELDS, HURRIED, Driver, Swept, timeless, wait_for

STEPS = 600
"""Of each training: seconds, for a server to fail in the middle."""
ONE: dict[str, Any] = {
    "base": {
        **FIELDS["base"], "levels": 0, "branches": ["ticket"], "rewind": "0it",
        "train": {"lr": 0.01, "steps": f"{STEPS}it", "evaluate_every": f"{STEPS}it"},
    },
    "axes": {"seed": [0]},
}  # fmt: skip
"""Changes of the study: one training."""
TWO = {**ONE, "base": {**ONE["base"], "levels": 1}}
"""The same: two trainings, one after the other."""


def behind(
    proxy: Proxy, server: S3Server, folder: Path, env: dict[str, str], **study: Any
) -> Swept:
    """A study whose store is an S3 behind a proxy."""
    swept = Swept(folder, env, store=f"s3://{BUCKET}/{folder.parent.name}-{folder.name}", **study)
    swept.env |= server.variables | {"AWS_ENDPOINT_URL": proxy.address}
    return swept


@dataclass(frozen=True)
class Begun:
    """A sweep that was started with the first of these tests: while it waits, others run."""

    swept: Swept
    address: str
    driver: Driver


@pytest.fixture(scope="module", autouse=True)
def begun(
    s3_server: S3Server, env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Begun]]:
    """Sweeps whose S3 answers each request after 2 s, and never."""
    with ExitStack() as stack:
        made = dict[str, Begun]()
        for mood, late in (("slow", 2), ("silent", 0)):
            proxy = stack.enter_context(Proxy(s3_server.address, late))
            swept = behind(proxy, s3_server, tmp_path_factory.mktemp(mood) / "study", env, **ONE)
            stack.callback(swept.end)
            if mood == "silent":
                proxy.answers.clear()
            made[mood] = Begun(swept, proxy.address, swept.start("--serial"))
        yield made


@pytest.fixture
def reached(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process asks the server itself."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)


def undisturbed_rows(study: Callable[..., Swept], fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of a study that is swept into a folder."""
    swept = study(**fields)
    process = start(swept)
    process.join()
    assert process.exitcode == 0
    return [timeless(row) for row in swept.report()]


def test_server_that_falls_silent_ends_the_sweep_and_the_same_command_loses_nothing(
    s3_server: S3Server, env: dict[str, str], tmp_path: Path, study: Callable[..., Swept],
    reached: None,
) -> None:  # fmt: skip
    with Proxy(s3_server.address) as proxy:
        swept = behind(proxy, s3_server, tmp_path / "study", env, **TWO)
        driver = swept.start("--serial", lth=HURRIED)
        wait_for(lambda: len(swept.steps()) > STEPS, swept.log)
        proxy.answers.clear()
        assert swept.wait(driver) == 2, swept.log()
        told = swept.log().splitlines()[-1]
        assert told.startswith(f"lth: store {swept.fields['store']} at {proxy.address}: cannot ")
        assert "Traceback" not in swept.log()
        trained = len(swept.steps())
        proxy.answers.set()
        assert swept.sweep("--serial") == 0, swept.log()
    assert len(swept.steps()) - trained == STEPS, "what was finished before is not trained again"
    assert [timeless(row) for row in swept.report()] == undisturbed_rows(study, TWO)


def test_server_that_never_answers_ends_the_sweep_with_a_sentence(begun: dict[str, Begun]) -> None:
    swept, address, driver = begun["silent"].swept, begun["silent"].address, begun["silent"].driver
    assert swept.wait(driver) == 2
    ended = (swept.folder / "log.txt").stat().st_mtime
    started = (swept.folder / "hit.yaml").stat().st_mtime
    assert ended - started < 90, "twice the 30 s of a store, and Python's start"
    (told,) = (line for line in swept.log().splitlines() if line.startswith("lth: "))
    assert told == swept.log().splitlines()[-1]
    assert told.startswith(f"lth: store {swept.fields['store']} at {address}: cannot be reached")
    assert "Traceback" not in swept.log()
    assert swept.steps() == []


def test_server_that_answers_after_two_seconds_makes_a_sweep_slow_and_changes_nothing(
    begun: dict[str, Begun], study: Callable[..., Swept], reached: None
) -> None:
    swept = begun["slow"].swept
    assert swept.wait(begun["slow"].driver) == 0, swept.log()
    assert len(swept.steps()) == STEPS
    assert [timeless(row) for row in swept.report()] == undisturbed_rows(study, ONE)
