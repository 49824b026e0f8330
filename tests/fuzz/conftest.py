"""Prints how many inputs each parser was given; they travel with the tests' reports."""

from collections.abc import Generator

import pytest
from mutants import GIVEN, REFUSED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    GIVEN.clear()
    REFUSED.clear()
    yield
    item.user_properties += [("fuzzed", [name, n, REFUSED[name]]) for name, n in GIVEN.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []):
        for name, said in getattr(report, "user_properties", []):
            if name == "fuzzed" and report.when == "call":
                parser, inputs, refused = said
                terminalreporter.write_line(
                    f"fuzzed {parser}: {inputs:,} inputs, {refused:,} refused, no other error"
                )
