"""What a Ray Tune actor runs: a trial, a level a step, or a sample's cells."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from traceback import format_exc
from types import FrameType
from typing import Any

import torch
from ray import tune

from lth_core.errors import LthError, PreemptedError, StoreError
from lth_core.redaction import without_secrets
from lth_core.train import Trainer
from sweeps.plan.plan import Trial
from sweeps.run.trial import Setting, make_trainer, reason, run_trial, trial_line, use_threads
from sweeps.studies.axes import Fields, base_values, cells, spec_of
from sweeps.studies.reader import parse_spec, spec_values
from sweeps.studies.schema import Study
from tracking.publish.background import background_of

LAST_WORDS = 20.0
"""Seconds that a worker which is no longer needed may go on publishing."""

MACHINES = (OSError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Failures of a machine: in another process, where another memory is free, a trial may pass."""

logger = logging.getLogger("lth")

Work = tuple[Sequence[int], Sequence[Trial]]
"""Steps of the dense run that other trials rewind to, and trials."""


class Worker(tune.Trainable):  # type: ignore[misc]
    """Reused from trial to trial, so that imports, data and connections are made once.

    Told to end (SIGTERM, which sweeps/clusters/leave.sh sends before a node goes), it keeps what is
    being trained as it stands and dies; the trial goes on elsewhere.
    """

    def setup(self, config: dict[str, Any], setting: Setting, space: Study | None) -> None:
        self._setting, self._space = setting, space
        use_threads(setting.cpu)
        self._trainer = make_trainer(setting.store, setting.checkpoint_every)
        self._reports: Iterator[dict[str, Any]] | None = None
        self._rays_own = signal.signal(signal.SIGTERM, self._told_to_end)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        if self._trainer.ending.is_set():  # False: Tune would give the trial up, and tell nobody
            raise PreemptedError("told to end")
        self._reports = reports(new_config, self._setting, self._space, self._trainer)
        return True

    def step(self) -> dict[str, Any]:
        assert self._reports is not None
        report: dict[str, Any] = {"done": True}
        try:  # interrupted, it is done too: what there was is kept, and the next SIGTERM ends this
            report = next(self._reports)
        finally:
            if report["done"]:
                self._reports = None
        return report

    def cleanup(self) -> None:
        if self._setting.tracking:
            background_of(self._setting.tracking).drain(LAST_WORDS)

    def _told_to_end(self, number: int, frame: FrameType | None) -> None:
        self._trainer.ending.set()
        if self._reports is None and callable(self._rays_own):  # there is nothing to keep
            self._rays_own(number, frame)


def reports(
    config: Mapping[str, Any], setting: Setting, space: Study | None, trainer: Trainer
) -> Iterator[dict[str, Any]]:
    """What a piece of work has to say: a level each time, and at last how it ended.

    A failure that would come again (bad data, a loss that is not finite, a fault in a user's code)
    is reported, not raised: only what was interrupted, or failed for want of something that the
    machine may have another time, is started again.
    """
    name = piece_name(config)
    try:
        keep, trials = config_trials(config) if space is None else sampled_trials(space, config)
    except LthError as error:
        yield {"failed": [(name, reason(error))], "done": True}
        return
    report: dict[str, Any] = {"failed": [], "done": True}
    last: list[dict[str, Any]] = []
    for trial in trials:
        rows: list[dict[str, Any]] = []
        try:
            for rows in run_trial(trial, setting, trainer, keep):
                yield {"level": rows[0]["level"], "of": trial.id,
                       "latest": trial_line(trial, rows), "done": False}  # fmt: skip
        except (PreemptedError, *MACHINES):
            raise
        except StoreError as error:
            report["store"] = reason(error)
        except Exception as error:  # noqa: BLE001  a user's network or data may raise anything
            if not isinstance(error, LthError):  # where it was raised, for Ray's log of this worker
                logger.error("trial %s: %s", trial.id, without_secrets(format_exc()))
            report["failed"].append((trial.id, reason(error)))
        last += [row for row in rows if row["branch"] in ("ticket", "dense")]
    if space and last and report == {"failed": [], "done": True}:
        report |= {key: fmean(row[key] for row in last) for key in space.search.objective}
    yield report


def trial_config(trial: Trial, keep: Sequence[int]) -> dict[str, Any]:
    """A trial as Tune carries it to a worker."""
    said = {"fields": trial.fields, "spec": spec_values(trial.spec), "keep": list(keep)}
    return {"name": trial.id, "trial": json.dumps(said)}


def config_trials(config: Mapping[str, Any]) -> Work:
    """What `trial_config` was given."""
    said = json.loads(config["trial"])
    return said["keep"], (Trial(said["fields"], parse_spec(said["spec"])),)


def sampled_trials(study: Study, sample: Mapping[str, Any]) -> Work:
    """A sample of the space on every cell of the axes."""
    base = base_values(study)
    points: list[Fields] = [{**sample, **cell} for cell in cells(study)]
    return (), tuple(Trial(fields, spec_of(base, fields)) for fields in points)


def piece_name(config: Mapping[str, Any]) -> str:
    """What a piece of work is called: its trial, or a sample."""
    return str(config.get("name", config))
