"""Files of weights and a header, in safetensors: tickets, and smaller networks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save

from lth_core.errors import SpecError, TicketFileError, exception_text
from lth_core.files.limits import check_file, check_header
from lth_core.masks import State
from lth_core.spec import sha256
from lth_core.store.decode import DECODE_ERRORS, decoding
from lth_core.store.folder import write_whole

T = TypeVar("T")

MOST_REASON = 300
"""Most characters of a reason in an error: a header may hold a value of megabytes."""


def file_content(tensors: State, header: dict[str, str]) -> bytes:
    """Content of a safetensors file whose header has a digest of its own.

    Raises:
        TicketFileError: `read_file` would refuse the size.
    """
    content = save(dict(tensors), metadata={**header, "header_digest": sha256(header)})
    check_header(int.from_bytes(content[:8], "little"), len(content))
    return content


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        TicketFileError: the file cannot be written.
    """
    target = Path(path)
    try:
        write_whole(target, content)
    except OSError as error:
        raise TicketFileError(f"{target}: cannot be written ({error.strerror})") from None


def read_file(
    path: str | os.PathLike[str], form: str, read: Callable[[Mapping[str, str], State], T]
) -> T:
    """The object in a file of weights.

    Args:
        form: the format that the header must name.
        read: makes the object of header and tensors.

    Raises:
        TicketFileError: the file is missing, truncated, altered, or of another format.
    """
    try:
        check_file(path)
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != form:
            raise TicketFileError(f"format must be {form!r}, but got {header.get('format')!r}")
        with decoding("the header, or a tensor that it names", TicketFileError):
            return read(header, tensors)
    except (TicketFileError, SpecError) as error:
        reason = shorten(str(error), MOST_REASON, placeholder=" ...")
        raise TicketFileError(f"{path}: {reason}") from None
    except MemoryError:
        raise TicketFileError(f"{path}: its weights do not fit in memory") from None
    except (OSError, *DECODE_ERRORS) as error:
        raise TicketFileError(
            f"{path}: is not a whole safetensors file ({exception_text(error)})"
        ) from None


def check_fields(header: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Check fields of a header against the values that the content gives, and its own digest.

    Raises:
        TicketFileError: a field has another value.
    """
    rest = {name: value for name, value in header.items() if name != "header_digest"}
    for name, value in {**expected, "header_digest": sha256(rest)}.items():
        if header[name] != value:
            raise TicketFileError(f"{name} must be {value}, as the content gives, but got "
                                  f"{header[name]!r:.80}")  # fmt: skip


def digest_of_tensors(tensors: State) -> str:
    """sha256 of the names, types, shapes and values of a file's tensors."""
    hashed = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        hashed.update(f"{key}{value.dtype}{tuple(value.shape)}".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
