"""What may be shown and kept of a text: not the passwords in it."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL")

_LOGIN = re.compile(
    r"""(?<=//) (?: [^/\s'"]+ | [^/\s'":@[]{0,200} : (?!\d{0,5}/) [^\s'"@]{1,200} ) (?=@)""", re.X
)
"""Name and password in an address; a password may have a slash in it, but host:80/a@b has none."""


def without_secrets(text: str) -> str:
    """A text that may be shown and kept: passwords in addresses, and the values of environment
    variables named like secrets, are ``***``.

    >>> without_secrets("https://bob:pw@host/a@b failed")
    'https://***@host/a@b failed'
    """
    for name, value in os.environ.items():
        if len(value) >= 6 and _NAME.search(name):
            text = text.replace(value, "***")
    return _LOGIN.sub("***", text)


def without_login(address: str) -> str:
    """An address of which nothing is shown up to its last ``@``, whatever stands there.

    >>> without_login("s3://key:se/cret@bucket/p"), without_login("s3://bucket/p")
    ('s3://***@bucket/p', 's3://bucket/p')
    """
    login, found, place = address.rpartition("@")
    scheme = f"{login.partition('://')[0]}://" if "://" in login else ""
    return f"{scheme}***@{place}" if found else address
