"""Talking to MLflow: a client, and failures that come soon and say what was asked."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lth_core.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def speaking(uri: str) -> Iterator[MlflowClient]:
    """A client whose every failure is a TrackingError, after seconds and not minutes."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield _client(uri)
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrackingError(
            f"tracking.uri: {uri} does not answer as MLflow should: {reason}"
        ) from None


@lru_cache(maxsize=4)
def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def check_database(database: Path) -> None:
    """MLflow itself tries for minutes to open a file that cannot be opened."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database)) as opened:
            opened.execute("select count(*) from sqlite_master")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking.uri: {database} cannot be opened as an SQLite file: {error}"
        ) from None
