"""What comes from outside as YAML: a value, or one line that says the limit; never much work."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lth_core.errors import SpecError
from sweeps.studies import yaml_loader
from sweeps.studies.reader import read_study, read_values
from sweeps.studies.yaml_loader import _Loader, load_yaml, read_yaml

FILE = Path("study.yaml")
DEPTH_LIMIT = yaml_loader.MOST_DEPTH
NODES = yaml_loader.MOST_NODES // 20
CHARACTERS = yaml_loader.MOST_CHARACTERS // 20
BYTES = yaml_loader.MOST_BYTES // 20
"""Limits in these tests, a twentieth of the real ones, which take a second to reach."""


@pytest.fixture(autouse=True)
def lower_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("NODES", NODES), ("CHARACTERS", CHARACTERS), ("BYTES", BYTES)):
        monkeypatch.setattr(yaml_loader, f"MOST_{name}", limit)


def refused(text: str) -> SpecError:
    FILE.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_study(FILE)
    assert caught.value.field == "study.yaml"
    assert "\n" not in str(caught.value)
    return caught.value


def chain(link: str, links: int) -> str:
    """Mappings of which each has the one before by its alias."""
    rest = "".join(f"a{n}: &a{n} {link.format(n - 1)}\n" for n in range(1, links))
    return f"a0: &a0 {{x: 1}}\n{rest}"


VALUES_RULE = f"must have at most {NODES:,} values"
CHARACTERS_RULE = f"must have at most {CHARACTERS:,} characters in its values"
DEPTH_RULE = f"must nest at most {DEPTH_LIMIT} values in each other"


@pytest.mark.parametrize(
    ("text", "rule", "got"),
    [
        (f"axes: {{seed: [{'1,' * NODES}]}}", VALUES_RULE, NODES + 1),
        ("\n".join(f"k{n}: 1" for n in range(NODES)), VALUES_RULE, NODES + 1),
        ("{" + "a," * 10_000, VALUES_RULE, NODES + 1),
        (f"a: &a [{'1,' * 500}]\nb: [{'*a,' * 500}]", VALUES_RULE, None),
        (chain("[*a{0}, *a{0}, *a{0}, *a{0}]", 12), VALUES_RULE, None),
        (f"a: &a {'x' * 10_000}\nb: [{'*a,' * 450}]", CHARACTERS_RULE, 20_002),
        ("a: " + "x" * 15_000, CHARACTERS_RULE, 15_001),
        ("[" * 20_000, DEPTH_RULE, DEPTH_LIMIT + 1),
        ("{a: " * 5_000, DEPTH_RULE, DEPTH_LIMIT + 1),
        ("- " * 10_000, DEPTH_RULE, DEPTH_LIMIT + 1),
        (chain("[*a{0}]", 50), DEPTH_RULE, DEPTH_LIMIT + 1),
        (chain("{{<<: *a{0}}}", 50), DEPTH_RULE, DEPTH_LIMIT + 1),
        ("x" * (BYTES + 1), f"must have at most {BYTES:,} bytes", BYTES + 1),
        ("é" * BYTES, f"must have at most {BYTES:,} bytes", 2 * BYTES),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_file_past_a_limit_is_refused_with_the_limit_and_what_was_got(
    text: str, rule: str, got: int | None
) -> None:
    error = refused(text)
    assert error.rule == rule
    assert error.got == got or got is None


def nodes_made(text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of nodes composed before a text is refused."""
    made = 0
    for name in ("compose_scalar_node", "compose_sequence_node", "compose_mapping_node"):
        real: Callable[..., Any] = getattr(_Loader, name)

        def compose(self: _Loader, anchor: Any, real: Callable[..., Any] = real) -> Any:
            nonlocal made
            made += 1
            return real(self, anchor)

        monkeypatch.setattr(_Loader, name, compose)
    with pytest.raises(SpecError):
        load_yaml("it", text, "must be YAML")
    return made


@pytest.mark.parametrize("text", [f"[{'1,' * 10_000}]", "{" + "a," * 10_000])
def test_no_node_is_made_of_what_is_past_a_limit(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NODES // 2 < nodes_made(text, monkeypatch) <= NODES + 1


@pytest.mark.parametrize("size", [5_000_000, 50_000_000_000])
def test_large_file_is_refused_by_its_size_and_neither_read_whole_nor_parsed(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FILE.open("wb") as file:
        file.write(b"[" + b"1," * 600_000)
        file.truncate(size)  # the rest takes no space
    monkeypatch.setattr("sweeps.studies.yaml_loader._Loader", None)
    tracemalloc.start()
    try:
        with pytest.raises(SpecError, match=f"must have at most {BYTES:,} bytes, but got {size}$"):
            read_study(FILE)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.5 * 2**20


def test_study_at_the_limits_can_be_read_as_it_is_remembered() -> None:
    words = [f"{n:012}" for n in range(NODES - 4)]
    assert CHARACTERS - 1_000 < sum(map(len, words)) < CHARACTERS
    kept = yaml.safe_dump({"axes": {"prune.structure": words}})
    assert len(kept) < BYTES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [*a]", "an alias must not be inside the value that it refers to"),
        ("a: &a {b: {c: *a}}", "an alias must not be inside the value that it refers to"),
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: {a: 1, b: *b, a: 2}", "twice in"),
        ("a: *b", "found undefined alias"),
        ("a: &a 1\nb: &a 2", "found duplicate anchor"),
        ("a: 1\n---\nb: 1", "expected a single document"),
        ('name: x\nstore: "\\0"', "found NUL or half of a surrogate pair"),
        ('name: x\nstore: "\\ud800"', "found NUL or half of a surrogate pair"),
    ],
)
def test_yaml_that_leads_nowhere_is_refused(text: str, said: str) -> None:
    error = refused(text)
    assert error.rule == "must be YAML"
    assert said in str(error)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "link to a pipe", "nothing"])
def test_what_is_no_regular_file_is_refused_unread(kind: str, here: Path) -> None:
    path = here / "study"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        os.mkfifo(here / "pipe" if "link" in kind else path)
        if "link" in kind:
            path.symlink_to(here / "pipe")
    with pytest.raises(SpecError, match="must be a readable study file, but got ") as caught:
        read_yaml(path)
    assert caught.value.field == str(path)


def test_values_of_a_condition_have_the_limits_of_a_file() -> None:
    with pytest.raises(SpecError, match=f"^--where: must have at most {NODES:,} values"):
        read_values("--where", "1," * NODES)
    with pytest.raises(SpecError, match=r"^--where: must nest at most 16"):
        read_values("--where", "[" * DEPTH_LIMIT)


def test_aliases_within_the_limits_stand_for_their_values() -> None:
    text = "a: &a [1, &b {c: 2}]\nd: [*a, *b, *b]\ne: {<<: *b, f: 3}"
    inner = {"c": 2}
    assert load_yaml("it", text, "must be YAML") == {
        "a": [1, inner], "d": [[1, inner], inner, inner], "e": {"c": 2, "f": 3}
    }  # fmt: skip


def test_text_at_each_limit_is_read() -> None:
    values = load_yaml("it", f"[{'1,' * (NODES - 1)}]", "must be YAML")
    assert values == [1] * (NODES - 1)
    assert load_yaml("it", "x" * CHARACTERS, "must be YAML") == "x" * CHARACTERS
    deep = load_yaml("it", "[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT, "must be YAML")
    for _ in range(DEPTH_LIMIT - 1):
        (deep,) = deep
    assert deep == []


class Watched(str):
    """Text that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Watched.compared += 1
        assert Watched.compared < 20_000, "each with each"
        return str.__eq__(self, other)


def test_keys_of_a_large_mapping_are_not_compared_each_with_each() -> None:
    def text(said: str) -> yaml.ScalarNode:
        return yaml.ScalarNode("tag:yaml.org,2002:str", said)

    keys = [Watched(f"k{number}") for number in range(9_000)]
    node = yaml.MappingNode("tag:yaml.org,2002:map", [(text(key), text("1")) for key in keys])
    assert len(_Loader("it", "").construct_mapping(node)) == len(keys)
