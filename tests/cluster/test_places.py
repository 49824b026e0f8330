"""A sweep through Ray is the same wherever its store is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lth_core import Trainer, find_tickets
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LTH = Path(sys.executable).with_name("lth")
STUDY: dict[str, Any] = {
    "name": "places",
    "base": {
        "model": {"widths": [16]},
        "train": {"lr": 0.01, "steps": "40it", "evaluate_every": "20it"},
        "levels": 1,
        "rewind": "10it",
        "branches": ["ticket"],
    },
    "axes": {"seed": [0, 1]},
    "tracking": {"uri": None},
}


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's folder; its sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def undisturbed() -> list[dict[str, Any]]:
    trials = make_plan(parse_study(STUDY)).trials
    return [row for trial in trials for level in find_tickets(trial.spec, Trainer())
            for row in level.records()]  # fmt: skip


def test_a_sweep_into_s3_is_reported_watched_and_gone_on_with(
    s3: str, tmp_path: Path, ray_folder: Path
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "store": s3}))
    env = {**os.environ, "RAY_TMPDIR": str(ray_folder), "TMPDIR": str(ray_folder)}

    def lth(*arguments: str) -> str:
        done = subprocess.run(
            [LTH, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    lth("sweep", "study.yaml")
    rows = [json.loads(line) for line in lth("report", "places", "--json").splitlines()]
    told = undisturbed()
    untold = ("train_seconds", "reused")
    assert [{k: row[k] for k in told[0] if k not in untold} for row in rows] == [
        {k: v for k, v in row.items() if k not in untold} for row in told
    ]
    said = json.loads(lth("status", "places", "--json"))
    assert (said["state"], said["done"], said["levels_done"]) == ("finished", 2, 4)
    lth("sweep", "study.yaml", "levels=2", "--serial")
    rows = [json.loads(line) for line in lth("report", "places", "--json").splitlines()]
    assert [row["reused"] for row in rows] == [True, True, False] * 2
    assert not (tmp_path / "lth-store").exists()
