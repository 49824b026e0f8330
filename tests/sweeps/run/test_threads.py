"""Threads of a trial."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_fields

from lth_core.parallel import usable_cpus
from lth_core.store import open_store

SCRIPT = """
import torch
from lth_core.train.precision import made_with
from sweeps.run.trial import use_threads

use_threads(2)
print(torch.get_num_threads(), made_with(torch.device("cpu"), torch.nn.Module()).get("denormals"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush denormals")
@pytest.mark.long
def test_all_threads_of_a_trial_flush_denormals() -> None:
    """In a process of its own, where torch has not started its threads yet."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2", "flushed"]


@pytest.mark.slow
@pytest.mark.skipif(usable_cpus() < 2, reason="needs two CPUs")
@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush denormals")
@pytest.mark.long
def test_threads_of_a_serial_sweep_flush_although_the_plan_is_made_in_the_process(
    tmp_path: Path,
) -> None:
    changes = {
        "axes.seed": [0], "base.levels": 0, "resources": {"cpu": 2}, "store": "store",
        # Large enough for two threads.
        "base.model.widths": [4000, 800],
        "base.train": {"steps": "1it", "evaluate_every": "1it"},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny_fields(changes)))  # JSON is YAML
    command = [sys.executable, "-m", "sweeps.cli", "sweep", "tiny.yaml", "--serial"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    store = open_store(str(tmp_path / "store"))
    (training,) = (store.get("trainings", key) for key in store.digests("trainings"))
    assert training is not None
    made_with = training.meta["made_with"]
    assert (made_with["threads"], made_with.get("denormals")) == ("2", "flushed")
