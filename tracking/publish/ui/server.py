"""MLflow's UI on a study's tracking database, for this machine alone unless asked otherwise.

MLflow is started as a process and not imported.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from lth_core.errors import TrackingError
from tracking.publish import names
from tracking.publish.client import DEFAULTS, check_address, connect
from tracking.publish.locations import FOLDER, correct_locations, database_file, find_experiment
from tracking.publish.runs import check_active
from tracking.publish.ui.browse import open_page, open_when_up
from tracking.publish.views import CELLS

AUTH_FOLDER = "mlflow-auth"
"""Folder beside the database, readable by its owner alone: users, and the key of their sessions."""
SHORTEST_PASSWORD = 12
"""Fewest characters of a password; MLflow's rule."""

OPTIONS = "--app-dir / --log-level warning"
"""Options of uvicorn. By the first one, as by PYTHONSAFEPATH, nothing is imported from the current
folder: a user's `random.py` or `flask.py` there would otherwise be imported by MLflow. By the
second one, a line for each request does not push the page's address out of the terminal."""


STUDIES = f"/#/experiments?{names.TRAINING}"
"""Path of the list of studies."""


def show_study(uri: str, study: str, *, browser: bool) -> None:
    """Print a study's page on a tracking server that runs already, and open it.

    Raises:
        TrackingError: the server cannot be reached, or has no such study, or it was deleted.
    """
    check_address(uri)
    with connect(uri) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            raise TrackingError(f"tracking.uri: {uri} has no study {study}; sweep it first")
        check_active(client, experiment)
    page = f"{uri.rstrip('/')}{study_path(experiment.experiment_id, experiment.tags)}"
    sys.stdout.write(f"{page}\n")
    if browser:
        open_page(page)


def serve_ui(
    uri: str | None, host: str, port: int, auth: bool | None = None, *,
    study: str | None = None, browser: bool = False,
) -> None:  # fmt: skip
    """Replace this process by the server, until Ctrl-C. Once it answers, print the study's page.

    Args:
        auth: whether to ask for a password; None: no, and only on this machine's own addresses.
        study: name of the study whose page is shown; None: the list of all.
        browser: whether to open the page, where there is a display.

    Raises:
        TrackingError: tracking is off, the file is missing or has no such study, or the address is
            a server's; other machines reach the host and ``auth`` is None; the first password is
            missing; the port is taken.
    """
    database = _database(uri)
    if auth is None and not is_loopback(host):
        raise TrackingError(
            f"--host: other machines reach {host}; pass --auth to ask for a password, "
            "or --no-auth to let everyone there read, change and delete all runs and artifacts"
        )
    _check_free(host, port)
    correct_locations(database)
    path = study_path(*find_experiment(database, study)) if study else STUDIES
    env = {**DEFAULTS, **os.environ}
    env |= auth_environment(database.parent / AUTH_FOLDER) if auth else {}
    # MLflow's job runner takes 1.5 GB and 15 s, and the UI does not need it.
    env.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    env.setdefault("PYTHONSAFEPATH", "1")
    env.setdefault("PYTHONWARNINGS", "ignore")  # MLflow's own use of other packages
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
    hosts = _names(host) if is_loopback(host) else [*_names(host), "localhost"]
    pages = [f"http://{name}:{port}{path}" for name in hosts]
    open_when_up(pages, env, browser=browser)
    command = ui_command(database, host, port, bool(auth))
    os.execve(command[0], command, env)


def study_path(experiment: str, tags: Collection[str]) -> str:
    """Path of a study's page of runs, in the UI's mode for training.

    Args:
        experiment: MLflow's id of the study's experiment.
        tags: names of its tags. Where they have a saved view of the cells, the page shows it.
    """
    view = f"&viewStateShareKey={CELLS}" if f"{names.VIEW}{CELLS}" in tags else ""
    return f"/#/experiments/{experiment}/runs?{names.TRAINING}{view}"


def ui_command(database: Path, host: str, port: int, auth: bool) -> list[str]:
    """Command that serves an SQLite file; it holds no secret, because other users can list it."""
    return [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}",
        "--default-artifact-root", str(database.parent / FOLDER),
        "--host", host, "--port", str(port), "--workers", "1", "--uvicorn-opts", OPTIONS,
        *(["--app-name", "basic-auth"] if auth else []),
    ]  # fmt: skip


def notice(host: str, port: int, auth: bool) -> Iterator[str]:
    """Lines on who can reach the UI, and what they can do."""
    if is_loopback(host):
        yield f"Starting MLflow's UI on port {port}, for this machine only; Ctrl-C ends it."
    else:
        yield f"Starting MLflow's UI on port {port}; Ctrl-C ends it."
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
        f"[mlflow]\ndatabase_uri = {address}\nadmin_username = admin\ndefault_permission = READ\n"
        # Else MLflow hashes the password at each request, for 0.2 s or more of a CPU.
        "auth_cache_ttl_seconds = 60\n",
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
        raise TrackingError(f"tracking.uri: {uri} is a server, which runs elsewhere")
    database = database_file(uri)
    if not database.is_file():
        where = "sweep a study here first, or change to the folder of a sweep"
        raise TrackingError(f"tracking.uri: {database} does not exist; {where}")
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
