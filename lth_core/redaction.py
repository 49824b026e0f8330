"""Redaction: passwords and secrets are taken out of texts that are printed or stored."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL")

_LOGIN = re.compile(
    r"""(?<=//) (?: [^/\s'"]+ | [^/\s'":@[]{0,200} : (?!\d{0,5}/) [^\s'"@]{1,200} ) (?=@)""", re.X
)
"""Name and password in an address; a password may have a slash in it, but host:80/a@b has none."""


_QUERY = re.compile(
    r"""(?<=[?&;#]) ([\w.-]{0,60} (?:secret|pass|pw|token|key|cred|auth|sig) [\w.-]{0,60}=)
    (?: [^\s&'"] | ['"](?=\w) )+""", re.X | re.I
)  # fmt: skip
"""A parameter of an address that is named like a secret; a quote inside of it is part of it."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def without_secrets(text: str) -> str:
    """The text with ``***`` for passwords and secret parameters in addresses, and for the values of
    environment variables named like secrets.

    >>> without_secrets("https://bob:pw@host/a@b?x=1&token=pw failed")
    'https://***@host/a@b?x=1&token=*** failed'
    """
    for name, value in os.environ.items():
        if len(value) >= 6 and _NAME.search(name):
            text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _LOGIN.sub("***", text))


def without_login(address: str) -> str:
    """The address with ``***`` for all up to its last ``@``, or from its first ``?`` or ``#`` on.
    Where it has both, a password may contain either, and only the scheme is left.

    >>> without_login("s3://key:se/cret@bucket/p"), without_login("s3://bucket/p?token=x")
    ('s3://***@bucket/p', 's3://bucket/p?***')
    """
    found = _SCHEME.match(address)
    scheme = found[0] if found else ""
    query, login = re.search("[?#]", address), "@" in address
    if query and login:
        return f"{scheme}***"
    if query:
        return f"{address[: query.end()]}***"
    return f"{scheme}***@{address.rpartition('@')[2]}" if login else address
