"""Launch: what the store lacks goes to Ray Tune; then every trial is read back and reported.

A sweep called again is the same call: the store, not Tune's snapshot, says what is missing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lth_core import data
from lth_core.errors import LthError, StoreError, TrackingError
from lth_core.train import Trainer
from sweeps.axes import base_values, cells, spec_of
from sweeps.cluster import joined
from sweeps.config import Study
from sweeps.plan import Plan, Trial, is_stored, make_plan
from sweeps.reader import parse_spec, spec_values
from sweeps.records import load_records
from sweeps.stopping import why_stop
from sweeps.studies import remember
from sweeps.trainable import Setting, make_trainer, run_trial, use_threads
from tracking.publish import Publisher, open_publisher

if TYPE_CHECKING:
    from ray.tune.search import Searcher

RETRIES = 2
"""Times a trial whose worker died is started again."""


@dataclass
class Outcome:
    """How a sweep ended: failed work as (name, reason), notes for the user."""

    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def launch(study: Study, console: Console, address: str | None = None) -> Outcome:
    """Run what is missing of a study.

    Raises:
        LthError: bad input, before anything runs.
    """
    plan = make_plan(study)
    if address is None:
        check_data(plan)
    trainer = make_trainer(absolute(study.store))
    outcome = Outcome()
    setting = make_setting(study, outcome)
    remember(study)
    if study.search.algorithm == "optuna":
        with joined(address, study.resources):
            _search(study, setting, console, outcome)
        return outcome
    missing = [trial for trial in plan.trials if not _is_done(trial, study, trainer)]
    if missing:
        with joined(address, study.resources):
            _sweep(plan, missing, setting, trainer, console, outcome)
    failed = {name for name, _ in outcome.failures}
    done = [trial for trial in plan.trials if trial not in missing and trial.id not in failed]
    untracked = replace(setting, tracking=None)  # the report publishes what MLflow has not got
    for trial in done:  # everything is in the store: this trains nothing, on no cluster
        for _ in run_trial(trial, untracked, trainer):
            pass
    return outcome


def make_setting(study: Study, outcome: Outcome) -> Setting:
    """What the study's trials share; without tracking where the server does not answer."""
    publisher: Publisher | None = None
    if study.tracking.uri:
        try:
            publisher = open_publisher(study.tracking.uri, study.name, f"Study {study.name}")
        except TrackingError as error:
            if not study.tracking.uri.startswith("http"):
                raise
            outcome.notes.append(
                f"{error}; the sweep went on, `lth sync {study.name}` publishes it"
            )
    return Setting(
        study=study.name,
        study_digest=study.digest(),
        store=absolute(study.store),
        stop=study.stop,
        tolerance=study.tolerance,
        cpu=study.resources.cpu,
        tracking=publisher,
    )


def _sweep(
    plan: Plan,
    missing: Sequence[Trial],
    setting: Setting,
    trainer: Trainer,
    console: Console,
    outcome: Outcome,
) -> None:
    from sweeps.once import Piece, TrainOnce
    from sweeps.progress import screen

    shared, pieces = plan.shared(), list[Piece]()
    for trial in missing:
        jobs = [shared[job.digest] for job in trial.jobs() if job.digest in shared]
        pieces.append(Piece(trial_config(trial, jobs[0].keep if jobs else ()), jobs))
    with screen(console, sum(trial.spec.levels + 1 for trial in missing)):
        order = TrainOnce(pieces, trainer.known)
        fit(plan.study, setting, outcome, order, samples=len(pieces))


def _search(study: Study, setting: Setting, console: Console, outcome: Outcome) -> None:
    from sweeps.progress import screen
    from sweeps.search import best, finished, open_study, searcher

    found = open_study(study)
    left = study.search.trials - finished(found)
    total = left * sum(spec_of(base_values(study), cell).levels + 1 for cell in cells(study))
    if left > 0:
        with screen(console, total):
            fit(study, setting, outcome, searcher(study, found), samples=left, space=study)
    found = open_study(study)
    outcome.notes += ["best: " + line for line in best(found, study)]


def fit(
    study: Study,
    setting: Setting,
    outcome: Outcome,
    search: Searcher,
    samples: int,
    space: Study | None = None,
) -> None:
    """One Tuner over what a searcher suggests: trials, or samples of a study's space.

    Raises:
        StoreError: the store could not be written; every later trial would meet the same.
    """
    from ray import tune

    from sweeps.progress import ShowLevels

    resources = study.resources.model_dump()
    scratch = Path(tempfile.mkdtemp(prefix="lth-tune-"))
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, setting=setting, space=space), resources
        ),
        tune_config=tune.TuneConfig(
            num_samples=samples, search_alg=search, reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=study.name, storage_path=str(scratch), verbose=0, callbacks=[ShowLevels()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
        ),
    )  # fmt: skip
    try:
        for result in tuner.fit():
            said = result.metrics or {}
            if "store" in said:
                raise StoreError(said["store"])
            failed = said.get("failed", [])
            outcome.failures += [(name, reason) for name, reason in failed]
            if result.error and not failed:
                reason = str(result.error).strip().splitlines()[-1]
                outcome.failures.append((_name(result.config or {}), reason))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def trainable(config: dict[str, Any], setting: Setting, space: Study | None) -> None:
    """What a Ray Tune trial runs: one trial, or a sample's cells.

    A failure that would come again (bad data, a loss that is not finite) is reported, not raised:
    only a worker that dies is started again.
    """
    from ray import tune

    use_threads(setting.cpu)
    trainer = make_trainer(setting.store)
    try:
        keep, trials = config_trials(config) if space is None else sampled_trials(space, config)
    except LthError as error:
        tune.report({"failed": [(_name(config), str(error))]})
        return
    report: dict[str, Any] = {"failed": []}
    last: list[dict[str, Any]] = []
    for trial in trials:
        rows: list[dict[str, Any]] = []
        try:
            for rows in run_trial(trial, setting, trainer, keep):
                tune.report({"latest": _line(trial, rows)})
        except StoreError as error:
            report["store"] = str(error)
        except LthError as error:
            report["failed"].append((trial.id, str(error)))
        last += [row for row in rows if row["branch"] in ("ticket", "dense")]
    if space and last and report == {"failed": []}:
        report |= {key: fmean(row[key] for row in last) for key in space.search.objective}
    tune.report(report)


Work = tuple[Sequence[int], Sequence[Trial]]
"""Trials, and steps of their dense run that others rewind to."""


def trial_config(trial: Trial, keep: Sequence[int]) -> dict[str, Any]:
    """A trial as Tune carries it to a worker."""
    said = {"fields": trial.fields, "spec": spec_values(trial.spec), "keep": list(keep)}
    return {"name": trial.id, "trial": json.dumps(said)}


def config_trials(config: Mapping[str, Any]) -> Work:
    """What `trial_config` was given."""
    said = json.loads(config["trial"])
    return said["keep"], (Trial(said["fields"], parse_spec(said["spec"])),)


def sampled_trials(study: Study, sample: dict[str, Any]) -> Work:
    """A sample of the space on every cell of the axes."""
    base = base_values(study)
    points = [{**sample, **cell} for cell in cells(study)]
    return (), tuple(Trial(fields, spec_of(base, fields)) for fields in points)


def _is_done(trial: Trial, study: Study, trainer: Trainer) -> bool:
    """Whether a trial has reached its last level, or the one at which it stops."""
    if is_stored(trial, trainer):
        return True
    records = load_records(trainer.store, study.name, [trial])
    return bool(records) and why_stop(records, study.stop, study.tolerance) is not None


def check_data(plan: Plan) -> None:
    """Load each dataset once here: what is absent is said before Ray starts."""
    import torch

    for spec in dict.fromkeys(trial.spec.data for trial in plan.trials):
        data.load(spec, torch.device("cpu"))


def _name(config: Mapping[str, Any]) -> str:
    """What a piece of work is called: its trial, or a sample."""
    return str(config.get("name", config))


def _line(trial: Trial, rows: list[dict[str, Any]]) -> str:
    accuracies = " ".join(f"{r['branch']} {r['final_test_accuracy']:.3f}" for r in rows)
    return f"{trial.id[:6]} level {rows[0]['level']} density {rows[0]['density']:.3f} {accuracies}"


def absolute(store: str) -> str:
    """A store's place wherever one is: a worker's folder is not the user's."""
    return store if "://" in store else str(Path(store).expanduser().absolute())
