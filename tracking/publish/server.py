"""MLflow's UI on a study's tracking database, for this machine alone unless asked otherwise.

MLflow is started as a process and not imported.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from lth_core.errors import TrackingError
from tracking.publish.client import DEFAULTS

AUTH_FOLDER = "mlflow-auth"
"""Folder beside the database, readable by its owner alone: users, and the key of their sessions."""
SHORTEST_PASSWORD = 12
"""Fewest characters of a password; MLflow's rule."""

NO_FOLDER = "--app-dir /"
"""Option by which uvicorn, and PYTHONSAFEPATH by which Python imports nothing from the current
folder: a user's `random.py` or `flask.py` there would otherwise be imported by MLflow."""


def serve_ui(uri: str | None, host: str, port: int, auth: bool | None = None) -> None:
    """Replace this process by the server, until Ctrl-C.

    Args:
        auth: whether to ask for a password; None: no, and only on this machine's own addresses.

    Raises:
        TrackingError: tracking is off, the file is missing, or the address is a server's; other
            machines reach the host and ``auth`` is None; the first password is missing; the port
            is taken.
    """
    database = _database(uri)
    if auth is None and not is_loopback(host):
        raise TrackingError(
            f"--host: other machines reach {host}; pass --auth to ask for a password, "
            "or --no-auth to let everyone there read, change and delete all runs and artifacts"
        )
    _check_free(host, port)
    env = {**DEFAULTS, **os.environ}
    env |= auth_environment(database.parent / AUTH_FOLDER) if auth else {}
    # MLflow's job runner takes 1.5 GB and 15 s, and the UI does not need it.
    env.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    env.setdefault("PYTHONSAFEPATH", "1")
    if not is_loopback(host):
        # Only these names are answered: a web page may make a user's browser send requests here
        # under a name of its own (DNS rebinding).
        hosts = [f"{name}:{port}" for name in [*_names(host), "localhost", "127.0.0.1"]]
        env.setdefault("MLFLOW_SERVER_ALLOWED_HOSTS", ",".join(hosts))
        env.setdefault(
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", ",".join(f"http://{name}" for name in hosts)
        )
    sys.stdout.writelines(f"{line}\n" for line in notice(host, port, bool(auth)))
    sys.stdout.flush()
    command = ui_command(database, host, port, bool(auth))
    os.execve(command[0], command, env)


def ui_command(database: Path, host: str, port: int, auth: bool) -> list[str]:
    """Command that serves an SQLite file; it holds no secret, because other users can list it."""
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
        "--default-artifact-root", str(database.parent / "mlartifacts"),
        "--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts", NO_FOLDER,
        *(["--app-name", "basic-auth"] if auth else []),
    ]  # fmt: skip


def notice(host: str, port: int, auth: bool) -> Iterator[str]:
    """Lines on the UI's address, who can reach it, and what they can do."""
    ends = "Ctrl-C ends it"
    if is_loopback(host):
        yield f"http://{_bracketed(host)}:{port}  (on this machine only; {ends})"
    else:
        yield f"{' or '.join(f'http://{name}:{port}' for name in _names(host))}  ({ends})"
        if auth:
            yield "Other machines can reach this. Users with a password can change and delete runs."
        else:
            yield "Other machines can reach this, and it asks for no password: everyone there"
            yield "can read, change and delete all runs and artifacts."
        yield "Nothing is encrypted, passwords included. Safer: leave out --host, and on the other"
        yield f"machine run: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}"
    if auth:
        yield "The first user is `admin`. Sweeps that publish through this server need its name and"
        yield "password in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."


def auth_environment(folder: Path) -> dict[str, str]:
    """Environment of a server that asks for passwords; makes the folder of its users and secrets.

    The first start needs the password of `admin`: from MLFLOW_AUTH_ADMIN_PASSWORD in the
    environment or from the file `password` in the folder. MLflow stores a hash of it.

    Raises:
        TrackingError: the password is missing or too short, or `mlflow[auth]` is not installed.
    """
    if find_spec("flask_wtf") is None:
        raise TrackingError("--auth: needs `pip install 'mlflow[auth]'`")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write_private(folder / ".gitignore", "*\n")
    users, password_file = folder / "users.db", folder / "password"
    password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD", "")
    if not password and password_file.is_file():
        password = password_file.read_text().strip()
    if not users.is_file() and len(password) < SHORTEST_PASSWORD:
        raise TrackingError(
            "--auth: the first start needs a password for `admin`, of at least "
            f"{SHORTEST_PASSWORD} characters, in MLFLOW_AUTH_ADMIN_PASSWORD in the environment or "
            f"in the file {password_file}, but got {'none' if not password else 'a shorter one'}"
        )
    settings, key = folder / "basic_auth.ini", folder / "session-key"
    address = f"sqlite:///{users}".replace("%", "%%")  # configparser's escape
    _write_private(
        settings,
        f"[mlflow]\ndatabase_uri = {address}\nadmin_username = admin\ndefault_permission = READ\n",
    )
    if not key.is_file():
        _write_private(key, secrets.token_hex(32))
    return {
        "MLFLOW_AUTH_CONFIG_PATH": os.environ.get("MLFLOW_AUTH_CONFIG_PATH", str(settings)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": os.environ.get(
            "MLFLOW_FLASK_SERVER_SECRET_KEY", key.read_text()
        ),
        **({"MLFLOW_AUTH_ADMIN_PASSWORD": password} if password else {}),
    }


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database(uri: str | None) -> Path:
    if uri is None:
        raise TrackingError("tracking.uri: is null, so nothing was tracked")
    if not uri.startswith("sqlite:///"):
        raise TrackingError(f"tracking.uri: {uri} is a server; open that address in a browser")
    database = Path(uri.removeprefix("sqlite:///")).expanduser().absolute()
    if not database.is_file():
        raise TrackingError(f"tracking.uri: {database} does not exist yet; sweep a study first")
    return database


def _check_free(host: str, port: int) -> None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        raise TrackingError(f"--port: {host}:{port} cannot be listened on ({error})") from None


def _names(host: str) -> list[str]:
    """Names and addresses of this machine that other machines can use."""
    try:
        if not ip_address(host).is_unspecified:
            return [_bracketed(host)]
    except ValueError:
        return [host]
    name = socket.gethostname()
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        addresses = set()
    outside = sorted(address for address in addresses if not is_loopback(address))
    return [name, *map(_bracketed, outside)]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
