"""A cluster that is scaled from 0: Ray's own autoscaler over `cluster.yaml`, EC2 on loopback."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import S3Server

from sweeps.clusters.capacity import LEAST_REQUESTED

pytestmark = [pytest.mark.ray, pytest.mark.slow]

AWS = Path(__file__).parents[2] / "cluster.yaml"
TOKEN = "0123456789abcdef" * 4
PATIENCE = 240
"""Seconds; guards against hanging."""

FILL_IN = """
import os, sys
import boto3, yaml
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

ec2, iam = boto3.client("ec2"), boto3.client("iam")
network = ec2.describe_subnets()["Subnets"][0]
group = ec2.create_security_group(GroupName="lth", Description="lth", VpcId=network["VpcId"])
for name in ("LTH-HEAD", "LTH-WORKER"):
    iam.create_instance_profile(InstanceProfileName=name)
text = open(sys.argv[1]).read()
for said, meant in {
    "subnet-REPLACE": network["SubnetId"], "sg-REPLACE": group["GroupId"],
    "ami-REPLACE": ec2.describe_images()["Images"][0]["ImageId"],
}.items():
    text = text.replace(said, meant)
config = prepare_config(yaml.safe_load(text))
validate_config(config)
config = AWSNodeProvider.fillout_available_node_types_resources(config)
config = AWSNodeProvider.bootstrap_config(config)
config["no_restart"] = False
with open(sys.argv[2], "w") as file:
    yaml.safe_dump(config, file)
"""
ASK = """
import json, sys
from lth_core.errors import LaunchError
from sweeps.clusters.connect import joined
from sweeps.studies.schema import Resources

for gpu_type in ("A10G", "H100"):
    try:
        with joined(sys.argv[1], Resources(cpu=2, gpu=0.25, gpu_type=gpu_type), "s3://b/p") as lanes:
            print(json.dumps(lanes))
    except LaunchError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture
def head(s3_server: S3Server) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head that may start GPU workers and has none, and who may join it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets' paths must be short
    (folder / ".ssh").mkdir()  # Ray keeps the key that it makes
    env = os.environ | s3_server.variables | {
        "HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0", "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ENDPOINT_URL": s3_server.address,
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` starts a head
    }  # fmt: skip
    config = folder / "ray_bootstrap_config.yaml"
    fill_in = [sys.executable, "-c", FILL_IN, AWS, config]
    subprocess.run(fill_in, env=env, check=True, capture_output=True, timeout=PATIENCE)
    ray = Path(sys.executable).with_name("ray")
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [ray, "start", "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false",
             "--block", f"--autoscaling-config={config}"],
            env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield address_of(folder, started), env
    finally:
        for process in session(started.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def session(leader: int) -> list[int]:
    """All processes that a head has started."""
    every = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = []
    for process in every:
        with contextlib.suppress(ProcessLookupError):
            found += [process] if os.getsid(process) == leader else []
    return found


def address_of(folder: Path, started: "subprocess.Popen[bytes]") -> str:
    """Where the head listens, once it does."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE and started.poll() is None:
        for said in folder.glob("ray/ray_current_cluster"):
            if address := said.read_text().strip():
                return address
        time.sleep(0.2)
    pytest.fail((folder / "log").read_text())


def test_a_trial_waits_for_a_node_that_the_autoscaler_brings_and_for_no_other(
    head: tuple[str, dict[str, str]],
) -> None:
    address, env = head
    called = subprocess.run(
        [sys.executable, "-c", ASK, address], env=env, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert called.returncode == 0, called.stderr
    brought, refused = map(json.loads, called.stdout.splitlines())
    assert brought == LEAST_REQUESTED, "so many trials at once that it starts several nodes"
    assert refused == (
        "resources: a trial needs 2 CPU, 0.25 GPU (H100) on a node, but the cluster has "
        "1 x (0 CPU, 0 GPU), and its autoscaler adds no node for it"
    )
