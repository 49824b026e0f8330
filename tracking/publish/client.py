"""MLflow client, and checks of its address. Calls fail within seconds; errors hold no secrets."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
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
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Environment of MLflow, where the user has not set it. MLflow's own defaults wait for minutes,
print a line a run and send telemetry. A call is tried twice: a silent server fails within 20 s, and
a server that takes 5 s a call does not."""


class RefusedError(TrackingError):
    """The server refuses a call because of its content or of the run's state.

    It may take other calls: another publisher was faster, a run was deleted, or a value is not
    valid.
    """


@contextmanager
def connect(uri: str) -> Iterator[MlflowClient]:
    """A client whose calls fail within seconds, with a TrackingError."""
    with _tracking_errors(uri):
        yield _client(uri)


@contextmanager
def _tracking_errors(uri: str) -> Iterator[None]:
    """Set MLflow's environment and logging; make TrackingErrors of its exceptions in the block."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for noisy in ("alembic", "urllib3.connectionpool", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    try:
        yield
    except _failures() as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if _is_refusal(error):
            raise RefusedError(f"tracking.uri: {uri} refuses a call: {reason}") from None
        message = f"tracking.uri: {uri} does not answer as MLflow should: {reason}"
        raise TrackingError(message) from None


_REFUSALS = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST",
             "RESOURCE_ALREADY_EXISTS")  # fmt: skip
_REFUSED_FILES = (400, 413, 422)
"""HTTP's codes for a file that is refused, such as one that is too large for a proxy."""


def _is_refusal(error: Exception) -> bool:
    """Whether the server refuses this call, and may take others."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return getattr(error, "error_code", "") in _REFUSALS or status in _REFUSED_FILES


def _failures() -> tuple[type[Exception], ...]:
    """Exceptions that MLflow raises; boto3's too, where artifacts go to S3 without a server."""
    # A malformed answer raises ParseError; in protobuf a number out of range raises OverflowError,
    # half of a surrogate pair SystemError.
    from alembic.util import CommandError
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    s3 = (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
          ("boto3.exceptions", "Boto3Error"))  # fmt: skip
    loaded = [getattr(sys.modules[module], name) for module, name in s3 if module in sys.modules]
    malformed = (ParseError, OverflowError, SystemError)
    database = (SQLAlchemyError, CommandError)
    return (MlflowException, *malformed, RequestException, *database, OSError, *loaded)


@lru_cache(maxsize=4)
def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def address_fault(uri: str) -> str | None:
    """Rule that a tracking address breaks, or None for a valid address.

    An address may hold no password: studies are stored, shown and committed to git.
    """
    if not uri.startswith(("sqlite:///", "http://", "https://")):
        return "must be sqlite:///FILE, http://... or null"
    is_file = uri.startswith("sqlite:")
    if "@" in uri and not is_file:  # not only before the first slash: a password may have one
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
    """Check a tracking address.

    Raises:
        TrackingError: it holds a password, or is of another kind.
    """
    if fault := address_fault(uri):
        raise TrackingError(f"tracking.uri: {fault}, but got {without_login(uri)!r}")


def check_database(database: Path) -> None:
    """Check that MLflow can use an SQLite file, and make its folder.

    MLflow itself tries for minutes to open a file that cannot be opened, and reads ``%2e%2e`` in an
    address as the folder above.

    Raises:
        TrackingError: MLflow cannot use it.
    """
    if {"%", "?"} & set(str(database)):
        rule = "must lie in no folder with '%' or '?' in its name"
        raise TrackingError(f"tracking.uri: {rule}, but got {str(database)!r}")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        if not database.exists():
            _make_database(database)
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("select count(*) from sqlite_master")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking.uri: {database} cannot be opened as an SQLite file: {error}"
        ) from None


def _make_database(database: Path) -> None:
    """Make MLflow's SQLite file whole or not at all, unless another process makes it.

    MLflow makes its tables one by one in place: two processes at once, or one that is killed, would
    leave a file that MLflow cannot use.
    """
    beside = database.with_name(f".{database.name}-{os.getpid()}")
    with _tracking_errors(f"sqlite:///{database}"), TemporaryDirectory(prefix="lth-") as folder:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        made = Path(folder) / database.name
        runs = str(database.parent / "mlruns")
        store = SqlAlchemyStore(f"sqlite:///{made}", runs)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        try:
            shutil.copyfile(made, beside)
            os.link(beside, database)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(beside, database)
        finally:
            beside.unlink(missing_ok=True)
