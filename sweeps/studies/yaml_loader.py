"""Safe YAML loader with the numbers of YAML 1.2 and limits on size and depth."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lth_core.errors import SpecError

MOST_BYTES = 512 * 1024
"""Largest size of a study file in bytes: the largest preset has 4 kB. PyYAML reads about 1 MB/s."""
MOST_NODES = 20_000
"""Largest number of keys and values; an alias counts in full. PyYAML reads about 60,000/s."""
MOST_CHARACTERS = 256_000
"""Largest number of characters in all keys and values; an alias counts in full. With `MOST_NODES`
values, each on its own line, a file has about `MOST_BYTES`: a study that was read can be stored and
read again."""
MOST_DEPTH = 16
"""Largest depth of nested values, aliases included; a study needs six."""

_UNFIT = re.compile("[\0\ud800-\udfff]")


def read_yaml(path: Path) -> Any:
    """Load the content of a file.

    Raises:
        SpecError: the file is not regular, too large, or not YAML; names the file.
    """
    try:
        text = _read(path)
    except SpecError:
        raise
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or NUL in the path
        raise SpecError(str(path), "must be a readable study file", str(error)) from None
    return load_yaml(str(path), text, "must be YAML")


def _read(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, and a device has no end
        raise OSError("is not a regular file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        got = max(status.st_size, len(content))
        raise SpecError(str(path), f"must have at most {MOST_BYTES:,} bytes", got)
    return content.decode("utf-8")


def load_yaml(field: str, text: str, rule: str, got: str | None = None) -> Any:
    """Load the content of a text.

    Args:
        rule: rule in the error for a text that is not YAML.
        got: value in that error; by default the parser's message.

    Raises:
        SpecError: the text is too large or not YAML; names the field.
    """
    if len(text) > MOST_BYTES:
        raise SpecError(field, f"must have at most {MOST_BYTES:,} characters", len(text))
    try:
        return _Loader(field, text).get_single_data()
    except SpecError:
        raise
    # A tagged value that does not fit its tag: `!!bool maybe`, `!!int ""`, a date's 13th month.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        shown = " ".join(str(error).split()) if got is None else got
        raise SpecError(field, rule, shown) from None


@dataclass(slots=True)
class _Size:
    """Size of a node; the size of a list or mapping grows while it is read."""

    nodes: int = 0
    characters: int = 0
    depth: int = 0


class _Loader(yaml.SafeLoader):
    """Loader of safe YAML with the numbers of YAML 1.2: 2e-4 is a number, 2:4 (1.1: 124) is text.

    A mapping must have each key once. Text must have no character that a path or a terminal cannot
    show. The limits are checked on the parser's events, before any node is made.

    Args:
        field: the field that errors name.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self._field = field
        self._enclosing = [_Size()]
        """Sizes of the document, and of the lists and mappings around the next event."""
        self._anchored: dict[str | None, _Size] = {}

    def get_event(self) -> Any:
        event = super().get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            size = self._anchored.get(event.anchor, _Size())  # the parser refuses an unknown one
            if any(size is each for each in self._enclosing):
                raise yaml.YAMLError("an alias must not be inside the value that it refers to")
            self._add(size)
        elif isinstance(event, yaml.NodeEvent):
            size = _Size(1, len(event.value)) if isinstance(event, yaml.ScalarEvent) else _Size(1)
            self._anchored[event.anchor] = size
            self._add(size)
            if isinstance(event, yaml.CollectionStartEvent):
                self._enclosing.append(size)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._enclosing.pop()
        return event

    def _add(self, size: _Size) -> None:
        for distance, outer in enumerate(reversed(self._enclosing), start=1):
            outer.nodes += size.nodes
            outer.characters += size.characters
            outer.depth = max(outer.depth, size.depth + distance)
        document = self._enclosing[0]
        for rule, most, got in (
            ("have at most {:,} values", MOST_NODES, document.nodes),
            ("have at most {:,} characters in its values", MOST_CHARACTERS, document.characters),
            ("nest at most {:,} values in each other", MOST_DEPTH, document.depth),
        ):
            if got > most:
                raise SpecError(self._field, f"must {rule.format(most)}", got)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if _UNFIT.search(str(value)):
            raise yaml.constructor.ConstructorError(
                None, None, "found NUL or half of a surrogate pair", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set[str]()
        for key in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found {key!r} twice", node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":float"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _number in (
    ("int", r"[-+]?(0|[1-9][\d_]*)|0x[\da-fA-F]{1,16}"),  # Python prints none of 4,300 digits
    ("float", r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_number})$"), list("-+.0123456789")
    )
