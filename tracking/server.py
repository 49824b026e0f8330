"""MLflow's UI on a study's tracking store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lth_core.errors import TrackingError


def ui_command(uri: str | None, port: int) -> list[str]:
    """The command that serves a tracking store on this machine alone (127.0.0.1).

    Raises:
        TrackingError: there is no tracking, no such file, or the address is a server's own.
    """
    if uri is None:
        raise TrackingError("tracking.uri: is null, so nothing was tracked")
    if not uri.startswith("sqlite:///"):
        raise TrackingError(f"tracking.uri: {uri} is a server; open that address in a browser")
    database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
    if not database.is_file():
        raise TrackingError(f"tracking.uri: {database} does not exist yet; sweep a study first")
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
        "--default-artifact-root", str(database.parent / "mlartifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip


def serve_ui(uri: str | None, port: int) -> None:
    """Become the server; ends with Ctrl-C.

    Raises:
        TrackingError: as ``ui_command``.
    """
    command = ui_command(uri, port)
    sys.stdout.write(f"http://127.0.0.1:{port}  (on this machine only; Ctrl-C ends it)\n")
    sys.stdout.flush()
    # MLflow's job runner takes 1.5 GB and 15 s that a look at a study does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(command[0], command)
