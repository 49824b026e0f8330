"""Pictures of docs/start.md and the README, from a real run: `python docs/pictures.py [STUDY]`.

It sweeps the study (by default the demo) in a temporary folder, unless `--folder` names one where
it was swept, and takes pictures of the terminal, the report and MLflow with Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parent / "pictures"
PORT = 5077
COLUMNS = 100
COLOURS = 96
"""Number of colours in a PNG: fewer make it small."""


def lth(*arguments: str, folder: Path) -> str:
    """Run a command as on a terminal; returns what it prints, with its colours."""
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    ran = subprocess.run(
        [sys.executable, "-m", "sweeps.cli", *arguments],
        cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return ran.stdout


def terminal(name: str, command: str, printed: str) -> None:
    """Write a picture of a terminal in which a command was run."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(f"$ {command}\n{printed.rstrip()}"))
    console.save_svg(str(PICTURES / f"{name}.svg"), title="", clear=False)


def page(name: str, address: str, width: int, height: int, wait_ms: int = 1000) -> None:
    """Write a picture of a page."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-quic", f"--user-data-dir={folder}/user",
             f"--window-size={width},{height}", f"--virtual-time-budget={wait_ms}",
             f"--screenshot={shot}", address],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        picture = Image.open(shot).convert("RGB").quantize(COLOURS)
        picture.save(PICTURES / f"{name}.png", optimize=True)


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        sys.exit("needs chromium (Debian: apt install chromium)")
    return found


def mlflow_pages(study: str, folder: Path) -> None:
    """Write pictures of MLflow's pages on a study."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        sys.exit(f"{folder / 'mlflow.db'} has no study {study}")
    query = f"tags.`lth.study` = '{study}'"
    run = client.search_runs([experiment.experiment_id], query)[0].info.run_id
    server = subprocess.Popen(
        [sys.executable, "-m", "sweeps.cli", "ui", study, "--port", str(PORT)],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{PORT}")
        base = f"http://127.0.0.1:{PORT}/#/experiments/{experiment.experiment_id}"
        runs = f"{base}/runs?workflowType=machine_learning"
        page("mlflow-runs", runs, 1400, 800, wait_ms=20_000)
        page("mlflow-charts", f"{base}/runs/{run}/model-metrics", 1400, 800, wait_ms=20_000)
        page("mlflow-study", f"{base}/runs/{run}", 1400, 900, wait_ms=20_000)
    finally:
        server.terminate()
        server.wait()


def _wait(address: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urlopen(address, timeout=2).close()
            return
        except (URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"{address} does not answer")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="mnist-5k")
    parser.add_argument("--folder", type=Path, help="folder in which the study was swept")
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        if not given.folder:
            lth("sweep", given.study, folder=folder)
        printed = lth("report", given.study, folder=folder)
        terminal("terminal", f"lth report {given.study}", printed)
        report = folder / "lth-studies" / given.study / "report.html"
        page("report", report.as_uri(), 1250, 1000)
        page("report-phone", report.as_uri(), 500, 900)
        mlflow_pages(given.study, folder)


if __name__ == "__main__":
    main()
