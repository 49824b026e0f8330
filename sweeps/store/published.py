"""A trial's run, the run of its cell, and its records, as they are published."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lth_core.columns import Record
from lth_core.jobs.methods import method
from lth_core.redaction import without_secrets
from lth_core.results import LevelResult
from lth_core.spec.settings import setting_text
from sweeps.plan.plan import Trial
from sweeps.store.records import with_axis_values
from sweeps.studies.axes import axis_fields
from sweeps.studies.names import FILE, STUDIES
from sweeps.studies.schema import Study
from tracking.publish.cell_run import CellRun
from tracking.publish.client import connect
from tracking.publish.publisher import Publisher, open_publisher
from tracking.publish.study_run import set_store
from tracking.publish.trial_run import TrialRun
from tracking.publish.views import views

logger = logging.getLogger("lth")

METHOD_FIELDS = {"prune.when", "prune.score", "prune.scope", "prune.structure", "prune.grow",
                 "prune.one_shot", "branches"}  # fmt: skip
"""Fields that the method's name implies, or that are too long for a run's name."""

SHORT = {
    "rewind": "k",
    "prune.fraction": "f",
    "model.width": "w",
    "model.depth": "d",
    "model.name": "",
    "data.name": "",
    "train.batch_size": "batch",
}
"""Short names of axes in the names of runs; other axes have the last part of their name. Where the
short name is empty, the value stands alone."""


def study_publisher(study: Study, started: Callable[[], int | None] = lambda: None) -> Publisher:
    """The publisher of a study with a tracking server; with a warning if the study there is another
    store's, because MLflow then has one mixture of both.

    Args:
        started: start of a study's run that is made, in ms since 1970; None: now.

    Raises:
        TrackingError: the server cannot be reached.
    """
    assert study.tracking.uri
    command = without_secrets(study.command())
    publisher = open_publisher(
        study.tracking.uri,
        study.name,
        f"Study {study.name}. Its answer stands here after `{command}`.",
        f"{STUDIES}/{study.name}/{FILE}",
        started,
        views(["dense", *study.base.branches], axis_fields(study), int(1000 * time.time())),
    )
    if publisher.uri.startswith("http"):  # a file beside the store is copied and moved with it
        store = study.store if "://" in study.store else str(Path(study.store).absolute())
        store = without_secrets(store)
        with connect(publisher.uri) as client:
            before = set_store(client, publisher.study_run, store)
        if before != store:
            logger.warning(
                "tracking.uri: %s has the study %s of another store, %s; their trials are mixed "
                "there, unless one of the studies gets another `name`",
                publisher.uri, study.name, before,
            )  # fmt: skip
    return replace(publisher, curves=study.tracking.curves)


def publish_failures(
    publisher: Publisher, trials: Iterable[Trial], failures: Mapping[str, str]
) -> None:
    """Set the runs of failed trials to FAILED, also where the worker died before it did so.

    Args:
        failures: reasons by trial.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    failed = [trial for trial in trials if trial.id in failures]
    runs = publisher.runs() if failed else {}
    for trial in failed:
        run = trial_run(trial)
        publisher.finish(run, "FAILED", failures[trial.id], runs.get(run.key))


def level_records(trial: Trial, study: str, level: LevelResult) -> list[Record]:
    """A level's records with the study's columns."""
    columns = {"study": study, "trial": trial.id}
    if trial.spec.ticket:
        columns["source_ticket"] = trial.spec.ticket
    return [with_axis_values({**columns, **record}, trial) for record in level.records]


def trial_run(trial: Trial, *, probe: bool = False) -> TrialRun:
    """The trial's run in tracking; its name begins with what differs, `s4 f=0.2 k=500`.

    Args:
        probe: whether it belongs to `lth rewind`, whose trials have a parent of their own.
    """
    names = [f"s{trial.spec.seed}"] if "seed" in trial.fields else []
    return TrialRun(
        key=trial.digest,
        name=" ".join([*_method(trial), *names, *_differing(trial)]) or method(trial.spec),
        fields={**trial.fields, "seed": trial.spec.seed},
        spec=trial.spec,
        cell=PROBES if probe else cell_run(trial),
    )


def cell_run(trial: Trial) -> CellRun:
    """The run of a trial's cell in tracking, with all that its replicates share."""
    return CellRun(
        key=replace(trial.spec, seed=0).digest(),
        name=" ".join([*_method(trial), *_differing(trial)]) or "all seeds",
        fields={name: value for name, value in trial.fields.items() if name != "seed"},
        spec=trial.spec,
    )


PROBES = CellRun(key="rewind", name="probes of lth rewind", fields={}, spec=None)
"""The run above the trials of `lth rewind`."""


def _method(trial: Trial) -> list[str]:
    """The method's name, where the study varies it."""
    return [method(trial.spec)] if METHOD_FIELDS & trial.fields.keys() else []


def _differing(trial: Trial) -> list[str]:
    """Axis values, without the seed and what the method's name implies."""
    return [
        _short(name, value)
        for name, value in trial.fields.items()
        if name not in METHOD_FIELDS | {"seed"}
    ]


def _short(field: str, value: Any) -> str:
    """An axis value in a run's name.

    >>> _short("rewind", "500it"), _short("train.lr", 0.1), _short("data.name", "mnist")
    ('k=500', 'lr=0.1', 'mnist')
    """
    name, text = SHORT.get(field, field.rpartition(".")[2]), setting_text(value)
    if text.endswith("it") and text[:-2].isdigit():
        text = text[:-2]
    return f"{name}={text}" if name else text
