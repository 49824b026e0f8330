"""Errors that a user can cause, as one tree.

A message names the field or file, the rule, the value and the known values, without secrets.
The command line prints the message alone and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lth_core.redaction import without_secrets

MOST_SHOWN = 300
"""Largest number of characters of a value or exception that an error shows."""


def exception_text(error: BaseException) -> str:
    """Class and message of an exception, on one line, as another error quotes it.

    >>> exception_text(KeyError("step"))
    "KeyError: 'step'"
    """
    return f"{type(error).__name__}: {' '.join(_shortened(str(error)).split())}"


def _shortened(text: str) -> str:
    """The text without secrets, cut if long. It is redacted first: half a secret is not found."""
    text = without_secrets(text)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text):,} characters)"


def nearest(name: object, known: Iterable[str]) -> str:
    """The known names that an unknown one was probably meant to be, or an empty text.

    The last part of a dotted name means each name that ends in it.

    >>> nearest("sed", ["seed", "levels"]), nearest("x", ["seed"])
    ('`seed`', '')
    >>> nearest("fraction", ["data.fraction", "prune.fraction"])
    '`data.fraction` or `prune.fraction`'
    """
    if not isinstance(name, str):
        return ""
    names = list(known)
    ending = [each for each in names if each.endswith(f".{name}")]
    return " or ".join(f"`{each}`" for each in ending or get_close_matches(name, names, 1))


class LthError(Exception):
    """Base of all errors that the input or the machine causes, not the code.

    Args:
        message: text, redacted by `without_secrets`: errors are printed, stored and published.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class SpecError(LthError, ValueError):
    """A field of a spec or a study is wrong.

    Args:
        field: dotted path of the field, such as ``prune.fraction``.
        rule: the violated rule, such as ``must be in [0, 1)``.
        got: the offending value.
        known: accepted values, if they can be listed. The message suggests the one nearest to
            ``got``.
        meant: another suggestion, where not ``got`` is the unknown name.
    """

    def __init__(
        self, field: str, rule: str, got: object, known: Iterable[str] = (), meant: str = ""
    ) -> None:
        self.field, self.rule, self.got, self.known = field, rule, got, tuple(known)
        self.meant = meant or nearest(got, self.known)
        guess = f"; did you mean {self.meant}?" if self.meant else ""
        listed = f"; known: {', '.join(self.known)}" if self.known else ""
        super().__init__(f"{field}: {rule}, but got {_shortened(repr(got))}{listed}{guess}")

    def under(self, prefix: str) -> SpecError:
        """This error with a prefix to its field: ``fraction`` becomes ``prune.fraction``."""
        field = f"{prefix}.{self.field}" if prefix else self.field
        return SpecError(field, self.rule, self.got, self.known, self.meant)

    def __reduce__(self) -> tuple[object, ...]:
        return SpecError, (self.field, self.rule, self.got, self.known, self.meant)


class DataError(LthError):
    """A dataset is absent, or its content is not as its name requires."""


class StoreError(LthError):
    """The result store cannot be read or written (permission, no space left, ...)."""


class UnreadableFileError(StoreError):
    """One file of the store cannot be read (permission, bad sector, symbolic link); others can.

    Args:
        path: path of the file from the root of the store.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: cannot be read ({reason})")


class CorruptEntryError(StoreError):
    """A store entry does not match its checksums; it counts as missing."""


class TicketFileError(LthError):
    """A ticket file is cut short, altered, or does not fit its own header."""


class DivergedError(LthError):
    """The loss is not finite; the run has no result."""


class PreemptedError(LthError):
    """The process received a signal to end; its training resumes from the stored checkpoint."""


class TrackingError(LthError):
    """The tracking server cannot be reached, or refuses a request."""


class LaunchError(LthError):
    """The cluster cannot be reached, or lacks resources that the study needs."""
