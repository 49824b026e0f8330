"""Joining a cluster: what is not there, or has not what a trial needs, is told in seconds."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lth_core.errors import LaunchError, SpecError, StoreError
from sweeps.clusters import capacity as room
from sweeps.clusters import connect as cluster
from sweeps.clusters import shared_folder as shared
from sweeps.clusters.capacity import check_fits, tune_resources
from sweeps.clusters.connect import check_cluster, check_server, joined
from sweeps.clusters.shared_folder import check_node_answers, check_shared
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Resources

LTH = Path(sys.executable).with_name("lth")
GREETING = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # HTTP/2: settings, of which there are none
HEAD, GPUS = {"CPU": 4.0}, {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}


def complaint(call: Callable[[], object]) -> str:
    with pytest.raises(LaunchError) as refused:
        call()
    return str(refused.value)


# What a trial needs


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gpu": 1, "gpu_type": "H100"}, "resources.gpu_type: a trial needs H100"),
        ({"gpu": 2}, "resources.gpu: a trial needs 2 GPU on a node"),
        ({"cpu": 9}, "resources.cpu: a trial needs 9 CPU on a node"),
    ],
)
def test_what_no_node_has_is_named_with_all_that_there_is(asked: dict, said: str) -> None:
    told = complaint(lambda: check_fits(Resources(**asked), [HEAD, GPUS, GPUS], "the cluster"))
    there = "but the cluster has 1 x (4 CPU, 0 GPU) and 2 x (8 CPU, 1 GPU, A10G)"
    assert told.startswith(f"{said}, {there}")
    assert ("resources.gpu=0 runs on CPUs" in told) == (asked == {"gpu": 2})


def test_a_trial_must_fit_on_one_node() -> None:
    there = [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 4.0}]
    told = complaint(lambda: check_fits(Resources(cpu=2, gpu=1), there, "the cluster"))
    assert told.startswith("resources: a trial needs 2 CPU, 1 GPU on a node, but")
    check_fits(Resources(cpu=1, gpu=0.5), there, "the cluster")


def test_tune_is_asked_for_the_gpu_type_as_ray_asks_for_one() -> None:
    from ray.util.accelerators import NVIDIA_TESLA_A10G

    asked = tune_resources(Resources(cpu=2, gpu=0.5, gpu_type=NVIDIA_TESLA_A10G))
    assert asked == {"cpu": 2, "gpu": 0.5, "accelerator_type:A10G": 0.001}
    assert tune_resources(Resources()) == {"cpu": 1, "gpu": 0}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"gpu_type": "A10G"}, "needs resources.gpu above 0, but got 'A10G'"),
        ({"gpu": 1, "gpu_type": "accelerator_type:A10G"}, "must be letters, digits"),
    ],
)
def test_a_gpu_type_is_a_name_of_a_gpu_that_is_asked_for(asked: dict, said: str) -> None:
    with pytest.raises(SpecError, match=f"^resources.gpu_type: {said}"):
        parse_study({"name": "asks", "resources": asked})


# What is not there


@pytest.fixture
def listening() -> Iterator[Callable[[bytes], str]]:
    """The address of a server that says the same to all who come, and no more; or is silent."""
    kept: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        kept.append(server)

        def serve() -> None:
            while True:
                try:
                    came, _ = server.accept()
                    kept.append(came)
                    came.sendall(answer)
                    if answer not in (b"", GREETING):
                        came.close()
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for each in kept:
        each.close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("no.such.host.invalid:6379", "not known"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(address: str, reason: str) -> None:
    begun = time.monotonic()
    said = complaint(lambda: check_cluster(address))
    assert said.startswith(f"--address: no Ray cluster answers at {address}: ")
    assert reason in said
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "address",
    ["", "local", "nonsense", "host:", ":6379", "::1:6379", "ray://host:10001", "host:1\n2"],
)
def test_what_is_no_address_is_refused_in_a_line_that_says_what_is_one(address: str) -> None:
    with pytest.raises(
        SpecError, match=r"^--address: must be HOST:PORT of a cluster's head, or auto"
    ) as no:
        check_server(address)
    assert str(no.value).endswith(f"but got {address!r}")
    assert "\n" not in str(no.value)
    with pytest.raises(SpecError, match=r"^--address"), joined(address, Resources(), "s3://b/p"):
        pass


def test_an_address_of_the_environment_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")  # the dashboard's, for `ray job`
    with pytest.raises(SpecError, match=r"^RAY_ADDRESS: must be HOST:PORT"):
        check_server("auto")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "at 127.0.0.1:1: " in complaint(lambda: check_server("auto"))
    monkeypatch.delenv("RAY_ADDRESS")
    check_server("auto")


@pytest.fixture
def full() -> Iterator[str]:
    """The address of a server that takes no more connections, and refuses none."""
    with contextlib.ExitStack() as kept:
        server = kept.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_who_does_not_answer_is_told_from_who_answers_something_else(
    full: str, listening: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "GREETING_TIMEOUT", 0.5)
    silent, other = listening(b""), listening(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    for address, reason in {
        full: "no connection within 0.5 s",
        silent: "connected, but it sent nothing for 0.5 s, unlike a Ray head",
        other: "the server there is not a Ray head",
    }.items():
        said = complaint(lambda address=address: check_cluster(address))
        assert said == f"--address: no Ray cluster answers at {address}: {reason}"


def test_a_cluster_that_greets_and_then_hangs_is_given_up(
    listening: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "JOIN_TIMEOUT", 2)
    said = complaint(lambda: check_cluster(listening(GREETING)))
    assert said.endswith(
        "a process could not join within 2 s: the head, which accepts connections, or this node's "
        "raylet hangs or is overloaded"
    )


def test_a_head_that_hangs_has_half_a_minute_and_a_node_a_minute() -> None:
    assert cluster.GREETING_TIMEOUT + cluster.JOIN_TIMEOUT <= 25
    assert 2 * cluster.GREETING_TIMEOUT <= 20
    assert room.AUTOSCALER_TIMEOUT <= 30
    assert shared.ANSWER_TIMEOUT <= 60


# The store's folder


def test_nodes_that_do_not_see_the_store_or_do_not_answer_are_named() -> None:
    store = Path("/srv/store")
    check_node_answers(store, [("10.0.0.2", True), ("10.0.0.3", True)])
    said = [("10.0.0.4", None), ("10.0.0.3", False), ("10.0.0.2", True), ("10.0.0.4", True)]
    assert complaint(lambda: check_node_answers(store, said)) == (
        "store: /srv/store must be a folder that all nodes share, or s3://bucket/prefix, but files "
        "written here are not seen by 10.0.0.3 and no answer within 60 s from 10.0.0.4 (of 4 nodes)"
    )
    assert "but no answer within 60 s" in complaint(lambda: check_node_answers(store, said[:1]))


def test_a_store_that_cannot_be_written_is_an_error_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write .seen-.* \(Not a directory\)"):
        check_shared(f"{tmp_path}/file/store")


# Who gets in


@pytest.mark.parametrize(
    ("mode", "knew", "said"),
    [
        ("token", False, "; it refuses clients without the token in {}"),
        ("token", True, None),
        (
            "disabled",
            True,
            ", and with RAY_AUTH_MODE=disabled everyone who reaches it can run code here",
        ),
    ],
)
def test_what_keeps_others_out_of_a_local_ray_is_said_once(
    mode: str, knew: bool, said: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    token = tmp_path / "auth_token"
    token.touch(0o644)
    monkeypatch.setattr(cluster, "TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    cluster.warn_of_open_ports(knew)
    told = [f"Ray listens on all addresses of this machine{said.format(token)}"] if said else []
    assert caplog.messages == told
    assert (token.stat().st_mode & 0o777 == 0o600) == (mode == "token" and not knew)


@pytest.mark.parametrize("made_before", [False, True])
def test_token_and_its_folder_can_be_written_to_by_their_owner_alone(
    made_before: bool, tmp_path: Path
) -> None:
    token = tmp_path / ".ray" / "auth_token"
    if made_before:
        token.parent.mkdir()
        token.parent.chmod(0o777)
        token.touch()
        token.chmod(0o644)
    cluster.protect_token(token)
    assert token.parent.stat().st_mode & 0o022 == 0
    assert not made_before or token.stat().st_mode & 0o777 == 0o600


# A real cluster with a token

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[str, int, dict[str, str]]]:
    """A cluster's address, its second node's raylet, and an environment that may join it."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    env = os.environ | {
        "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("two_nodes.py")], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as made:  # fmt: skip
        assert made.stdout
        address, raylet = made.stdout.readline().split()
        yield address, int(raylet), env
        made.communicate(timeout=300)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def two_nodes(made: tuple[str, int, dict[str, str]]) -> tuple[str, dict[str, str]]:
    """A cluster's address, and an environment that may join it."""
    address, _, env = made
    return address, env


LOOK = """
import json, os, signal, sys
import ray
from lth_core.errors import LaunchError
from sweeps.clusters import shared_folder as shared

address, store, raylet, patience, answers = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")

def told():
    try:
        shared.check_shared(store)
    except LaunchError as error:
        return str(error)

said = [told()]
shared.ANSWER_TIMEOUT = int(patience)
os.kill(int(raylet), signal.SIGSTOP)
said.append(told())
os.kill(int(raylet), signal.SIGCONT)
shared.ANSWER_TIMEOUT = 240
os.path.exists = lambda path: os._exit(1)
said.append(told())
with open(answers, "w") as file:  # Ray prints too, before and after
    json.dump(said, file)
os._exit(0)
"""


@pytest.mark.ray
def test_a_node_that_hangs_or_dies_while_it_is_asked_for_the_store_is_named(
    made: tuple[str, int, dict[str, str]], tmp_path: Path
) -> None:
    address, raylet, env = made
    (tmp_path / "store").mkdir()
    answers = tmp_path / "answers.json"
    called = subprocess.run(
        [sys.executable, "-c", LOOK, address, tmp_path / "store", str(raylet), "5", answers],
        env=env, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    well, hung, died = json.loads(answers.read_text())
    host = address.partition(":")[0]
    assert well is None
    assert hung.endswith(f"but no answer within 5 s from {host} (of 2 nodes)")
    assert died.endswith(f"but no answer within 240 s from {host}, {host} (of 2 nodes)")
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.ray
def test_the_token_decides_who_joins(
    two_nodes: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, env = two_nodes
    monkeypatch.setattr(os, "environ", env | {"HOME": str(tmp_path)})
    check_cluster(address)
    for wrong in ({"RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        monkeypatch.setattr(os, "environ", env | wrong)
        begun = time.monotonic()
        said = complaint(lambda: check_cluster(address))
        assert f"at {address}: RPC error: InvalidAuthToken: Authentication token is" in said
        assert wrong.get("RAY_AUTH_TOKEN", "nothing") not in said
        assert time.monotonic() - begun < 30
    without = {key: said for key, said in env.items() if key != "RAY_AUTH_TOKEN"}
    monkeypatch.setattr(os, "environ", without | {"HOME": str(tmp_path)})
    assert "no authentication token was found" in complaint(lambda: check_cluster(address))


@pytest.mark.ray
def test_a_sweep_is_refused_by_a_cluster_without_the_gpu_type(
    two_nodes: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, env = two_nodes
    study = tmp_path / "study.yaml"
    study.write_text(
        yaml.safe_dump({"name": "asks", "tracking": {"uri": None}, "base": {"levels": 1}})
    )
    begun = time.monotonic()
    called = subprocess.run(
        [LTH, "sweep", study, "resources.gpu=1", "resources.gpu_type=H100", "--address", address],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert called.returncode == 2, called.stderr
    said = " ".join(called.stderr.split())
    assert said.endswith(
        "resources.gpu_type: a trial needs H100, but the cluster has 1 x (1 CPU, 0 GPU) and "
        "1 x (1 CPU, 2 GPU, A10G)"
    )
    # 30 s is what is promised: Ray's own processes may have to share this machine with other tests.
    assert time.monotonic() - begun < 280
