"""The tiny study of these tests, and a sweep of it without Ray."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lth_core import Trainer
from sweeps.plan.plan import Trial, make_plan
from sweeps.run.trial import SweepContext, run_trial
from sweeps.studies.reader import set_field
from sweeps.studies.schema import Study

Record = dict[str, Any]


@dataclass(frozen=True)
class Called:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Lth = Callable[..., Called]
"""The command line, argument by argument."""
StudyOf = Callable[..., Study]
"""The tiny study, with dotted changes."""
StudyFile = Callable[..., Path]
"""The same as a file in the current folder."""


def tiny_fields(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A study file's content: 64-16-10 on the digits, 40 steps, 2 levels; dotted changes."""
    said: dict[str, Any] = {
        "name": "tiny",
        "base": {
            "model": {"widths": [16]},
            "train": {"lr": 0.01, "steps": "40it", "evaluate_every": "20it"},
            "prune": {"fraction": 0.5},
            "levels": 2,
            "branches": ["ticket", "reinit"],
        },
        "axes": {"seed": [0, 1]},
        "tracking": {"uri": None},
    }
    for field, value in (changes or {}).items():
        if field.startswith("axes."):
            said["axes"][field.removeprefix("axes.")] = value
        else:
            set_field(said, field, value)
    return said


def context_of(study: Study) -> SweepContext:
    """The context that the trials of a study without tracking share."""
    return SweepContext(
        study=study.name, study_digest=study.digest(), store=study.store, stop=study.stop,
        margin=study.verdict.margin, cpu=1, checkpoint_every=300, tracking=None,
    )  # fmt: skip


def search(study: Study, trainer: Trainer) -> Iterator[tuple[Trial, list[Record]]]:
    """Every trial of a study, searched in this process."""
    for trial in make_plan(study).trials:
        rows = [row for level in run_trial(trial, context_of(study), trainer) for row in level]
        yield trial, rows


def timeless(rows: list[Record]) -> list[Record]:
    """Records without what may differ between two equal sweeps, or is found in reporting them."""
    found_late = ("overlap_seeds", "overlap_level", "overlap_methods", "replicates")
    return [
        {
            key: value
            for key, value in row.items()
            if key not in ("train_seconds", "search_seconds", "reused")
            and not key.startswith(found_late)
        }
        for row in rows
    ]
