"""Reports of a worker, which runs the trials of a work item."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, zip_longest
from traceback import format_exc
from typing import Any

import torch

from lth_core.columns import Record
from lth_core.errors import LthError, PreemptedError, StoreError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.redaction import without_secrets
from lth_core.train import Trainer
from sweeps.plan.plan import Trial
from sweeps.plan.stopping import levels_before_stop
from sweeps.run.trial import SweepContext, reason, run_trial, trial_line
from sweeps.studies.reader import parse_spec, spec_values

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
    trainer: Trainer,
    reraised: tuple[type[BaseException], ...] = RERAISED,
) -> Iterator[dict[str, Any]]:
    """Reports of a work item: one for each finished level, and a last one with failures.

    Args:
        reraised: exceptions after which the item is retried, or the sweep ends.

    A failure that would recur (bad data, a loss that is not finite, an error in a user's code) is
    reported, not reraised.
    """
    work, report = config_trials(config), {"failed": [], "done": True}
    for pack in [work] if trainer.pack != 1 else [[each] for each in work]:
        for trial, rows in _levels(pack, context, trainer, reraised, report):
            yield {"level": rows[0]["level"], "of": trial.id,
                   "latest": trial_line(trial, rows), "done": False}  # fmt: skip
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


def item_names(config: Mapping[str, Any]) -> list[str]:
    """Names of an item: the ids of its trials."""
    names: list[str] = config["names"]
    return names
