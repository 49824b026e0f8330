"""Counts how many inputs each parser is given; the counts travel with the tests' reports."""

import logging
from collections.abc import Generator

import pytest
from mutants import GIVEN, INPUTS, REFUSED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    GIVEN.clear()
    REFUSED.clear()
    logging.disable()  # ten thousand warnings that entries count as missing
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
    item.user_properties += [("fuzzed", [name, n, REFUSED[name]]) for name, n in GIVEN.items()]
    assert all(n >= INPUTS for n in GIVEN.values()), f"each must get {INPUTS:,} inputs: {GIVEN}"
