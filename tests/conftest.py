"""One thread, and property tests that draw the same examples every time."""

import atexit
import gc
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from servers import s3, s3_server  # noqa: F401  fixtures of all tests
from servers_mlflow import at_scale, faulty, server  # noqa: F401

HERE = Path(__file__).parent

# Read when MLflow is imported; some tests import it before the project does.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
# Ray gives its workers priority 15, so that beside three other tests they hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

LONG = ("browser", "cluster", "faults", "fuzz")
"""Folders of tests that CI runs beside `make test`: minutes each."""
LONGEST = [
    "test_nodes", "test_packed_trials", "test_hosts", "test_stops", "test_broken_stores",
    "test_kills", "test_tracking", "test_s3", "test_lost_stores", "test_structure_studies",
    "test_launch", "test_umask", "test_tracking_at_scale", "test_many_trials", "test_stopped",
    "test_joining", "test_review", "test_linked_artifacts", "test_autoscaler",
    "test_kills_at_random", "test_verdict_rates", "test_ray_folders", "test_serial",
]  # fmt: skip
"""Files whose long tests take a minute or more, the longest first."""
NOT_LONG = re.compile(r"not \([^)]*\blong\b[^)]*\)")
"""Expressions of `pytest -m` that leave these tests out."""


def pytest_collectstart() -> None:
    _set_up()


@cache
def _set_up() -> None:
    """In processes that collect tests: that of pytest-xdist which starts them waits for no torch."""
    import torch
    from hypothesis import settings

    # Two trials on two threads beat one on two; and sums are then added in one order on every machine.
    torch.set_num_threads(1)
    settings.register_profile(
        "repeatable", deadline=None, derandomize=True, database=None, max_examples=60
    )
    settings.load_profile("repeatable")


def pytest_runtest_setup() -> None:
    """One thread again: a sweep in this process may have set as many as its trials have CPUs."""
    import torch

    torch.set_num_threads(1)


def _is_long(path: Path) -> bool:
    return any(path.is_relative_to(HERE / folder) for folder in LONG)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no long tests where they are left out anyway: that takes a second.

    No conftest.py is collected for doctests: its module's name is that of the others.
    """
    return (
        collection_path.name == "conftest.py"
        or (_is_long(collection_path) and bool(NOT_LONG.search(config.option.markexpr)))
        or None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_long(item.path):
            item.add_marker(pytest.mark.long)
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # the server starts for two seconds in each worker
    # The files that take longest first, so that no process is left with one of them at the end.
    place = {name: n for n, name in enumerate(LONGEST)}
    slow = Counter(item.path for item in items if item.get_closest_marker("ray"))
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), -slow[item.path]))


def pytest_collection_finish() -> None:
    """Leave modules and tests, which live to the end, out of every later garbage collection."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries report as leaks what is left at the process's end


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many inputs each parser was given; here, for with pytest-xdist the process that
    prints collects no tests, and so reads no conftest.py below this one."""
    for report in terminalreporter.stats.get("passed", []):
        for name, said in getattr(report, "user_properties", []):
            if name == "fuzzed" and report.when == "call":
                parser, inputs, refused = said
                terminalreporter.write_line(
                    f"fuzzed {parser}: {inputs:,} inputs, {refused:,} refused, no other error"
                )
