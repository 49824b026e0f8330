"""`lth ui`: for this machine alone unless told otherwise; passwords are seen nowhere."""

import base64
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers_mlflow import free_port, wait_until_up

from lth_core.errors import TrackingError
from tracking.publish.publisher import open_publisher
from tracking.publish.ui.server import (
    auth_environment,
    is_loopback,
    notice,
    serve_ui,
    show_study,
    ui_command,
)

PASSWORD = "planted-horse-battery"


@dataclass(frozen=True)
class Ui:
    """A running `lth ui`, and all that it has printed so far."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str = "/", host: str = "127.0.0.1", **headers: str) -> int:
        """The status of an answer."""
        request = urllib.request.Request(f"http://{host}:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def printed(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """`lth ui --auth` beside a new database, and a file of a user's with the name of a package."""
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    (folder / "flask.py").write_text("raise SystemExit('imported')")
    open_publisher(f"sqlite:///{folder}/mlflow.db", "a-study", "about it")
    command = [sys.executable, "-m", "sweeps.cli", "ui", "--auth", "--port", str(port), "--no-open"]
    env = {**os.environ, "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
           "PYTHONPATH": str(Path(__file__).parents[4])}  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder,
                                   start_new_session=True)  # fmt: skip
    try:
        wait_until_up(f"http://127.0.0.1:{port}", process, folder / "log")
        yield Ui(port, folder, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def other_address() -> str:
    """An address of this machine beside loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine is in no network")
        address: str = asked.getsockname()[0]
        return address


@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.long
def test_without_the_password_nothing_is_answered(ui: Ui) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=5"
    for path in ("/", search):
        assert ui.get(path) == 401
        assert ui.get(path, Authorization=basic("admin", "password1234")) == 401
        assert ui.get(path, Authorization=basic("admin", PASSWORD)) == 200


@pytest.mark.mlflow
@pytest.mark.long
def test_the_password_is_seen_nowhere(ui: Ui) -> None:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert PASSWORD.encode() not in process.read_bytes()
        except OSError:  # it has ended
            continue
    assert "for this machine only" in ui.printed()
    kept = [path for path in ui.folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "users.db", "session-key", "log"} <= {path.name for path in kept}
    for path in kept:
        with suppress(FileNotFoundError):  # SQLite's journal comes and goes
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.mlflow
@pytest.mark.long
def test_only_the_owner_can_read_the_users_and_git_takes_none_of_them(ui: Ui) -> None:
    folder = ui.folder / "mlflow-auth"
    assert folder.stat().st_mode & 0o077 == 0
    for secret in ("session-key", "basic_auth.ini"):
        assert (folder / secret).stat().st_mode & 0o077 == 0
    subprocess.run(["git", "init", "-q", str(ui.folder)], check=True)
    status = ["git", "-C", str(ui.folder), "status", "--porcelain", "-uall"]
    seen = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert "mlflow.db" in seen
    assert "mlflow-auth" not in seen


@pytest.mark.mlflow
@pytest.mark.long
def test_no_other_name_is_listened_to(ui: Ui) -> None:
    told = basic("admin", PASSWORD)
    assert ui.get(Host="evil.example", Authorization=told) == 403
    assert ui.get(Host=f"localhost:{ui.port}", Authorization=told) == 200


@pytest.mark.mlflow
@pytest.mark.long
def test_no_other_address_of_the_machine_answers(ui: Ui) -> None:
    with pytest.raises(OSError, match=r"refused|timed out|unreachable|No route"):
        socket.create_connection((other_address(), ui.port), timeout=5).close()


@pytest.mark.mlflow
@pytest.mark.long
def test_a_study_on_a_server_is_shown_there(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    publisher = open_publisher(server, "shown", "about it")
    show_study(server, "shown", browser=False)
    page = f"{server}/#/experiments/{publisher.experiment}/runs?workflowType=machine_learning"
    assert capsys.readouterr().out == f"{page}\n"
    with pytest.raises(TrackingError, match="has no study other; sweep it first"):
        show_study(server, "other", browser=False)
    MlflowClient(server).delete_experiment(publisher.experiment)
    with pytest.raises(TrackingError, match=r"the experiment shown was deleted; .* restores it"):
        show_study(server, "shown", browser=False)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file where a database would be, and nothing in the environment."""
    (tmp_path / "mlflow.db").touch()
    monkeypatch.delenv("MLFLOW_AUTH_ADMIN_PASSWORD", raising=False)
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "a-name"])
def test_serving_other_machines_needs_a_choice_about_the_password(
    host: str, database: str, tmp_path: Path
) -> None:
    assert not is_loopback(host)
    with pytest.raises(TrackingError, match=r"other machines reach .*; pass --auth .* --no-auth"):
        serve_ui(database, host, free_port())
    assert not (tmp_path / "mlflow-auth").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    (said,) = notice(host, 5000, auth=False)
    assert "for this machine only" in said


def test_the_notice_says_what_other_machines_can_do() -> None:
    openly = "\n".join(notice("192.0.2.7", 5000, auth=False))
    assert "no password: everyone there\ncan read, change and delete all runs" in openly
    assert "Nothing is encrypted" in openly
    assert "ssh -L 5000:127.0.0.1:5000" in openly
    told = "\n".join(notice("0.0.0.0", 5000, auth=True))
    assert "MLFLOW_TRACKING_PASSWORD" in told
    assert "no password" not in told


def test_the_command_listens_on_the_given_host_and_port(tmp_path: Path) -> None:
    command = ui_command(tmp_path / "mlflow.db", "127.0.0.1", 5123, auth=False)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5123"
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(("given", "words"), [(None, "got none"), ("short", "got a shorter one")])
def test_first_start_needs_a_password(
    given: str | None, words: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given:
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", given)
    with pytest.raises(TrackingError, match=f"password for `admin`, of at least 12 .*{words}") as e:
        serve_ui(database, "127.0.0.1", free_port(), auth=True)
    assert "short," not in str(e.value)


def test_password_may_come_from_a_file_and_is_not_needed_again(
    database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mlflow-auth"
    folder.mkdir()
    (folder / "password").write_text(f"{PASSWORD}\n")
    first = auth_environment(folder)
    assert first["MLFLOW_AUTH_ADMIN_PASSWORD"] == PASSWORD
    assert "auth_cache_ttl_seconds = 60\n" in (folder / "basic_auth.ini").read_text()
    (folder / "users.db").touch()
    (folder / "password").unlink()
    again = auth_environment(folder)
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" not in again
    key = "MLFLOW_FLASK_SERVER_SECRET_KEY"
    assert again[key] == first[key], "who is logged in stays so"
    assert len(again[key]) == 64


def test_a_taken_port_is_an_error(database: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"--port: 127.0.0.1:{port} cannot be listened on"):
            serve_ui(database, "127.0.0.1", port)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (None, "nothing was tracked"),
        ("http://127.0.0.1:1", "is a server, which runs elsewhere"),
        ("sqlite:///nowhere.db", "nowhere.db does not exist; sweep a study here"),
    ],
)
def test_a_store_that_cannot_be_served_is_an_error(
    uri: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=words):
        serve_ui(uri, "127.0.0.1", free_port())
