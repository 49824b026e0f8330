"""`tests/gpu/run` itself, on the CPU: what it prints and writes, and machines that it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def run(out: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", HERE / "run", out, "--small"], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.long
def test_small_run_prints_and_writes_a_line_for_each_test_and_figure(tmp_path: Path) -> None:
    ran = run(tmp_path / "out", LTH_DEVICE="cpu")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "out" / "results.jsonl").read_text() == ran.stdout
    machine, *rows, summary = map(json.loads, ran.stdout.splitlines())
    assert machine["torch"] == torch.__version__
    tests = [row for row in rows if "test" in row]
    assert len(tests) == summary["passed"] >= 5
    assert {row["outcome"] for row in tests} == {"passed"}
    speeds = [row for row in rows if row.get("figure") == "training steps a second"]
    assert [row.get("pack") for row in speeds] == [None, 1, 2]
    assert all(row["steps_per_second"] > 0 for row in speeds)
    accuracies = [row for row in rows if row.get("figure") == "accuracy by density"]
    assert [row["branch"] for row in accuracies] == ["dense", "ticket", "reinit", "random_mask"]
    assert len(tests) + len(speeds) + len(accuracies) == len(rows)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(("environment", "reason"), [
    ({"LTH_DEVICE": "cuda"}, "finds no GPU; LTH_DEVICE=cpu runs on the CPU"),
    ({"LTH_DEVICE": "tpu"}, "LTH_DEVICE: must be cuda or cpu, but got 'tpu'"),
])  # fmt: skip
def test_machine_without_a_gpu_is_refused_in_one_line(
    tmp_path: Path, environment: dict[str, str], reason: str
) -> None:
    ran = run(tmp_path / "out", **environment)
    assert ran.returncode == 2
    (line,) = ran.stdout.splitlines()
    assert line.startswith("tests/gpu/run: ")
    assert line.endswith(reason)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_tests_need_no_package_that_a_bare_machine_lacks() -> None:
    """Their imports, and those of lth_core, are torch, numpy, safetensors and pytest's."""
    code = (
        "import sys, pytest\n"
        "code = pytest.main(['-c', 'tests/gpu/bare.ini', '--confcutdir=tests/gpu', '--collect-only',"
        " '-q', '-p', 'no:hypothesispytest', '-p', 'no:anyio', 'tests/gpu'])\n"
        "absent = {'ray', 'mlflow', 'optuna', 'pydantic', 'torchvision', 'torch_pruning', 'sweeps',\n"
        "          'tracking', 'matplotlib', 'hypothesis', 'PIL', 'pyarrow', 'scipy', 'yaml'}\n"
        "print(sorted(absent & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                         cwd=HERE.parents[1])  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


def test_textbook_loop_has_torchs_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels last, as ours has, would make it faster than a researcher's."""
    import speeds

    layouts = list[bool]()

    def steps(model: torch.nn.Module, *arguments: object) -> Iterator[float]:
        layouts.extend(p.is_contiguous() for p in model.parameters())
        while True:
            yield 0.0

    monkeypatch.setattr(speeds, "steps", steps)
    speeds._plain(speeds._job(speeds.WORKLOADS[1]), torch.device("cpu"), 0.0)
    assert layouts
    assert all(layouts)
