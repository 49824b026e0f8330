"""Tests, speeds of packs and one figure on a GPU, as JSON lines: see `run` beside it."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEAST_TORCH = (2, 11)
TESTS, SPEEDS, FIGURE = 160.0, 120.0, 100.0
"""Seconds after which each part begins nothing new; tests are stopped."""

Row = dict[str, Any]


def unusable(device: str) -> str | None:
    """The reason for which nothing can run here, in one line."""
    if device not in ("cuda", "cpu"):
        return f"LTH_DEVICE: must be cuda or cpu, but got {device!r}"
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if tuple(map(int, torch.__version__.split(".")[:2])) < LEAST_TORCH:
        return f"torch must be 2.11 or newer, but is {torch.__version__}"
    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU; LTH_DEVICE=cpu runs on the CPU"
    return None


def machine(device: str) -> Row:
    """The device, the versions and the time of the run."""
    import torch

    from lth_core.models.latency import device_name

    command = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # this machine has no git
        commit = ""
    row = {
        "device": device_name(torch.device(device)), "torch": torch.__version__,
        "cuda": torch.version.cuda, "python": sys.version.split()[0], "cpus": os.cpu_count(),
        "commit": commit, "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    if device == "cuda":
        row["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        row["cudnn"] = torch.backends.cudnn.version()
    return row


def outcomes(out: Path, device: str, files: list[Path], until: float) -> Iterator[Row]:
    """Outcomes of the tests, as they end: each file in a process of its own, several at a time.

    An error of CUDA ends all that follows in its process, and a graph's may hang it.
    """
    waiting, running = list(files), dict[Path, subprocess.Popen[bytes]]()
    seen: Counter[Path] = Counter()
    most = max(1, min(4, (os.cpu_count() or 1) // 2))
    while waiting or running:
        while waiting and len(running) < most and time.monotonic() < until:
            file = waiting.pop(0)
            running[file] = _start(file, out, device)
        if time.monotonic() > until:
            yield from ({"test": file.name, "outcome": "not run", "reason": "no time was left"}
                        for file in waiting)  # fmt: skip
            waiting = []
        time.sleep(0.1)
        for file, process in list(running.items()):
            ended = process.poll() is not None
            if not ended and time.monotonic() > until:
                process.kill()
                process.wait()
                ended = True
            lines = _lines(out, file)
            yield from map(json.loads, lines[seen[file] :])
            seen[file] = len(lines)
            if ended:
                del running[file]
                if process.returncode not in (0, 1):
                    reason = _log(out, file).read_text(errors="replace")[-2000:]
                    yield {"test": file.name, "outcome": f"ended with {process.returncode}",
                           "reason": reason}  # fmt: skip


def _start(file: Path, out: Path, device: str) -> "subprocess.Popen[bytes]":
    results = out / f"{file.stem}.jsonl"
    results.write_text("")
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "bare.ini"),
               f"--confcutdir={HERE}", f"--junitxml={out / file.stem}.xml", str(file)]  # fmt: skip
    environment = {**os.environ, "LTH_DEVICE": device, "LTH_RESULTS": str(results)}
    with _log(out, file).open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _log(out: Path, file: Path) -> Path:
    return out / f"{file.stem}.log"


def _lines(out: Path, file: Path) -> list[str]:
    """The whole lines that a file's tests have written so far."""
    return (out / f"{file.stem}.jsonl").read_text().rpartition("\n")[0].splitlines()


def rows(out: Path, device: str, small: bool) -> Iterator[Row]:
    """All that is measured, in order."""
    yield machine(device)
    files = sorted(HERE.glob("test_gpu_*.py"))
    if small:
        files = [HERE / "test_gpu_data.py"]
    yield from outcomes(out, device, files, time.monotonic() + TESTS)

    import torch
    from figure import figure
    from speeds import speeds

    until = time.monotonic() + SPEEDS
    parts = (
        speeds(torch.device(device), 0.1 if small else 1.0, until, small),
        figure(device, until + FIGURE, small),
    )
    for part in parts:
        try:
            yield from part
        except Exception as error:  # noqa: BLE001 one part's failure must not hide the next one's figures
            yield {"part": part.__name__, "outcome": "failed", "reason": repr(error)[:2000]}


def main() -> int:
    """Run all; 0 if every test passed, 1 if not, 2 if nothing can run here."""
    parser = argparse.ArgumentParser(prog="tests/gpu/run")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--small", action="store_true", help="a few seconds of it")
    arguments = parser.parse_args()
    device = os.environ.get("LTH_DEVICE", "cuda")
    if reason := unusable(device):
        print(f"tests/gpu/run: {reason}")
        return 2
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    started, counts = time.monotonic(), Counter[str]()
    with (out / "results.jsonl").open("w") as file:

        def emit(row: Row) -> None:
            line = json.dumps(row)
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()

        for row in rows(out, device, arguments.small):
            counts[row.get("outcome", "figure")] += 1
            emit(row)
        emit({"seconds": round(time.monotonic() - started, 1), **counts})
    return 0 if counts.keys() <= {"passed", "skipped", "figure"} else 1


if __name__ == "__main__":
    sys.exit(main())
