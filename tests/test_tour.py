"""The tour: a notebook stored with its outputs, whose cells run."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
TOUR = json.loads((DOCS / "tour.ipynb").read_text())


def executed(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("run_notebook", DOCS / "run_notebook.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run: dict[str, Any] = module.executed(notebook, folder)
    return run


def formats(notebook: dict[str, Any]) -> list[list[list[str]]]:
    """Formats of the outputs of each code cell."""
    return [
        [sorted(output.get("data", [output["output_type"]])) for output in cell["outputs"]]
        for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]  # fmt: skip


def test_cells_of_a_notebook_share_names_and_store_what_they_print_and_give(tmp_path: Path) -> None:
    sources = ["class Shown:\n    def _repr_png_(self): return b'png'\nprint('a')\nprint('b')",
               "open('file', 'w').close()\nShown()", "x = 1"]  # fmt: skip
    cells = [{"cell_type": "code", "source": [source]} for source in sources]
    run = executed({"cells": [{"cell_type": "markdown", "source": ["text"]}, *cells]}, tmp_path)
    text, first, second, third = run["cells"]
    assert text == {"cell_type": "markdown", "source": ["text"]}
    assert first["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]}
    ]  # fmt: skip
    assert second["outputs"][0]["data"]["image/png"] == "cG5n"
    assert [cell["execution_count"] for cell in (first, second, third)] == [1, 2, 3]
    assert third["outputs"] == []
    assert (tmp_path / "file").exists()


def test_stored_tour_has_its_outputs_a_figure_and_no_path_of_a_machine() -> None:
    shown = formats(TOUR)
    assert all(shown)
    assert ["image/png", "text/plain"] in [output for cell in shown for output in cell]
    assert not any(folder in json.dumps(TOUR) for folder in ("/tmp/", "/home/", "/root/"))


@pytest.mark.long
def test_tour_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    """With a tenth of the steps: the study is the digits demo, which other tests run too."""
    text = json.dumps(TOUR)
    short = text.replace('\\"levels\\": 5,', '\\"levels\\": 5, \\"train.steps\\": 60,')
    assert short != text
    assert formats(executed(json.loads(short), tmp_path)) == formats(TOUR)
