"""Secrets come from the environment and go nowhere; names stay in their folder."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tiny import Lth, StudyFile, StudyOf

from lth_core.errors import SpecError, TrackingError
from lth_core.redaction import without_secrets
from tracking.publish.publisher import open_publisher

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-0123456789",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-0123456789",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "planted-admin-0123456789",
    "RAY_AUTH_TOKEN": "planted-ray-0123456789-0123456789-0123456789",
}
NAMES = ["..", ".", "../x", "a/../../b", "/abs", ".hidden", "%2e%2e", "%2e%2e%2fx", "a\0b", "",
         "x" * 101, "a b", "..\\x", "~", "a\nb"]  # fmt: skip


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's folder; its sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def seen_by_ps(session: int) -> set[bytes]:
    """The command lines of a session's processes, as any user of the machine sees them now."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            _, _, stat = (process / "stat").read_text().rpartition(") ")
            if int(stat.split()[3]) == session:
                seen.add((process / "cmdline").read_bytes())
        except OSError:  # it has ended
            continue
    return seen


def read(folder: Path) -> dict[Path, bytes]:
    """Every file below, but for those that Ray's last processes take away meanwhile."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                found[path] = path.read_bytes()
    return found


def leaks(content: bytes) -> bool:
    return any(secret.encode() in content for secret in PLANTED.values())


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
def test_sweep_that_knows_secrets_leaves_none_in_any_file_or_command_line(
    tiny_file: StudyFile, here: Path, short_folder: Path
) -> None:
    tiny_file({"axes.seed": [0], "base.levels": 1, "tracking.uri": "sqlite:///mlflow.db"})
    env = {**os.environ, **PLANTED, "MLFLOW_TRACKING_USERNAME": "bob",
           "RAY_TMPDIR": str(short_folder), "TMPDIR": str(short_folder)}  # fmt: skip
    lth = Path(sys.executable).with_name("lth")
    commands = set[bytes]()
    for command in (["sweep", "tiny.yaml"], ["sync", "tiny"]):
        with (here / f"{command[0]}.log").open("wb") as log:
            called = subprocess.Popen([lth, *command], env=env, cwd=here, stdout=log, stderr=log,
                                      start_new_session=True)  # fmt: skip
        patience = time.monotonic() + 600
        while called.poll() is None and time.monotonic() < patience:
            commands |= seen_by_ps(called.pid)
            time.sleep(0.05)
        called.kill()  # where it has not ended
        assert called.wait() == 0, (here / f"{command[0]}.log").read_text()
    for process in (b"lth\0sweep", b"lth\0sync", b"/gcs_server\0", b"/raylet\0", b"ray::"):
        assert any(process in line for line in commands), process
    assert [line for line in commands if leaks(line)] == []
    files = read(here) | read(short_folder)
    assert {"mlflow.db", "ticket.safetensors", "report.html", "entry.json", "sweep.log",
            "runtime_env_agent.log"} <= {path.name for path in files}  # fmt: skip
    assert [str(path) for path, content in files.items() if leaks(content)] == []


ADDRESSES = ["http://bob:hunter22@host/x", "https://token22@host", "postgresql://bob:hunter22@h/d",
             "http://bob:hun/hunter22@host", "http://host/?password=hunter22", "https://h?hunter22",
             "http://host?mail=a@b&x=hunter22", "https://host/#hunter22", "http://h;x?a=token22",
             "sqlite:///mlflow.db?key=hunter22", "sqlite:///file:x?vfs=hunter22",
             "postgresql://h/d?x=hunter22"]  # fmt: skip


@pytest.mark.parametrize("uri", ADDRESSES)
def test_address_with_a_password_is_refused_and_not_repeated(
    uri: str, tiny: StudyOf, tiny_file: StudyFile, lth: Lth, here: Path
) -> None:
    with pytest.raises(SpecError, match=r"tracking.uri: must") as refused:
        tiny({"tracking.uri": uri})
    with pytest.raises(TrackingError, match=r"tracking.uri: must") as also:
        open_publisher(uri, "a-study", "about it")
    called = lth("sweep", tiny_file(), f"tracking.uri={uri}")
    assert called.code == 2
    for said in (str(refused.value), str(also.value), called.err, called.out):
        assert "hunter22" not in said
        assert "token22" not in said
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    "store",
    ["s3://KEY:hunter22@bucket/p", "s3://KEY:hunt/er22@bucket/p", "s3://bucket/p?x=hunter22",
     "s3://bucket?hunter22", "s3://bucket/p/#hunter22"],
)  # fmt: skip
@pytest.mark.slow
def test_store_with_keys_in_its_address_is_refused_and_not_repeated(
    store: str, tiny: StudyOf, tiny_file: StudyFile, lth: Lth, here: Path
) -> None:
    with pytest.raises(SpecError, match=r"^store: must name a bucket"):
        tiny({"store": store})
    said = "lth: store: must name a bucket by letters, digits, '.', '_' or '-', and hold no keys and no"
    sound = tiny_file().rename(here / "sound.yaml")
    for command in (
        ["plan", tiny_file({"store": store})],
        ["sweep", "tiny.yaml"],
        ["plan", sound, f"store={store}"],
        ["ticket", "ls", "--store", store],
        ["store", "verify", store],
    ):
        called = lth(*command)
        assert (called.code, called.out) == (2, ""), command
        assert called.err.startswith(said)
        assert called.err.count("\n") == 1
        assert "hunt" not in called.err
        assert "er22" not in called.err
    assert sorted(path.name for path in here.iterdir()) == ["sound.yaml", "tiny.yaml"]


@pytest.mark.parametrize(
    "text",
    ["tracking=http://u:hunter22@h", "store={a: 's3://K:hunter22@b'}",
     "tracking='http://h/?token=hunter22'", "store={a: 's3://b/p?secret=hunter22'}"],
)  # fmt: skip
def test_address_in_the_wrong_place_is_not_repeated_with_its_password(
    text: str, tiny_file: StudyFile, lth: Lth
) -> None:
    called = lth("plan", tiny_file(), text)
    assert called.code == 2
    assert "***" in called.err
    assert "hunter22" not in called.err


OWN = """
import os
def net(spec, shape, classes):
    raise RuntimeError("postgresql://me:hunter22@db/x denied, " + os.environ["MY_SECRET_KEY"])
"""


def test_own_code_that_fails_over_a_secret_does_not_have_it_printed(
    tiny_file: StudyFile, lth: Lth, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "planted-own-0123456789")
    (here / "own_secret.py").write_text(OWN)
    called = lth("plan", tiny_file({"base.model": {"name": "own_secret:net"}}))
    assert called.code == 2
    assert "postgresql://***@db/x denied, ***" in called.err
    assert "hunter22" not in called.err
    assert "planted-own" not in called.err


def test_error_about_a_name_of_two_lines_is_one_line(here: Path, lth: Lth) -> None:
    (here / "a\nb.yaml").write_text("[")
    called = lth("plan", "a\nb.yaml")
    assert called.code == 2
    assert called.err.startswith("lth: a b.yaml: must be YAML")
    assert called.err.count("\n") == 1


def test_printed_errors_have_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    said = "; ".join(["https://bob:pw@host/a@b failed", *PLANTED.values()])
    assert without_secrets(said) == "https://***@host/a@b failed" + "; ***" * 4


def everywhere(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_study_cannot_be_named_out_of_its_folder(
    name: str, tiny: StudyOf, tiny_file: StudyFile, lth: Lth, here: Path
) -> None:
    file = tiny_file()
    before = everywhere(here.parent)
    with pytest.raises(SpecError, match="name: must be letters"):
        tiny({"name": name})
    with pytest.raises(TrackingError, match="study: must be letters"):
        open_publisher("sqlite:///mlflow.db", name, "about it")
    assert lth("sweep", file, f"name={name!r}").code == 2
    assert everywhere(here.parent) == before


@pytest.mark.parametrize("folder", ["%2e%2e", "a%20b", "a?b"])
def test_database_is_not_put_where_mlflow_would_read_its_path_as_another(
    folder: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / folder).mkdir()
    monkeypatch.chdir(here / folder)
    before = everywhere(here)
    with pytest.raises(TrackingError, match=r"must lie in no folder with '%' or '\?' in its name"):
        open_publisher("sqlite:///mlflow.db", "a-study", "about it")
    assert everywhere(here) == before
