"""Benchmark of `lth report`: thousands of records of trainings with random results."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.models.layers import Layer
from lth_core.results import record
from lth_core.store import Store, open_store
from lth_core.train.training import Curves, Result, Training
from sweeps.bench.plan import CHILD
from sweeps.plan.plan import Trial, make_plan
from sweeps.store.records import MASK, save_records
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study

MANY: dict[str, Any] = {
    "name": "bench-report",
    "base": {
        "model": {"name": "mlp", "widths": [300, 100]},
        "train": {"steps": "10000it", "evaluate_every": "100it"},
        "levels": 12,
        "branches": ["ticket", "reinit"],
    },
    "axes": {
        "prune.score": ["magnitude", "random", "movement", "magnitude-increase"],
        "train.lr": [0.001, 0.002, 0.004, 0.008, 0.016],
        "seed": list(range(10)),
    },
    "tracking": {"uri": None},
}
"""Study of 200 trials of 25 records each: four methods, five learning rates, ten seeds."""
SECONDS, MIB = 30, 1536
"""Limits of a report of 5,000 records."""

SHAPES = {"hidden1": (300, 64), "hidden2": (100, 300), "output": (10, 100)}
"""Shapes of the layers' weights."""
EVALUATIONS = 100
"""Number of points of each training's curves."""


@dataclass(frozen=True)
class ReportBench:
    """Cost of one `lth report`, in a process of its own, imports included."""

    records: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    """Peak memory of the process."""
    html: str
    """The report."""


def bench_report(fields: dict[str, Any] = MANY) -> ReportBench:
    """Fill a store with a study's records, curves and masks, and report it."""
    with tempfile.TemporaryDirectory(prefix="lth-bench-") as folder:
        study = parse_study({**fields, "store": f"{folder}/lth-store"})
        file = Path(folder) / "study.yaml"
        file.write_text(json.dumps({**fields, "store": study.store}))
        records = fill(study, open_store(study.store))
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", CHILD, "report", str(file)],
            capture_output=True, text=True, check=True, cwd=folder,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        html = (Path(folder) / "lth-studies" / study.name / "report.html").read_text()
    cpu, peak = map(float, done.stderr.split())
    return ReportBench(records, seconds, cpu, peak, html)


def fill(study: Study, store: Store) -> int:
    """Store records, curves and masks of all trials, as a sweep does; returns the record count."""
    draw, trainings, count = np.random.default_rng(0), dict[str, Training](), 0
    for trial in make_plan(study).trials:
        rows = []
        for level, jobs in enumerate(levels(trial.spec)):
            for branch, job in jobs.items():
                if job.digest not in trainings:
                    trainings[job.digest] = _store_training(store, job, level, branch, draw)
                result = Result(job, trainings[job.digest], True)
                rows.append(_row(study, trial, level, branch, result))
        save_records(store, study.name, study.digest(), trial, rows)
        count += len(rows)
    return count


def _row(study: Study, trial: Trial, level: int, branch: str, result: Result) -> dict[str, Any]:
    row = record(trial.spec, level, branch, result) | {
        "mask_overlap": 1.0, "mask_overlap_chance": 0.8**level, "travel": 0.02,
        "travel_inside": 0.03, "travel_outside": 0.02, "sign_agreement": 0.9,
    }  # fmt: skip
    return {"study": study.name, "trial": trial.id, **row, **trial.fields, "seed": trial.spec.seed}


def _store_training(
    store: Store, job: Job, level: int, branch: str, draw: np.random.Generator
) -> Training:
    """Store a training with a random mask and random accuracies."""
    bits = {
        f"mask/{name}.weight": np.packbits(draw.random(shape) < 0.8**level, bitorder="little")
        for name, shape in SHAPES.items()
    }
    kept = {name: int(np.bitwise_count(packed).sum()) for name, packed in bits.items()}
    layers = {
        name: Layer(shape=shape, kept=kept[f"mask/{name}.weight"], positions=1)
        for name, shape in SHAPES.items()
    }
    steps = range(100, 100 * EVALUATIONS + 1, 100)
    loss, limit = draw.random(EVALUATIONS), 0.97 - 0.002 * level * (1 + (branch == "reinit"))
    accuracy = (limit - 0.5 / np.arange(1, EVALUATIONS + 1) + 0.005 * loss).tolist()
    training = Training(
        curves=Curves(list(steps), loss.tolist(), loss.tolist(), accuracy, accuracy),
        layers=layers, parameters=60_000, mask_digest=job.digest, ticket_digest=job.digest,
        seconds=1.0, finished_at=0.0, made_with={},
    )  # fmt: skip
    store.put("trainings", job.digest, training.to_json(), {MASK: save(bits)})
    return training
