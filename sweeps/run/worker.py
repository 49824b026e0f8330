"""Reports of a worker, which runs the trials of a work item."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, zip_longest
from statistics import fmean
from traceback import format_exc
from typing import Any

import torch

from lth_core.columns import Record
from lth_core.errors import LthError, PreemptedError, StoreError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.redaction import without_secrets
from lth_core.train import Trainer
from sweeps.plan.plan import Trial, check_objective
from sweeps.plan.stopping import levels_before_stop
from sweeps.run.trial import SweepContext, reason, run_trial, trial_line
from sweeps.studies.axes import Fields, base_values, combinations, spec_of
from sweeps.studies.reader import parse_spec, spec_values
from sweeps.studies.schema import Study

MACHINE_ERRORS = (OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Exceptions of a failing machine: the trial may succeed in another process or on another node."""
RERAISED: tuple[type[BaseException], ...] = (PreemptedError, *MACHINE_ERRORS)
"""Exceptions that are not reported as a trial's failure: the item is retried."""

logger = logging.getLogger("lth")

Work = list[tuple[Trial, Sequence[int]]]
"""Trials of a work item, and the steps of each one's dense run that other trials rewind to."""


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
    try:
        work = sampled_trials(searched, config) if searched else config_trials(config)
    except LthError as error:
        failed = [(name, reason(error)) for name in item_names(config)]
        yield {"failed": failed, "done": True}
        return
    report: dict[str, Any] = {"failed": [], "done": True}
    last_rows: list[Record] = []
    for pack in [work] if trainer.pack != 1 else [[each] for each in work]:
        last: dict[str, list[Record]] = {}
        for trial, rows in _levels(pack, context, trainer, reraised, report):
            last[trial.id] = rows
            yield {"level": rows[0]["level"], "of": trial.id,
                   "latest": trial_line(trial, rows), "done": False}  # fmt: skip
        rows_of_all = [row for rows in last.values() for row in rows]
        last_rows += [row for row in rows_of_all if row["branch"] in ("ticket", "dense")]
    if searched and last_rows and report == {"failed": [], "done": True}:
        report |= {key: fmean(row[key] for row in last_rows) for key in searched.search.objective}
    yield report


def _levels(
    pack: Work, context: SweepContext, trainer: Trainer,
    reraised: tuple[type[BaseException], ...], report: dict[str, Any],
) -> Iterator[tuple[Trial, list[Record]]]:  # fmt: skip
    """Finished levels of trials that train together, level by level; failures go to the report."""
    running = [(trial, run_trial(trial, context, trainer, keep)) for trial, keep in pack]
    planned = {trial.id: [list(jobs.values()) for jobs in levels(trial.spec, keep)]
               for trial, keep in pack}  # fmt: skip
    records: dict[str, list[Record]] = {trial.id: [] for trial, _ in pack}
    for level in count():
        certain = list[list[list[Job]]]()
        for trial, _ in running:
            least = levels_before_stop(records[trial.id], context.stop, context.margin)
            certain.append(planned[trial.id][level:][:least])
        _train_ahead(trainer, certain, reraised)
        for member in list(running):
            trial, search = member
            rows = None
            try:
                rows = next(search, None)
            except reraised:
                raise
            except StoreError as error:
                report["store"] = reason(error)
            # A user's network or data may raise anything. One trial's failure must not end the
            # sweep: it is reported by name, makes the exit code 1, and its traceback is in the
            # worker's log.
            except Exception as error:  # noqa: BLE001
                if not isinstance(error, LthError):
                    logger.error("trial %s: %s", trial.id, without_secrets(format_exc()))
                report["failed"].append((trial.id, reason(error)))
            if rows:
                records[trial.id] += rows
                yield trial, rows
            else:
                running.remove(member)
        if not running:
            return


def _train_ahead(
    trainer: Trainer, trials: Sequence[Sequence[list[Job]]],
    reraised: tuple[type[BaseException], ...],
) -> None:  # fmt: skip
    """Train in packs the jobs of the next level of trials, with those of later levels.

    Args:
        trials: jobs of each further level of each trial, but of those that the trial may not reach.
    """
    next_jobs, *rest = [list(chain(*jobs)) for jobs in zip_longest(*trials, fillvalue=[])] or [[]]
    later = list(chain(*rest))
    for also in [later, []] if later else [later]:
        try:
            trainer.train_ahead(next_jobs, also)
            return
        except reraised:
            raise
        # A user's data or score may raise anything while a job is prepared. Which trial's it is, is
        # not known here; that trial prepares the job again, raises again, and is reported by its
        # name. It may not reach the later level whose job raises.
        except Exception as error:  # noqa: BLE001
            logger.debug("not trained together: %s", without_secrets(str(error)))


def item_config(work: Work) -> dict[str, Any]:
    """Configuration of a work item, with its trials as JSON."""
    values = [
        {"fields": trial.fields, "spec": spec_values(trial.spec), "keep": list(keep)}
        for trial, keep in work
    ]
    return {"names": [trial.id for trial, _ in work], "trials": json.dumps(values)}


def config_trials(config: Mapping[str, Any]) -> Work:
    """Trials from a configuration of `item_config`."""
    return [
        (Trial(values["fields"], parse_spec(values["spec"])), values["keep"])
        for values in json.loads(config["trials"])
    ]


def sampled_trials(study: Study, sample: Mapping[str, Any]) -> Work:
    """Trials of a sample: one for each combination of the axes' values.

    Raises:
        SpecError: a value does not fit its field, or the objective cannot be computed.
        DataError: data to be pinned are absent or damaged.
    """
    base = base_values(study)
    points: list[Fields] = [{**sample, **values} for values in combinations(study)]
    trials = [Trial(fields, spec_of(base, fields)) for fields in points]
    check_objective(study, (trial.spec for trial in trials))  # a space may hold data.validation
    return [(trial, ()) for trial in trials]


def item_names(config: Mapping[str, Any]) -> list[str]:
    """Names of an item: the ids of its trials, or the sample."""
    return config.get("names") or [str(config)]
