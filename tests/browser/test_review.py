"""A study is reviewed in a browser: its page in MLflow, the report, the registered ticket.

One file, so that one process makes the study, the server and the browser.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from chromium import Chromium
from reviewed import ADMIN, Served
from varied import cell

from lth_core.analysis.verdict_rule import DEFAULT_RULE
from tracking.report.html import Provenance, page

TRAINING = "workflowType=machine_learning"
COLUMNS = "[...document.querySelectorAll('[role=columnheader]')].map(cell => cell.innerText.trim())"
CELLS = """[...document.querySelectorAll('[role=gridcell]')].flatMap(
    cell => cell.innerText.split('\\n')).map(text => text.trim())"""
RUNS = "document.querySelectorAll('[role=gridcell]').length > 4"
FIRST_CHART = """(document.querySelector('.js-plotly-plot')?.data ?? []).map(
    line => [line.name, line.metricKey, [...line.x], [...line.y]])"""
HEADERS = "[...document.querySelectorAll('th')].map(cell => cell.innerText.trim())"
TOO_WIDE = "document.scrollingElement.scrollWidth - innerWidth"
ANSWER = "Rewinding is not needed"
"""Beginning of the study's answer."""


def of_database(served: Served, query: str) -> str:
    with sqlite3.connect(served.folder / "mlflow.db") as database:
        ((value,),) = database.execute(query)
    return str(value)


def test_without_the_password_there_are_no_data(browser: Chromium, served: Served) -> None:
    browser.log_in(None)
    browser.open(served.page)
    assert browser.until("performance.getEntriesByType('navigation')[0]?.responseStatus") == 401
    assert "small" not in browser.text()
    run = of_database(served, "select run_uuid from runs where name = 'small'")
    for path in (
        "ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=small",
        f"get-artifact?path=report.html&run_uuid={run}",
        "ajax-api/2.0/mlflow/model-versions/search",
    ):
        assert (status(f"{served.root}/{path}"), status(f"{served.root}/{path}", ADMIN)) == (
            401,
            200,
        )


def status(address: str, authorization: str = "") -> int:
    headers = {"Authorization": authorization} if authorization else {}
    try:
        with urlopen(Request(address, headers=headers), timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_lth_ui_opens_and_prints_the_studys_cells_in_the_mode_for_training(
    signed_in: Chromium, served: Served
) -> None:
    assert f"\n{served.page}\n" in served.printed
    assert f"/#/experiments/1/runs?{TRAINING}" in served.page
    signed_in.open(served.page)
    signed_in.until(RUNS)
    text = signed_in.until_text("small", "Runs", ANSWER)
    assert "Judges" not in text, "it is the page for language models"
    cells, columns = signed_in.js(CELLS), signed_in.js(COLUMNS)
    assert {"k=0", "k=5", "winning", "matching"} <= set(cells)
    results = ["dense_accuracy", "sparsest_matching", "sparsest_winning", "ticket_accuracy"]
    assert [column for column in dict.fromkeys(columns) if "_" in column] == results
    assert {"verdict", "rewind"} <= set(columns)


def test_trials_are_named_by_what_differs(signed_in: Chromium, served: Served) -> None:
    signed_in.open(f"{served.root}/#/experiments/1/runs?{TRAINING}&viewStateShareKey=trials")
    signed_in.until(RUNS)
    named = [f"s{seed} k={step}" for seed in range(3) for step in (0, 5)]
    assert set(named) <= set(signed_in.js(CELLS))
    assert {"verdict", "seed", "ticket_accuracy"} <= set(signed_in.js(COLUMNS))


def test_the_first_chart_is_accuracy_against_the_level(signed_in: Chromium, served: Served) -> None:
    signed_in.open(f"{served.page}&compareRunsMode=CHART")
    signed_in.until(f"new Set({FIRST_CHART}.map(line => line[0] + line[1])).size == 6")
    for name, metric, levels, accuracies in signed_in.js(FIRST_CHART):
        assert name in ("k=0", "k=5")
        assert metric in ("accuracy/dense", "accuracy/ticket", "accuracy/reinit")
        assert levels == ([0, 1, 2] if metric == "accuracy/dense" else [1, 2])
        assert all(0.5 < accuracy <= 1 for accuracy in accuracies)


@pytest.fixture(params=["alone", "in MLflow"])
def report(request: pytest.FixtureRequest, signed_in: Chromium, served: Served) -> Iterator[Page]:
    """The report's own file, and the one that MLflow shows in a frame."""
    if request.param == "alone":
        signed_in.open(served.report)
        yield Page(signed_in, signed_in.until)
    else:
        run = of_database(served, "select run_uuid from runs where name = 'small'")
        signed_in.open(f"{served.root}/#/experiments/1/runs/{run}/artifacts/report.html?{TRAINING}")
        yield Page(signed_in, signed_in.in_frame)


class Page:
    """A page that shows the report, and expressions in it."""

    def __init__(self, browser: Chromium, until: Callable[[str], Any]) -> None:
        self.browser, self.until = browser, until

    def text(self) -> str:
        """The visible text, once the whole page is read: its text begins to show before that."""
        complete = "document.readyState == 'complete'"
        self.until(f"{complete} && document.body?.innerText.includes('{ANSWER}')")
        return str(self.until("document.body.innerText"))


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(...)`, in [0, 1], by WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_readable_in_light_and_dark(report: Page, scheme: str) -> None:
    report.browser.view(scheme=scheme)
    report.text()
    style = "getComputedStyle(document.body)"
    back, ink = (
        luminance(report.until(f"{style}.{name}")) for name in ("backgroundColor", "color")
    )
    assert (back > 0.5) == (scheme == "light")
    assert (max(back, ink) + 0.05) / (min(back, ink) + 0.05) > 7


def test_the_answer_and_its_figure_are_on_the_first_screen(
    signed_in: Chromium, served: Served
) -> None:
    signed_in.view(1250, 900)
    signed_in.open(served.report)
    signed_in.until_text(ANSWER)
    bottom = "document.querySelector('svg, img').getBoundingClientRect().bottom"
    assert 0 < signed_in.js(bottom) <= 900
    assert signed_in.text().index(ANSWER) < 200


def test_the_levels_of_a_setting_sort_by_a_click_on_a_heading(report: Page) -> None:
    report.text()
    table = "document.querySelector('details[data-label] table')"
    levels = f"[...{table}.tBodies[0].rows].map(row => row.dataset.verdict)"
    before = report.until(levels)
    button = f"{table}.querySelectorAll('thead button')[0]"
    assert report.until(f"({button}.click(), {levels})") == before[::-1]  # densities rise
    assert report.until(f"{table}.querySelector('th').ariaSort") == "ascending"
    assert report.until(f"({button}.click(), {levels})") == before


def test_the_files_of_a_figure_are_links_but_in_mlflow_names_of_artifacts(report: Page) -> None:
    report.text()
    found = report.until("""["a", "code"].map(name =>
        [...document.querySelectorAll(`figcaption ${name}`)]
            .map(each => each.getAttribute("href") ?? each.textContent))""")
    files = [f"figures/accuracy.{kind}" for kind in ("pdf", "csv")]
    in_mlflow = report.until == report.browser.in_frame
    assert set(files) <= set(found[in_mlflow])
    assert found[not in_mlflow] == []


def test_settings_and_levels_are_filtered(browser: Chromium, tmp_path: Path) -> None:
    records = [
        r
        for width, gaps in ((1, [0.1, -3, -3]), (2, [-3] * 3), (12, [0.1] * 3))
        for r in cell(gaps, [3] * 3, **{"model.width": width})
    ]
    file = tmp_path / "report.html"
    file.write_text(page("s", records, ["seed", "model.width"], [], DEFAULT_RULE, Provenance()))
    browser.open(file.as_uri())
    browser.until("document.querySelector('.filter:not([hidden])')?.tagName")
    shown = """(() => {
        for (const [name, value] of Object.entries(%s))
            document.querySelector(`.filter ${name}`).value = value;
        document.querySelector(".filter").dispatchEvent(new Event("input"));
        const visible = part => !part.hidden;
        const rows = [...document.querySelectorAll("details[data-label]")].filter(visible)
            .map(part => [...part.querySelectorAll("tr[data-verdict]")].filter(visible).length);
        const lines = [...document.querySelectorAll("tr[data-part]")].filter(visible).length;
        return [rows, lines, document.querySelector(".filter output").textContent];
    })()"""
    for given, found in (
        ({"input": "width=1", "select": ""}, [[3, 3], 2, "6 levels"]),
        ({"input": "", "select": "winning"}, [[1, 3], 2, "4 levels"]),
        ({"input": "WIDTH=12", "select": "not matching"}, [[], 0, "0 levels"]),
        ({"input": "", "select": ""}, [[3, 3, 3], 3, "9 levels"]),
    ):
        assert browser.js(shown % json.dumps(given)) == found


def test_the_report_fits_a_phone(signed_in: Chromium, served: Served) -> None:
    signed_in.view(400, 800)
    signed_in.open(served.report)
    text = signed_in.until_text(ANSWER)
    assert signed_in.js(TOO_WIDE) <= 0
    assert {"winning", "matching", "25%", "50%"} <= set(re.findall(r"[\w%]+", text))


def test_the_printed_report_has_every_column(
    signed_in: Chromium, served: Served, tmp_path: Path
) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (Debian: apt-get install poppler-utils)")
    signed_in.open(served.report)
    signed_in.until_text(ANSWER)
    headers = signed_in.js(HEADERS)
    assert len(headers) > 10
    file = signed_in.print(tmp_path / "report.pdf")
    printed = subprocess.run(
        ["pdftotext", "-layout", file, "-"], capture_output=True, text=True, check=True
    )
    words = set(re.findall(r"\S+", printed.stdout))
    assert set(re.findall(r"\S+", " ".join(headers))) <= words
    signed_in.view(width=718, media="print")  # A4 without Chromium's margins, at 96 dots an inch
    right = "Math.max(...[...document.querySelectorAll('th, td')].map(c => c.getBoundingClientRect().right))"
    assert signed_in.js(right) <= 718


def test_the_registered_ticket_shows_its_origin_and_its_files(
    signed_in: Chromium, served: Served
) -> None:
    digest = of_database(served, "select value from model_version_tags where key = 'ticket_digest'")
    signed_in.open(f"{served.root}/#/models/winning-tickets/versions/1")
    signed_in.until_text(digest, "sparsest-small", "rewind=0", "winning", "Source Run")
    model = of_database(served, "select model_id from logged_models")
    signed_in.open(f"{served.root}/#/experiments/1/models/{model}/artifacts")
    for name, shown in (
        ("ticket.png", "[...document.images].some(image => image.naturalWidth == 640)"),
        ("README.md", "document.body.innerText.includes('load_ticket')"),
    ):
        signed_in.until_text(name)
        click(signed_in, name)
        assert signed_in.until(shown)


def click(browser: Chromium, text: str) -> None:
    """Click the innermost element of a text."""
    same = f"element.innerText?.trim() == {json.dumps(text)}"
    found = f"[...document.querySelectorAll('*')].filter(element => {same}).at(-1)"
    browser.until(f"!!{found}")
    browser.js(f"{found}.click()")
