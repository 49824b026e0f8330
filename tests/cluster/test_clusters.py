"""The cluster files, held against what reads them: Ray, EC2 (moto's), KubeRay's schema, bash."""

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
AWS, LOCAL = ROOT / "cluster.yaml", ROOT / "sweeps" / "clusters" / "local.yaml"
CLUSTERS = ROOT / "sweeps" / "clusters"
MLFLOW = CLUSTERS / "mlflow.sh"


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


# Slurm


@pytest.mark.parametrize("script", sorted(CLUSTERS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def test_slurm_hands_ray_and_the_sweep_what_they_take(tmp_path: Path) -> None:
    """The script as bash runs it; srun and scontrol are stood in for."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, does in (
        ("srun", 'shift; printf "%s\\n" "$@"'),
        ("scontrol", "printf 'n1\\nn2\\n'"),
        ("git", "echo abc123"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "1", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", CLUSTERS / "slurm.sh", "study.yaml", "levels=3"], cwd=tmp_path, env=slurm,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    commit, ray, symmetric_run, *said = done.stdout.splitlines()
    assert (commit, ray, symmetric_run) == ("abc123", "ray", "symmetric-run")
    ours, sweep = said[: said.index("--")], said[said.index("--") + 1 :]
    assert sweep == ["lth", "sweep", "study.yaml", "levels=3", "--address", "auto"]

    import ray.scripts.scripts
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    assert ours[:4] == ["--address", "n1:24711", "--min-nodes", "2"]
    left = curate_and_validate_ray_start_args(ours)
    started = ray.scripts.scripts.start.make_context("start", ["--head", *left]).params
    assert (started["num_cpus"], started["num_gpus"]) == (8, 1)


def test_the_cluster_files_are_installed_with_the_package() -> None:
    """`pip install` brings mlflow.sh and the examples along."""
    import tomllib

    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    patterns = tools["setuptools"]["package-data"]["sweeps"]
    held = {path for pattern in patterns for path in (ROOT / "sweeps").glob(pattern)}
    assert set(CLUSTERS.iterdir()) <= held
