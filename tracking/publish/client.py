"""Talking to MLflow: a client, and failures that come soon, say what was asked and no secrets."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lth_core.errors import TrackingError
from lth_core.redaction import without_login

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own wait for minutes, print a line for each run and report to its makers; what the user
set stands. A call is tried twice: silence is told within 20 s, and 5 s a call are only slow."""


class RefusedError(TrackingError):
    """The server answers, and refuses: another publisher was faster, or a run was deleted."""


@contextmanager
def speaking(uri: str) -> Iterator[MlflowClient]:
    """A client whose every failure is a TrackingError, after seconds and not minutes."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for noisy in ("alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        yield _client(uri)
    except _failures() as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        refused = getattr(error, "error_code", "") in _REFUSALS
        kind = RefusedError if refused else TrackingError
        message = f"tracking.uri: {uri} does not answer as MLflow should: {reason}"
        raise kind(message) from None


_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST",
             "RESOURCE_ALREADY_EXISTS")  # fmt: skip


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow lets through; boto3's too, where artifacts go to S3 without a server."""
    # Of an answer of another shape; of a number without bound protobuf makes an OverflowError, of
    # half a character a SystemError.
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    s3 = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
          ("boto3.exceptions", "Boto3Error"))  # fmt: skip
    used = [getattr(sys.modules[module], name) for module, name in s3 if module in sys.modules]
    shapes = (ParseError, OverflowError, SystemError)
    return (MlflowException, *shapes, RequestException, SQLAlchemyError, OSError, *used)


@lru_cache(maxsize=4)
def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def address_fault(uri: str) -> str | None:
    """The rule that a tracking address breaks, or None where it is one to use.

    A study is kept, shown and put under git: an address with a password in it is none to use.
    """
    if not uri.startswith(("sqlite:///", "http://", "https://")):
        return "must be sqlite:///FILE, http://... or null"
    is_file = uri.startswith("sqlite:")
    if "@" in uri and not is_file:  # in a password there may be a slash
        rule = "must hold no user and no password"
    elif "?" in uri or ("#" in uri and not is_file):
        rule = "must have no parameters"
    else:
        return None
    return (
        f"{rule}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN, in the environment"
    )


def check_address(uri: str) -> None:
    """Whether it is an address to use.

    Raises:
        TrackingError: it holds a password, or is of another kind.
    """
    if fault := address_fault(uri):
        raise TrackingError(f"tracking.uri: {fault}, but got {without_login(uri)!r}")


def check_database(database: Path) -> None:
    """Whether MLflow can use it: it tries for minutes to open a file that cannot be opened, and in
    its addresses ``%2e%2e`` is the folder above.

    Raises:
        TrackingError: it cannot.
    """
    if {"%", "?"} & set(str(database)):
        rule = "must lie in no folder with '%' or '?' in its name"
        raise TrackingError(f"tracking.uri: {rule}, but got {str(database)!r}")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("select count(*) from sqlite_master")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking.uri: {database} cannot be opened as an SQLite file: {error}"
        ) from None
