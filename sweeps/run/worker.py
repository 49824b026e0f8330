"""Reports of a worker, which runs the trials of a work item."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from traceback import format_exc
from typing import Any

import torch

from lth_core.errors import LthError, PreemptedError, StoreError
from lth_core.redaction import without_secrets
from lth_core.train import Trainer
from sweeps.plan.plan import Trial, check_objective
from sweeps.run.trial import SweepContext, reason, run_trial, trial_line
from sweeps.studies.axes import Fields, base_values, combinations, spec_of
from sweeps.studies.reader import parse_spec, spec_values
from sweeps.studies.schema import Study

MACHINE_ERRORS = (OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Exceptions of a failing machine: the trial may succeed in another process or on another node."""
RERAISED: tuple[type[BaseException], ...] = (PreemptedError, *MACHINE_ERRORS)
"""Exceptions that are not reported as a trial's failure: the item is retried."""

logger = logging.getLogger("lth")

Work = tuple[Sequence[int], Sequence[Trial]]
"""Steps of the dense run that other trials rewind to, and the trials of a work item."""


def reports(
    config: Mapping[str, Any],
    context: SweepContext,
    searched: Study | None,
    trainer: Trainer,
    reraised: tuple[type[BaseException], ...] = RERAISED,
) -> Iterator[dict[str, Any]]:
    """Reports of a work item: one for each finished level, and a last one with failures.

    Args:
        searched: the study, if the item is a sample of its space.
        reraised: exceptions after which the item is retried, or the sweep ends.

    A failure that would recur (bad data, a loss that is not finite, an error in a user's code) is
    reported, not reraised.
    """
    name = item_name(config)
    try:
        keep, trials = sampled_trials(searched, config) if searched else config_trials(config)
    except LthError as error:
        yield {"failed": [(name, reason(error))], "done": True}
        return
    report: dict[str, Any] = {"failed": [], "done": True}
    last_rows: list[dict[str, Any]] = []
    for trial in trials:
        rows: list[dict[str, Any]] = []
        try:
            for rows in run_trial(trial, context, trainer, keep):
                yield {"level": rows[0]["level"], "of": trial.id,
                       "latest": trial_line(trial, rows), "done": False}  # fmt: skip
        except reraised:
            raise
        except StoreError as error:
            report["store"] = reason(error)
        # A user's network or data may raise anything. One trial's failure must not end the sweep:
        # it is reported by name, makes the exit code 1, and its traceback is in the worker's log.
        except Exception as error:  # noqa: BLE001
            if not isinstance(error, LthError):
                logger.error("trial %s: %s", trial.id, without_secrets(format_exc()))
            report["failed"].append((trial.id, reason(error)))
        last_rows += [row for row in rows if row["branch"] in ("ticket", "dense")]
    if searched and last_rows and report == {"failed": [], "done": True}:
        report |= {key: fmean(row[key] for row in last_rows) for key in searched.search.objective}
    yield report


def trial_config(trial: Trial, keep: Sequence[int]) -> dict[str, Any]:
    """Configuration of a trial's work item, with the trial as JSON."""
    values = {"fields": trial.fields, "spec": spec_values(trial.spec), "keep": list(keep)}
    return {"name": trial.id, "trial": json.dumps(values)}


def config_trials(config: Mapping[str, Any]) -> Work:
    """Steps and trial from a configuration of `trial_config`."""
    values = json.loads(config["trial"])
    return values["keep"], (Trial(values["fields"], parse_spec(values["spec"])),)


def sampled_trials(study: Study, sample: Mapping[str, Any]) -> Work:
    """Trials of a sample: one for each combination of the axes' values.

    Raises:
        SpecError: a value does not fit its field, or the objective cannot be computed.
        DataError: data to be pinned are absent or damaged.
    """
    base = base_values(study)
    points: list[Fields] = [{**sample, **values} for values in combinations(study)]
    trials = tuple(Trial(fields, spec_of(base, fields)) for fields in points)
    check_objective(study, (trial.spec for trial in trials))  # a space may hold data.validation
    return (), trials


def item_name(config: Mapping[str, Any]) -> str:
    """Name of an item: its trial's id, or the sample."""
    return str(config.get("name", config))
