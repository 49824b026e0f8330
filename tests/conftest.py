"""One thread, and property tests that draw the same examples every time."""

from functools import cache
from pathlib import Path

import pytest
from servers import s3, s3_server  # noqa: F401  fixtures of all tests
from servers_mlflow import at_scale, faulty, server  # noqa: F401

HERE = Path(__file__).parent

LONG = ("cluster", "faults", "fuzz")
"""Folders of tests that CI runs beside `make test`: minutes each."""


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).parts[0] in LONG:
            item.add_marker(pytest.mark.long)
        if "s3_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # the server starts for two seconds in each worker


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
