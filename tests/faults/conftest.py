"""A cluster on this machine, a reference sweep, and the table of what the faults did."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swept import Swept, books

COLUMNS = ("fault", "trials", "results lost", "levels retrained", "steps retrained")


@pytest.fixture(scope="session")
def env() -> Iterator[dict[str, str]]:
    """Where Ray runs, apart from others; its sockets' paths must be short."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield {
        **os.environ, "RAY_TMPDIR": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def clusters(env: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Makes clusters of a head without CPUs and two nodes of one CPU each, in their environments."""
    from ray.cluster_utils import Cluster

    made: list[Any] = []

    def make(*environments: dict[str, str]) -> Any:
        head = {"num_cpus": 0, "include_dashboard": False}
        made.append(Cluster(initialize_head=True, head_node_args=head))
        for variables in environments or ({}, {}):
            made[-1].add_node(num_cpus=1, env_vars=variables)
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield make
        for each in made:
            each.shutdown()


@pytest.fixture(scope="session")
def undisturbed(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The study, swept in one process with no fault; once for all of pytest-xdist's processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_swept = (folder / "undisturbed").exists()
        swept = Swept(folder / "undisturbed", env)
        if not is_swept:
            assert swept.sweep("--serial") == 0, swept.log()
    return swept


@pytest.fixture
def study(tmp_path: Path, env: dict[str, str]) -> Iterator[Callable[..., Swept]]:
    """A study in a folder of its own; what its sweeps leave running is ended."""
    made: list[Swept] = []

    def make(address: str | None = None, **changes: Any) -> Swept:
        made.append(Swept(tmp_path / f"study-{len(made)}", env, address, **changes))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def unharmed(
    undisturbed: Swept, record_property: Callable[[str, object], None]
) -> Callable[..., None]:
    """Compare sweeps with the undisturbed one, as a row of the table."""

    def check(
        fault: str,
        *swept: Swept,
        levels_again: int = 0,
        steps_again: int,
        begun_again: int | None = None,
    ) -> None:
        found = books(undisturbed, *swept)
        row = (fault, found.trials, found.lost, found.levels_again, found.steps_again)
        record_property("fault", row)
        assert (found.lost, found.doubled) == (0, 0), found
        assert found.levels_again <= levels_again, found
        assert found.steps_again <= steps_again, found
        assert begun_again is None or found.begun_again <= begun_again, found

    return check


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of the faults."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    rows = [
        said for r in reports if r.when == "call" for n, said in r.user_properties if n == "fault"
    ]
    if rows:
        terminalreporter.section("faults")
        width = max(len(row[0]) for row in rows)
        for fault, *counts in (COLUMNS, *rows):
            told = (f"{n:>{len(name)}}" for n, name in zip(counts, COLUMNS[1:], strict=True))
            terminalreporter.write_line("  ".join([f"{fault:<{width}}", *told]))
