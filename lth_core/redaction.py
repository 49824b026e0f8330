"""Redaction of passwords and other secrets in texts that are printed, stored or published."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL")

_LOGIN = re.compile(
    r"""(?<=//) (?: [^/\s'"]+ | [^/\s'":@[]{0,200} : (?!\d{0,5}/) [^\s'"@]{1,200} ) (?=@)""", re.X
)
"""Name and password in an address. A password may contain a slash, but host:80/a@b has none."""

_QUERY = re.compile(
    r"""(?<=[?&;#]) ([\w.-]{0,60} (?:secret|pass|pw|token|key|cred|auth|sig) [\w.-]{0,60}=)
    (?: [^\s&'"] | ['"](?=\w) )+""", re.X | re.I
)  # fmt: skip
"""Parameter of an address that is named like a secret; its value may contain a quote."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def without_secrets(text: str) -> str:
    """The text with ``***`` in place of passwords and secret parameters in addresses, and of values
    of environment variables that are named like secrets.

    >>> without_secrets("https://bob:pw@host/a@b?x=1&token=pw failed")
    'https://***@host/a@b?x=1&token=*** failed'
    """
    for name, value in os.environ.items():
        if len(value) >= 6 and _NAME.search(name):
            text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _LOGIN.sub("***", text))


def without_login(address: str) -> str:
    """The address with ``***`` in place of all up to its last ``@``, or after its first ``?`` or
    ``#``. Where it has both, a password may contain either, and only the scheme is left.

    >>> without_login("s3://key:se/cret@bucket/p"), without_login("s3://bucket/p?token=x")
    ('s3://***@bucket/p', 's3://bucket/p?***')
    """
    match = _SCHEME.match(address)
    scheme = match[0] if match else ""
    query, login = re.search("[?#]", address), "@" in address
    if query and login:
        return f"{scheme}***"
    if query:
        return f"{address[: query.end()]}***"
    return f"{scheme}***@{address.rpartition('@')[2]}" if login else address
