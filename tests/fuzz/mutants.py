"""Inputs that are almost right: what was valid, with pieces cut, doubled, swapped and altered."""

import copy
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lth_core.errors import LthError

INPUTS = int(os.environ.get("LTH_FUZZ_INPUTS", 10_000))
"""Of each parser, at least."""
GIVEN: Counter[str] = Counter()
REFUSED: Counter[str] = Counter()
"""Inputs by parser."""

fuzzed = settings(
    max_examples=INPUTS, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def survives(parser: str, read: Callable[[], object]) -> None:
    """Reading ends in a value or in an error that is one line for the user."""
    GIVEN[parser] += 1
    said = "a value"
    try:
        read()
    except LthError as error:
        REFUSED[parser] += 1
        said = str(error)
    assert said


WORDS = [
    b"null", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b"0", b"99999999999999999999", b"true",
    b"\x00", b"\xff", b"..", b"/", b"*a", b"&a", b"!!python/name:os.system", b"\n", b": ", b",",
    b"os:abort", b"it", b"ep", b"2:4", b"%s", b"\xe2\x80\xae", b"..:x", b"sys:exit", b"os:system",
    b"9" * 400, b"9" * 5000, b"[" * 200, b"[[{1: 2}]]", b"1e308", b"-1e308", b"~nobody/x",
    b"\\0", b"\\ud800", b"0x" + b"f" * 5000, b".inf",
]  # fmt: skip

ODD: list[Any] = [
    None, True, -1, 0, 1, 1.5, 10**8, 10**20, 10**30, 10**400, 1e308, -1e308, 5e-324, float("nan"),
    float("inf"), "", "x", "nan", "0", "..:x", ":x", "os:", "sys:exit", "os:system", "this:x",
    "9" * 400 + "ep", "9" * 5000 + "it", "9" * 400 + "%", "folder:\0", "~nobody/x", "\0", "\ud800",
    "a.b", "../..", [], {}, [[]], [None], [{}], [{1: 2}], [{1: 2, "a": 3}], {1: 2}, {"": ""},
    {"low": -1e308, "high": 1e308, "count": 3}, {"low": 1, "high": 2, "step": float("inf")},
    {"low": 1e-308, "high": 1e308, "log": True, "count": 3}, ["x", 1, None], ["9" * 400 + "ep"],
]  # fmt: skip
"""What may stand in the place of any value."""


@st.composite
def altered(draw: st.DrawFn, whole: Any) -> Any:
    """A value that JSON or YAML could say, one to three of its parts dropped or of another kind."""
    said = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = [*_places(said)]
        if not places:
            break
        inside, key = places[draw(st.integers(0, len(places) - 1))]
        if draw(st.integers(0, 4)) == 0:
            del inside[key]
        else:
            inside[key] = copy.deepcopy(ODD[draw(st.integers(0, len(ODD) - 1))])
    return said


def _places(said: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a nest of lists and mappings: what it is in, and its index or key."""
    inner = said.items() if isinstance(said, dict) else enumerate(said)
    for key, value in inner:
        yield said, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


@st.composite
def mutants(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of the valid inputs after one to six edits."""
    said = draw(st.sampled_from(whole))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(said)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 40]))
        edit = draw(st.integers(0, 5))
        cut = said[at : at + length]
        if edit == 0:  # put something in the place of something
            said = said[:at] + draw(st.sampled_from(WORDS)) + said[at + length :]
        elif edit == 1:  # flip bits
            flip = draw(st.integers(1, 255))
            said = said[:at] + bytes(byte ^ flip for byte in cut) + said[at + length :]
        elif edit == 2:  # leave out
            said = said[:at] + said[at + length :]
        elif edit == 3:  # say twice, elsewhere
            there = draw(st.integers(0, len(said)))
            said = said[:there] + cut + said[there:]
        elif edit == 4:  # cut short
            said = said[: max(at, len(said) - length)]
        else:
            said = said[:at] + draw(st.binary(max_size=8)) + said[at:]
    return said
