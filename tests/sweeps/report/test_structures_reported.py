"""Structures in the report of real, small sweeps without Ray."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile

from sweeps.studies.find import find_study

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "base.data": {"name": "digits", "fraction": 0.1, "validation": 20},
    "base.model": {"name": "resnet-8", "width": 0.25},
    "base.train": {
        "optimizer": "sgd", "lr": 0.05, "batch_size": 20, "steps": "4it", "evaluate_every": "4it",
    },
    "base.prune": {"structure": "channels", "scope": "global", "budget": {"flops": 0.5}},
    "base.levels": 1,
    "base.branches": ["ticket", "scratch_e"],
}  # fmt: skip
GATES = {"prune.when": "gates", "prune.gate_steps": "2it", "prune.gate_batch_size": 20}


def swept(lth: Lth, file: Path) -> tuple[str, list[dict[str, Any]], set[str], str]:
    """Output of a sweep, its records, names of its figures, and its report."""
    called = lth("sweep", str(file), "--serial")
    assert called.code == 0, called
    records = [json.loads(line) for line in lth("report", str(file), "--json").out.splitlines()]
    (report,) = Path().rglob("report.html")
    names = {figure.stem for figure in report.parent.glob("figures/*.svg")}
    return called.out, records, names, report.read_text()


@pytest.mark.long
def test_methods_are_compared_by_cost(lth: Lth, tiny_file: StudyFile) -> None:
    ways = [GATES, {"prune.when": "before", "prune.score": "random"}]
    file = tiny_file({**SMALL, "axes.way": ways})
    out, records, figures, report = swept(lth, file)
    assert {"structures", "search_cost"} <= figures
    assert not figures & {"similarity", "similarity_matrix", "methods"}
    assert "<h2>Structures</h2>" in report
    made = re.findall(r"<dt>([^<]*)</dt><dd[^>]*>(.*?)</dd>", report)
    facts = {name: re.sub("<[^>]*>", "", text) for name, text in made}
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d( to .*)? UTC", facts["trained"])
    assert facts["data"].startswith(
        "digits: 115 training, 20 validation, 449 test examples, sha256 "
    )
    assert facts["trained with"].startswith("torch 2.")
    assert find_study(shlex.split(facts["run it again"].removesuffix("Copy"))[2]).name == "tiny"
    (line,) = {line.split()[-1] for line in out.splitlines() if line.startswith("  gates ")}
    (cost,) = {r["search_flops"] for r in records if r["branch"] == "ticket" and r["search_flops"]}
    trained = {r["train_flops"] for r in records if r["branch"] == "dense"}
    assert float(line) == pytest.approx(max(trained) / cost) == 2


@pytest.mark.long
def test_rewind_points_are_compared_by_similarity(lth: Lth, tiny_file: StudyFile) -> None:
    file = tiny_file({**SMALL, "axes.way": [GATES], "axes.rewind": ["0it", "2it"]})
    out, records, figures, report = swept(lth, file)
    assert {"similarity", "similarity_matrix"} <= figures
    assert not figures & {"structures", "search_cost", "methods"}
    assert "<h2>Does training narrow the structures?</h2>" in report
    assert "an interval needs three seeds" in " ".join(out.split())
    (spent,) = {r["search_flops"] for r in records if r["branch"] == "ticket" and r["rewind_step"]}
    trained = next(r["train_flops"] for r in records if r["branch"] == "dense")
    assert spent == trained  # 2 steps before, 2 of gates
