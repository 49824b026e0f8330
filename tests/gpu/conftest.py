"""The device of these tests, from LTH_DEVICE; their results as JSON lines.

- ``cuda``: the GPU. These are the tests of `make gpu`.
- ``cpu``: the CPU, to see that the tests themselves run.
- ``labels``, the default: a GPU by label (`labels.py`). `make test` runs them so. Those marked long
  run by label only where the variable says so.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEVICE = os.environ.get("LTH_DEVICE", "labels")
RESULTS = os.environ.get("LTH_RESULTS")
"""File of the results, which `tests/gpu/main.py` reads."""

if DEVICE not in ("cuda", "cpu", "labels"):
    raise pytest.UsageError(f"LTH_DEVICE: must be cuda, cpu or labels, but got {DEVICE!r}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    of_device = [
        item
        for item in items
        if item.path.parent == HERE and item.path.name.startswith("test_gpu_")
    ]
    for item in of_device:
        item.add_marker(pytest.mark.gpu if DEVICE == "cuda" else pytest.mark.slow)
    if "LTH_DEVICE" not in os.environ:  # a small case of each path is enough for `make long`
        items[:] = [i for i in items if i not in of_device or not i.get_closest_marker("long")]


@pytest.fixture
def device() -> Iterator[str]:
    """Name of the device on which a test trains."""
    import torch

    if DEVICE == "labels":
        from labels import gpu_by_label

        with gpu_by_label():
            yield "cuda"
        return
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    yield DEVICE


@pytest.fixture
def gpu(device: str) -> str:
    """A real GPU, of tests that use its own kernels."""
    if DEVICE != "cuda":
        pytest.skip("needs a real GPU: LTH_DEVICE=cuda")
    return device


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the outcome of each test as a JSON line, where `tests/gpu/main.py` asks for it."""
    if RESULTS and (report.when == "call" or report.outcome != "passed"):
        row = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
        }
        if report.skipped and isinstance(report.longrepr, tuple):
            row["reason"] = report.longrepr[2]
        elif report.failed:
            row["reason"] = report.longreprtext[-4000:]
        with Path(RESULTS).open("a") as file:
            file.write(json.dumps(row) + "\n")
