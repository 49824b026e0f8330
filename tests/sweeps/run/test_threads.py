"""Threads of a trial."""

import subprocess
import sys

import pytest
import torch

SCRIPT = """
import torch
from lth_core.train.archive import made_with
from sweeps.run.trial import use_threads

use_threads(2)
print(torch.get_num_threads(), made_with(torch.device("cpu")).get("denormals"))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU cannot flush denormals")
def test_all_threads_of_a_trial_flush_denormals() -> None:
    """In a process of its own, where torch has not started its threads yet."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["2", "flushed"]
