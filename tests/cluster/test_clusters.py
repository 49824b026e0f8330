"""The cluster files, held against what reads them: Ray, EC2 (moto's), KubeRay's schema, bash."""

import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
AWS, LOCAL = ROOT / "cluster.yaml", ROOT / "sweeps" / "clusters" / "local.yaml"
CLUSTERS = ROOT / "sweeps" / "clusters"
MLFLOW = CLUSTERS / "mlflow.sh"


def patience() -> int:
    """Seconds that leave.sh takes at most."""
    (seconds,) = re.findall(r"^PATIENCE=(\d+)$", (CLUSTERS / "leave.sh").read_text(), re.M)
    return int(seconds)


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """A cluster file as `ray up` understands it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return dict(prepared)


@pytest.mark.parametrize("path", [AWS, LOCAL], ids=lambda path: path.name)
def test_ray_accepts_the_file_and_every_node_starts_with_a_token(path: Path) -> None:
    text = path.read_text()
    config = checked(yaml.safe_load(text))
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    (profile,) = [line for line in config["setup_commands"] if "bashrc" in line]
    assert "RAY_AUTH_MODE=token" in profile
    assert "0.0.0.0" not in text  # nothing is opened to the world
    starts = config["head_start_ray_commands"][-1:] + config["worker_start_ray_commands"][-1:]
    assert all("ray start" in line for line in starts)


def test_ray_refuses_a_field_that_it_does_not_know() -> None:
    from jsonschema import ValidationError

    config = yaml.safe_load(AWS.read_text())
    with pytest.raises(ValidationError, match="spot_price"):
        checked(config | {"spot_price": 1})


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's own
def test_options_of_ray_start_and_mlflow_exist() -> None:
    import mlflow.cli
    import ray.scripts.scripts

    for path in (AWS, LOCAL):
        config = yaml.safe_load(path.read_text())
        lines = config["head_start_ray_commands"][-1:] + config["worker_start_ray_commands"][-1:]
        for line in lines:
            said = line.partition("ray start ")[2].replace("$RAY_HEAD_IP", "10.0.0.1").split()
            ray.scripts.scripts.start.make_context("start", said)
    lines = MLFLOW.read_text().replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "nohup mlflow server" in line]
    said = line.partition("mlflow server ")[2].partition(">>")[0].replace('"', "").split()
    mlflow.cli.server.make_context("server", said)


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # MLflow uses it
def test_mlflow_checks_a_password_once_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it hashes it at each request, for 0.2 s or more of a CPU."""
    from mlflow.server.auth.config import read_auth_config

    settings = MLFLOW.read_text().partition("cat >auth.ini <<'END'\n")[2].partition("END\n")[0]
    (tmp_path / "auth.ini").write_text(settings)
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    config = read_auth_config()
    assert (config.auth_cache_ttl_seconds, config.admin_username) == (60, "admin")


# AWS


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """cluster.yaml as a user fills it in, in an account of moto's."""
    import boto3
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key that it makes
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ec2, iam = boto3.client("ec2", "us-west-2"), boto3.client("iam")
        network = ec2.describe_subnets()["Subnets"][0]
        group = ec2.create_security_group(
            GroupName="lth", Description="lth", VpcId=network["VpcId"]
        )
        for name in ("LTH-HEAD", "LTH-WORKER"):
            iam.create_instance_profile(InstanceProfileName=name)
        filled = {
            "subnet-REPLACE": network["SubnetId"], "sg-REPLACE": group["GroupId"],
            "ami-REPLACE": ec2.describe_images()["Images"][0]["ImageId"],
        }  # fmt: skip
        text = AWS.read_text()
        for said, meant in filled.items():
            text = text.replace(said, meant)
        yield yaml.safe_load(text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # botocore's and moto's own
def test_ec2_starts_a_head_and_a_spot_gpu_worker_without_rays_open_security_group(
    aws: dict[str, Any],
) -> None:
    import boto3
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = checked(aws)
    config = AWSNodeProvider.fillout_available_node_types_resources(config)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu_worker"]["min_workers"] == 0
    found = {k: v for k, v in types["gpu_worker"]["resources"].items() if k != "memory"}
    assert found == {"CPU": 8, "GPU": 1, "accelerator_type:A10G": 1}

    config = AWSNodeProvider.bootstrap_config(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in (("head", "head"), ("gpu_worker", "worker")):
        tags = {"ray-node-type": kind, "ray-node-name": name, "ray-user-node-type": name}
        provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
    ec2 = boto3.client("ec2", "us-west-2")
    told = [each for r in ec2.describe_instances()["Reservations"] for each in r["Instances"]]
    assert [(each["InstanceType"], each.get("InstanceLifecycle")) for each in told] == [
        ("m6i.2xlarge", None),
        ("g5.2xlarge", "spot"),
    ]
    for each in told:
        assert [group["GroupName"] for group in each["SecurityGroups"]] == ["lth"]
        assert each["MetadataOptions"]["HttpTokens"] == "required"
    names = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert not [name for name in names if name.startswith("ray-autoscaler")]


# Kubernetes


def closed(schema: Any) -> Any:
    """A CRD's schema under which a field that it does not know is an error, as kubectl warns of."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: closed(each) for key, each in schema.items()}
    if isinstance(said.get("properties"), dict) and "type" in said:
        said.setdefault("additionalProperties", False)
    if said.pop("x-kubernetes-int-or-string", False):
        said |= {"type": ["integer", "string"]}
    return said


def faults(manifest: dict[str, Any]) -> list[str]:
    packed = Path(__file__).with_name("rayjob-crd.json.gz").read_bytes()
    schema = closed(json.loads(gzip.decompress(packed)))
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, no part of the CRD
    return [error.message for error in Draft202012Validator(schema).iter_errors(manifest)]


def rayjob() -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTERS / "rayjob.yaml").read_text()))


def test_the_rayjob_keeps_to_kuberays_schema_with_a_token_and_workers_from_0() -> None:
    manifest = rayjob()
    assert faults(manifest) == []
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"]) == (0, 0)
    pod = workers["template"]["spec"]
    told = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert told == ["bash", "/lth/sweeps/clusters/leave.sh"]
    assert pod["terminationGracePeriodSeconds"] >= patience() + 30  # Ray's own, after it


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ("rayClusterSpec", "authOptions", {"mode": "tokens"}),
        ("rayClusterSpec", "enableInTreeAutoscale", True),
        ("", "backoffLimit", "twice"),
    ],
)
def test_kuberays_schema_finds_a_slip(where: str, field: str, value: object) -> None:
    manifest = rayjob()
    part = manifest["spec"][where] if where else manifest["spec"]
    part[field] = value
    assert len(faults(manifest)) == 1


def test_the_manifest_is_of_the_ray_that_is_pinned() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"rayproject/ray:{pinned}-" in (CLUSTERS / "rayjob.yaml").read_text()


# Scripts


@pytest.mark.parametrize("script", sorted(CLUSTERS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def tools(folder: Path, **does: str) -> Path:
    """Programs that are stood in for, by what their shell script does."""
    folder.mkdir(parents=True)
    for name, script in does.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


# Leaving


def test_ray_drains_a_node_with_the_options_that_leave_gives() -> None:
    import ray.scripts.scripts

    text = (CLUSTERS / "leave.sh").read_text().replace("\\\n", " ")
    (said,) = re.findall(r"ray drain-node (.*) \|\|", text)
    said = re.sub(r'"\$\(.*?\)"', "x", said).replace("$PATIENCE", "80")
    ray.scripts.scripts.drain_node.make_context("drain-node", shlex.split(said))


def test_leave_does_nothing_where_no_ray_runs(tmp_path: Path) -> None:
    none = tools(tmp_path / "bin", pgrep="exit 1", ray="echo called")
    env = {"PATH": f"{none}:/usr/bin:/bin"}
    done = subprocess.run(["bash", CLUSTERS / "leave.sh"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_leave_waits_for_a_worker_that_is_starting_and_ends_its_trial(tmp_path: Path) -> None:
    """Ray had chosen the node for a trial before it was drained."""
    worker = tmp_path / "default_worker.py"
    worker.write_text("sleep 2\nexec -a ray::Worker.train sleep 100\n")
    raylet = subprocess.Popen(["bash", "-c", f"bash {worker} & wait"])
    env = {"PATH": f"{tools(tmp_path / 'bin', ray='exit 0')}:/usr/bin:/bin"}
    try:
        done = subprocess.run(
            ["bash", CLUSTERS / "leave.sh", str(raylet.pid)], env=env, capture_output=True, text=True
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert raylet.wait(timeout=10) is not None, "its worker has ended"
    finally:
        raylet.kill()


class Metadata(BaseHTTPRequestHandler):
    """EC2's instance metadata, of the version that asks for a token."""

    asked: ClassVar[list[str]] = []
    taken: ClassVar[bool] = False

    def do_PUT(self) -> None:
        found = (
            self.path == "/latest/api/token"
            and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "60"
        )
        self.answer(200 if found else 400, b"secret")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        there = self.taken and self.path == "/latest/meta-data/spot/instance-action"
        known = self.headers["X-aws-ec2-metadata-token"] == "secret"
        self.answer((200 if there else 404) if known else 401, b'{"action": "terminate"}')

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_spot_worker_leaves_when_ec2_says_so_and_not_before(tmp_path: Path) -> None:
    """spot.sh, beside a stand-in for leave.sh."""
    shutil.copy(CLUSTERS / "spot.sh", tmp_path)
    left = tmp_path / "left"
    (tmp_path / "leave.sh").write_text(f"echo gone >> {left}")
    quick = tools(tmp_path / "bin", sleep="exec /bin/sleep 0.1")
    env = {"PATH": f"{quick}:/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    Metadata.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        call = ["bash", str(tmp_path / "spot.sh"), f"http://127.0.0.1:{server.server_port}"]
        with subprocess.Popen(call, env=env, start_new_session=True) as watcher:
            try:
                until(lambda: len(Metadata.asked) > 2)
                assert not left.exists()
                assert subprocess.run(call, env=env, timeout=20).returncode == 0, "one is enough"
                Metadata.taken = True
                until(lambda: left.exists() and len(left.read_text().split()) > 1)
                assert watcher.poll() is None, "Ray may be started here anew"
            finally:
                Metadata.taken = False
                os.killpg(watcher.pid, signal.SIGKILL)
        server.shutdown()
    assert set(Metadata.asked) == {"/latest/meta-data/spot/instance-action"}


def test_aws_workers_watch_for_the_notice_before_ray_is_started() -> None:
    *_, watch, start = yaml.safe_load(AWS.read_text())["worker_start_ray_commands"]
    assert "~/lth/sweeps/clusters/spot.sh" in watch
    assert watch.endswith("&")
    assert "ray start" in start


def until(what: Callable[[], bool]) -> None:
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    pytest.fail("waited 30 s")


# Slurm

SLURM = {
    "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "1", "PATH": "/usr/bin:/bin",
}  # fmt: skip


def slurm_tools(folder: Path, srun: str) -> None:
    """What the script calls beside bash, in the place where `make setup` puts it."""
    tools(folder / ".venv" / "bin", srun=srun, scontrol="printf 'n1\\nn2\\n'", git="echo abc123")


@pytest.mark.parametrize("gpus", [1, 0])
def test_slurm_hands_ray_and_the_sweep_what_they_take(tmp_path: Path, gpus: int) -> None:
    """The script as bash runs it; srun and scontrol are stood in for."""
    slurm_tools(tmp_path, srun='shift; printf "%s\\n" "$SRUN_CPUS_PER_TASK" "$@"')
    without_gpus = {name: value for name, value in SLURM.items() if "GPUS" not in name}
    done = subprocess.run(
        ["bash", CLUSTERS / "slurm.sh", "study.yaml", "levels=3"], cwd=tmp_path,
        env=SLURM if gpus else without_gpus, capture_output=True, text=True, check=True,
    )  # fmt: skip
    commit, cpus, ray, symmetric_run, *said = done.stdout.splitlines()
    assert (commit, cpus, ray, symmetric_run) == ("abc123", "8", "ray", "symmetric-run")
    ours, sweep = said[: said.index("--")], said[said.index("--") + 1 :]
    assert sweep == ["lth", "sweep", "study.yaml", "levels=3", "--address", "auto"]

    import ray.scripts.scripts
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    assert ours[:4] == ["--address", "n1:24711", "--min-nodes", "2"]
    left = curate_and_validate_ray_start_args(ours)
    started = ray.scripts.scripts.start.make_context("start", ["--head", *left]).params
    assert (started["num_cpus"], started["num_gpus"]) == (8, gpus)


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_slurm_lets_the_trials_leave_before_the_end_and_the_heads_last(
    tmp_path: Path, nodes: int
) -> None:
    """TERM comes to the script alone; the sweep runs on, until Slurm ends what is left."""
    others = tmp_path / "others"
    slurm_tools(
        tmp_path,
        srun=f'[ "$1" = --overlap ] || {{ echo swept; exec sleep 60; }}; echo "$@" | tee {others}',
    )
    (tmp_path / "sweeps" / "clusters").mkdir(parents=True)
    (tmp_path / "sweeps" / "clusters" / "leave.sh").write_text("echo the head")
    with subprocess.Popen(
        ["bash", CLUSTERS / "slurm.sh", "study.yaml"], cwd=tmp_path, stdout=subprocess.PIPE,
        env=SLURM | {"SLURM_JOB_NUM_NODES": str(nodes)}, text=True, start_new_session=True,
    ) as job:  # fmt: skip
        assert job.stdout
        assert [job.stdout.readline() for _ in "12"] == ["abc123\n", "swept\n"]
        stat = Path(f"/proc/{job.pid}/stat")
        while stat.read_text().rpartition(") ")[2][0] != "S":  # it waits for the sweep
            time.sleep(0.01)
        job.terminate()
        assert job.wait(120) == 128 + signal.SIGTERM
        os.killpg(job.pid, signal.SIGKILL)  # the sweep, as Slurm does
        left = job.stdout.read().splitlines()
    there = f"--overlap --exclude=n1 --nodes={nodes - 1} --ntasks={nodes - 1}"
    told = [f"{there} bash sweeps/clusters/leave.sh"] if nodes > 1 else []
    assert left == [*told, "the head"]


def test_slurm_tells_the_script_early_enough() -> None:
    (early,) = re.findall(
        r"^#SBATCH --signal=B:TERM@(\d+)$", (CLUSTERS / "slurm.sh").read_text(), re.M
    )
    assert int(early) > 2 * patience(), "the head's trials leave when the others are gone"


def test_the_cluster_files_are_installed_with_the_package() -> None:
    """`pip install` brings mlflow.sh and the examples along."""
    import tomllib

    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["package-data"]["sweeps"]
    held = {path for pattern in patterns for path in (ROOT / "sweeps").glob(pattern)}
    assert set(CLUSTERS.iterdir()) <= held
