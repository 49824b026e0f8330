"""Pictures of docs/start.md and the README, from a real run: `python docs/pictures.py [STUDY]`.

It sweeps the study (by default the demo) in a temporary folder, unless `--folder` names one where
it was swept, and takes pictures of the terminal, the report and MLflow with Chromium.
"""

from __future__ import annotations

import argparse
import os
import re
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

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from chromium import Chromium, chromium, installed

PICTURES = Path(__file__).parent / "pictures"
PORT = 5077
COLUMNS = 100
COLOURS = 96
"""Number of colours in a PNG: fewer make it small."""
SETTLE = 4.0
"""Seconds in which a page draws what it has loaded."""
CLOSE_ASSISTANT = """
for (const button of document.querySelectorAll("button"))
    if (/close/i.test(button.getAttribute("aria-label") ?? "")) button.click();
"""


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
        console.print(Text.from_ansi("\n".join([f"$ {command}", *_lines(printed)])))
    drawn = console.export_svg(title="", clear=False)
    # The template names fonts on a server; a picture needs nothing from elsewhere.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    (PICTURES / f"{name}.svg").write_text(drawn)


def _lines(printed: str) -> list[str]:
    """Lines that stay on the terminal; those of a phase are replaced, and end without a colour."""
    lines = [
        re.sub(r"\x1b\[[0-9;?]*[A-Zhl]", "", line.split("\r")[-1]) for line in printed.splitlines()
    ]
    return [line for line in lines if "writing the report" not in line]


def page(name: str, browser: Chromium, address: str, size: tuple[int, int], shown: str) -> None:
    """Write a picture of a page, once an expression in it is true."""
    browser.view(*size)
    browser.call("Emulation.setScrollbarsHidden", hidden=True)
    browser.open(address)
    browser.until(shown)
    browser.js(CLOSE_ASSISTANT)
    time.sleep(SETTLE)
    with tempfile.TemporaryDirectory() as folder:
        taken = browser.picture(Path(folder) / "taken.png")
        picture = Image.open(taken).convert("RGB").quantize(COLOURS)
        picture.save(PICTURES / f"{name}.png", optimize=True)


def mlflow_pages(study: str, folder: Path, browser: Chromium) -> None:
    """Write pictures of MLflow's pages on a study."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        sys.exit(f"{folder / 'mlflow.db'} has no study {study}")
    query = f"tags.`lth.study` = '{study}'"
    run = client.search_runs([experiment.experiment_id], query)[0].info.run_id
    server = subprocess.Popen(
        [sys.executable, "-m", "sweeps.cli", "ui", study, "--port", str(PORT), "--no-open"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{PORT}")
        base = f"http://127.0.0.1:{PORT}/#/experiments/{experiment.experiment_id}/runs"
        mode, text = "workflowType=machine_learning", "document.body?.innerText"
        cells = f"{base}?{mode}&viewStateShareKey=cells"
        chart = f"{cells}&compareRunsMode=CHART"
        for name, address, height, shown in (
            ("mlflow-runs", cells, 700, f"!!{text}?.includes('matching run')"),
            ("mlflow-charts", chart, 800, "!!document.querySelector('.js-plotly-plot')"),
            ("mlflow-study", f"{base}/{run}?{mode}", 1000, f"!!{text}?.includes('of the weights')"),
        ):
            page(name, browser, address, (1400, height), shown)
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
        terminal("terminal", f"lth report {given.study}", printed.replace(str(folder), "."))
        report = folder / "lth-studies" / given.study / "report.html"
        browser_folder = Path(temporary) / "browser"
        browser_folder.mkdir()
        with chromium(installed() or sys.exit("needs chromium"), browser_folder) as browser:
            shown = "!!document.querySelector('svg')"
            page("report", browser, report.as_uri(), (1250, 1000), shown)
            page("report-phone", browser, report.as_uri(), (400, 800), shown)
            mlflow_pages(given.study, folder, browser)


if __name__ == "__main__":
    main()
