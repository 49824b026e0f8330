"""`ray up` with sweeps/clusters/local.yaml on two machines, a sweep there, and `ray down`."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import hosts
import pytest
import yaml
from hosts import Machine

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.mlflow]

BIN = Path(sys.executable).parent
CLUSTER = hosts.ROOT / "sweeps" / "clusters" / "local.yaml"
STUDY: dict[str, Any] = {
    "name": "proof",
    "base": {
        "model": {"name": "noted:noted"},
        "train": {"lr": 0.01, "steps": "40it", "evaluate_every": "20it"},
        "levels": 1,
        "branches": ["ticket"],
    },
    "axes": {"seed": [0, 1, 2, 3]},
    "store": "/srv/store",
    "tracking": {"uri": "http://10.87.0.2:5000"},
}
PASSWORD = "for this test alone"
PATIENCE = 600
"""Seconds for a command, or for the second machine; each takes less than 60 where nothing else runs."""


@dataclass
class Cluster:
    """Two machines and the desk from which they are started."""

    desk: Machine
    head: Machine
    worker: Machine
    share: Path

    def at_desk(self, *command: object, seconds: float = PATIENCE, code: int = 0) -> str:
        """A command's output; the test fails with all of it where it ends with another code."""
        limited = ["timeout", seconds, *command]
        done = self.desk.run(*limited, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != code:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def ray(self, command: str, *arguments: object) -> str:
        return self.at_desk(BIN / "ray", command, "cluster.yaml", *arguments)

    def report(self, store: str) -> list[dict[str, Any]]:
        """The study's records in a store, without what differs between two equal sweeps."""
        said = self.at_desk(BIN / "lth", "report", "study.yaml", f"store={store}", "--json")
        rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        untold = ("train_seconds", "search_seconds", "reused")
        return [{key: row[key] for key in sorted(row) if key not in untold} for row in rows]


def for_these_machines(share: Path, addresses: dict[str, str]) -> dict[str, Any]:
    """local.yaml as a user fills it in; the installed .venv stands for `make setup`."""
    said = CLUSTER.read_text().replace("/SHARED", "/srv").replace("10.0.0.10", addresses["head"])
    config = yaml.safe_load(said)
    config["provider"]["worker_ips"] = [addresses["worker"]]
    config["auth"] = {"ssh_user": "root", "ssh_private_key": "/srv/key"}
    setup = config["setup_commands"]
    setup[setup.index("make -C ~/lth setup")] = f"ln -sfn {hosts.ROOT}/.venv ~/lth/.venv"
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        commands[-1] += " --num-cpus=1"
    return config


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    hosts.skip_where_machines_cannot_be()
    share = tmp_path / "share"
    (share / "dist").mkdir(parents=True)
    hosts.pack(share / "dist" / "lth.tar.gz")
    shutil.copy(Path(__file__).with_name("noted.py"), share)
    (share / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", share / "key"]
    subprocess.run(key, check=True)
    machines: list[Machine] = []
    try:
        for name in ("desk", "head", "worker"):
            first = "sleep infinity" if name == "desk" else hosts.SSHD
            machines.append(hosts.start(name, share, first))
        desk, head, worker = machines
        addresses = hosts.connect(desk, [head, worker])
        config = for_these_machines(share, addresses)
        (share / "cluster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        made = Cluster(desk, head, worker, share)
        env = {
            "MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": f"'{PASSWORD}'",
            "PYTHONPATH": f"{Path.home()}/lth:/srv",
        }  # fmt: skip
        lines = "".join(f"{name}={said}\n" for name, said in env.items())
        made.at_desk("sh", "-c", f'rm -rf ~/.ray; umask 077; printf %s "{lines}" > ~/.lth.env')
        made.at_desk(BIN / "ray", "get-auth-token", "--generate")
        yield made
    finally:
        hosts.end(machines)


def wait_for_two_nodes(cluster: Cluster) -> None:
    begun = time.monotonic()
    while "/2.0 CPU" not in cluster.ray("exec", "ray status"):
        if time.monotonic() - begun > PATIENCE:
            pytest.fail(cluster.ray("exec", "tail -n 60 /tmp/ray/session_latest/logs/monitor.*"))
        time.sleep(5)  # a question starts four processes that import Ray


ALONE = """
import torch, yaml
from lth_core import Trainer
from lth_core.store import open_store
from sweeps.studies.reader import parse_study
from tiny import search

torch.set_num_threads(1)  # as a trial of one CPU: sums are then added in one order
with open("study.yaml") as file:
    study = parse_study(yaml.safe_load(file) | {"store": "/srv/alone"})
for _ in search(study, Trainer(open_store(study.store))):
    pass
"""
STRANGER = """
import time, urllib.error, urllib.request
while True:
    try:
        urllib.request.urlopen("http://10.87.0.2:5000/api/2.0/mlflow/experiments/search")
    except urllib.error.HTTPError as error:
        print(error.code)
        break
    except OSError:  # it has not started yet
        time.sleep(0.5)
"""
RUNS = """
import mlflow
print(len(mlflow.search_runs(experiment_names=["proof"], filter_string="status = 'FINISHED'")))
"""


def test_a_sweep_on_two_machines_gives_what_one_process_gives(cluster: Cluster) -> None:
    cluster.ray("up", "-y", "--no-config-cache")
    path = f"PYTHONPATH=/srv:{hosts.ROOT}/tests/sweeps"
    cluster.at_desk("env", path, sys.executable, "-c", ALONE)
    wait_for_two_nodes(cluster)
    refused = cluster.at_desk(sys.executable, "-c", STRANGER)
    assert refused.split() == ["401"]  # nobody is let in without a password

    call = ["env", "RAY_AUTH_MODE=token", BIN / "lth", "sweep", "study.yaml"]
    said = cluster.at_desk(*call, "--address", "10.87.0.2:6379", code=2)
    assert "this machine is not one of its nodes; run the command on one" in " ".join(said.split())

    own = "cd /srv && ! lth sweep study.yaml store=/tmp/own tracking.uri=null --address auto"
    said = " ".join(cluster.ray("exec", own).split())
    assert "lth: store: /tmp/own must be a folder that all nodes share" in said
    assert "are not seen by 10.87.0.3" in said

    (cluster.share / "notes").mkdir()
    cluster.ray("exec", "cd /srv && lth sweep study.yaml --address auto")

    notes = {path.name: path.read_text().splitlines() for path in cluster.share.glob("notes/*")}
    assert set(notes) == {"head", "worker"}
    for of_machine in notes.values():
        turns = [pid for pid, _ in groupby(line.split()[1] for line in sorted(of_machine))]
        # One CPU: a process has trained for the last time before another does.
        assert len(turns) == len(set(turns))

    together = cluster.report("/srv/store")
    assert len(together) == 4 * 2  # dense and ticket
    assert together == cluster.report("/srv/alone")

    env = {"USERNAME": "admin", "PASSWORD": PASSWORD, "URI": STUDY["tracking"]["uri"]}
    given = [f"MLFLOW_TRACKING_{name}={said}" for name, said in env.items()]
    assert cluster.at_desk("env", *given, sys.executable, "-c", RUNS).split()[-1] == "6"

    cluster.ray("down", "-y")
