"""Studies in a notebook or script: run, load, records, verdict, figures and tickets.

`sweeps` gives these names; nothing here is known to the command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from lth_core import ticket as ticket_files
from lth_core.analysis.verdict import Verdict
from lth_core.columns import COLUMNS, Record, in_order
from lth_core.errors import LaunchError, SpecError
from lth_core.lottery import job_of
from lth_core.resolve import check_unchanged, forget_pins
from lth_core.store import existing_store
from lth_core.ticket import Ticket
from lth_core.train import Trainer
from sweeps.cli.console import PlainConsole, print_failure
from sweeps.cli.plan import plan_text
from sweeps.plan.estimate import estimate
from sweeps.plan.plan import Plan, make_plan
from sweeps.report.study_report import finish
from sweeps.report.study_results import answer_of, study_results, study_trials
from sweeps.run.launch import SweepOutcome, launch
from sweeps.run.serial import start_threads
from sweeps.run.signals import SAVE_TIMEOUT
from sweeps.store.records import load_curves
from sweeps.store.swept import swept_plan
from sweeps.store.tickets import stored_ticket
from sweeps.studies.find import find_study
from sweeps.studies.schema import Study
from sweeps.studies.user_modules import refuse_main, search_last
from tracking.report.answer import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

STORED, REGISTERED = "store:", "models:/"
"""Starts of a ticket's name by digest, and in MLflow's registry."""


def run_study(
    study: str | os.PathLike[str],
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    ray: bool = False,
    address: str | None = None,
    quiet: bool = False,
) -> SweptStudy:
    """Run or resume a study; `sweeps.run` documents the arguments."""
    search_last(os.getcwd())  # a study names functions as package.module:function
    name, changes = os.fspath(study), override_texts(overrides)
    console = _console(quiet)
    try:
        if ray or address is not None:
            plan = make_plan(find_study(name, changes))
            refuse_main(trial.spec for trial in plan.trials)
            _run_on_ray(name, changes, address, console)
        else:
            plan = _run_here(find_study(name, changes), console)
    except KeyboardInterrupt:
        console.print("stopped; the same call resumes it")
        raise
    return SweptStudy(plan)


def _run_here(study: Study, console: PlainConsole) -> Plan:
    """Run a study in this process, and write its report; returns its plan."""
    with _threads_as_before(), ExitStack() as stack:
        start_threads(study)
        plan = make_plan(study)
        console.print(plan_text(plan, estimate(plan, at_once=1)))
        _finish(plan, launch(plan, console, None, stack, serial=True), console)
    return plan


def load(
    study: str | os.PathLike[str], overrides: Mapping[str, Any] | Iterable[str] = ()
) -> SweptStudy:
    """A study as it was last swept from this folder, finished or not.

    Args:
        study, overrides: as in `sweeps.run`; overrides select the trials of another sweep.

    Raises:
        SpecError: there is no such study, or it was not swept.
    """
    chosen = find_study(os.fspath(study), override_texts(overrides), swept=True)
    return SweptStudy(swept_plan(chosen))


def load_ticket(
    name: str | os.PathLike[str], *, store: str = "./lth-store", tracking: str | None = None
) -> Ticket:
    """A ticket, from a file, a store or MLflow's model registry.

    Args:
        name: path of a file; or ``store:DIGEST`` with a ticket's digest or its start; or
            ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, such as
            ``models:/winning-tickets@sparsest``.
        store: the store of ``store:DIGEST``.
        tracking: address of MLflow's server or ``sqlite:///FILE``; None: MLFLOW_TRACKING_URI of the
            environment, else mlflow.db in the current folder.

    Raises:
        TicketFileError: the file is missing, altered, or no ticket.
        SpecError: no ticket, or more than one, has the digest, or code or data have changed.
        StoreError: the store lacks what the ticket is made from.
        TrackingError: MLflow cannot be reached, or has no such version.
    """
    text = os.fspath(name)
    if text.startswith(REGISTERED):
        from tracking.publish.tickets.registry import download_ticket

        with TemporaryDirectory(prefix="lth-") as folder:
            return ticket_files.load_ticket(download_ticket(text, Path(folder), tracking))
    if text.startswith(STORED):
        forget_pins()
        return stored_ticket(store, text.removeprefix(STORED))
    return ticket_files.load_ticket(text)


class SweptStudy:
    """A swept study, as its store had it when this object was made.

    `sweeps.run` and `sweeps.load` make it; load it again to see what was trained later.

    Raises:
        SpecError: the store has no records of the study.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._results = study_results(plan)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.plan.study.name

    @property
    def axes(self) -> list[str]:
        """Dotted fields that differ between trials."""
        return self._results.axes

    @property
    def records(self) -> list[Record]:
        """A record of each trial, level and branch, as `lth report --json` prints them."""
        return self._results.records

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict of each cell and level."""
        return self._results.verdicts

    @cached_property
    def verdict(self) -> Answer:
        """The study's answer, what it rests on, and a line for each cell."""
        return answer_of(self.plan.study, self._results)

    @property
    def report(self) -> Path:
        """File of the HTML report."""
        return self.plan.study.folder() / "report.html"

    def to_frame(self) -> DataFrame:
        """The records as a table of pandas, a row each, with the columns of `lth_core.columns` and
        each axis by its dotted field.

        Columns that a record may lack have pandas' types with missing values, such as Int64. A list
        is a tuple, which pandas groups by; an empty mapping is missing.
        """
        import pandas

        names = in_order({name: None for record in self.records for name in record})
        values = {name: [_cell(record.get(name)) for record in self.records] for name in names}
        return pandas.DataFrame(
            {name: pandas.Series(values[name], dtype=_dtype(name)) for name in names}
        )

    def plot(self, name: str) -> Figure:
        """A figure of the report, by its name in `tracking.figures.FIGURES`; notebooks show it.

        Raises:
            SpecError: the name is not known, or the study's records lack the figure's data.
        """
        from tracking.figures import figures

        study = self.plan.study
        store = existing_store(study.store)
        charts = figures(partial(load_curves, store), study.stable_below, study.verdict.rule())
        if name not in charts:
            raise SpecError("figure", "is not known", name, charts)
        figure = charts[name].draw(self.records, self.axes)
        if figure is None:
            raise SpecError("figure", "needs numbers that the study's records lack", name)
        return figure

    def plot_accuracy(self) -> Figure:
        """Final test accuracy of each branch against density."""
        return self.plot("accuracy")

    def ticket(
        self,
        density: float,
        *,
        seed: int | None = None,
        branch: str = "ticket",
        where: Mapping[str, Any] | None = None,
    ) -> Ticket:
        """The ticket whose density is nearest; of several, the first in the records' order.

        Args:
            density: share of the prunable weights kept, in [0, 1].
            seed: the replicate; None: any.
            branch: the ticket, or a control.
            where: values of further columns or axes, such as ``{"prune.score": "snip"}``.

        Raises:
            SpecError: no record has these values, or code or data have changed since the sweep.
            StoreError: the store lacks what the ticket is made from.
        """
        if not 0 <= density <= 1:
            raise SpecError("density", "must be in [0, 1]", density)
        wanted = {"branch": branch, **({} if seed is None else {"seed": seed}), **(where or {})}
        rows = self.records
        for column, value in wanted.items():
            if column not in rows[0]:
                raise SpecError(column, "is neither a column nor an axis", value, self.axes)
            known = list(dict.fromkeys(str(row[column]) for row in rows))
            rows = [row for row in rows if _cell(row[column]) == _cell(value)]
            if not rows:
                raise SpecError(column, "must be that of a record", value, known)
        record = min(rows, key=lambda row: abs(row["density"] - density))
        store = existing_store(self.plan.study.store)
        trials = {trial.id: trial for trial in study_trials(self.plan, store)}
        spec = trials[record["trial"]].spec
        forget_pins()
        check_unchanged(spec, "the study was swept")
        job = job_of(spec, record["level"], branch)
        return Trainer(store, "cpu", frozen=True).ticket(spec, record["level"], branch, job)

    def __repr__(self) -> str:
        return f"<SweptStudy {self.name}: {self.verdict.sentence}>"

    def _repr_html_(self) -> str:
        trials = len({record["trial"] for record in self.records})
        counts = f"{trials} of {self._results.trials} trials, {len(self.records):,} records"
        return f"<p>study <b>{escape(self.name)}</b>: {counts}</p>{self.verdict._repr_html_()}"


def _cell(value: Any) -> Any:
    """A value of a record as a table of pandas has it."""
    if isinstance(value, list):
        return tuple(map(_cell, value))
    return None if value == {} else value


def _dtype(name: str) -> str | None:
    """Type of pandas of a record's column; None for an axis, whose values decide."""
    column = COLUMNS.get(name)
    if column is None:
        return None
    whole, logical = ("Int64", "boolean") if column.may_be_null else ("int64", "bool")
    types = {"integer": whole, "number": "float64", "string": "string", "boolean": logical}
    return types.get(column.type, "object")


def override_texts(overrides: Mapping[str, Any] | Iterable[str]) -> list[str]:
    """Overrides as the command line takes them.

    >>> override_texts({"levels": 2, "train.lr": 1e-3, "score": "snip"}), override_texts(["seed=1"])
    (['levels=2', 'train.lr=0.001', 'score="snip"'], ['seed=1'])
    """
    if isinstance(overrides, Mapping):
        return [f"{name}={json.dumps(value, default=_plain)}" for name, value in overrides.items()]
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _plain(value: Any) -> Any:
    """A path, a range or a set of values, a number or an array of numpy or torch as JSON has it.

    Raises:
        SpecError: there is no such form.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable):
        return list(value)
    rule = "must be numbers, texts, lists and mappings"
    raise SpecError("overrides", rule, f"{type(value).__name__} {value!r}")


def _console(quiet: bool = False) -> PlainConsole:
    """Console that prints lines. A notebook would show a bar, or each line, as one more output."""
    return PlainConsole(quiet=quiet, force_terminal=False, force_jupyter=False)


@contextmanager
def _threads_as_before() -> Iterator[None]:
    """Restore the number of torch's threads, which a sweep sets to its trials' CPUs."""
    variable, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("OMP_NUM_THREADS", None)
        if variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def _finish(plan: Plan, outcome: SweepOutcome, console: PlainConsole) -> None:
    """Print a sweep's notes and failures, write its report, and publish it.

    Raises:
        LaunchError: no trial has finished.
    """
    failures = _console()
    for name, reason in outcome.failures:
        print_failure(failures, f"{name}: {reason}")
    try:
        report = finish(plan, PlainConsole(quiet=True))
    except SpecError:
        if not outcome.failures:
            raise
        raise LaunchError(f"no trial of {plan.study.name} has finished") from None
    for note in [*outcome.notes, *report.best]:
        console.print(note)
    for note in report.notes:  # on what MLflow lacks
        failures.print(note)
    for line in report.unpublished:
        print_failure(failures, line)
    console.print(f"report: {os.path.relpath(report.path)}")


def _run_on_ray(
    study: str, overrides: Sequence[str], address: str | None, console: PlainConsole
) -> None:
    """Run `lth sweep` in a process of its own, and print its lines.

    Ray 2.60 may crash a process some seconds after its shutdown, so it is not started in this one.

    Raises:
        LaunchError: the sweep ended without results.
    """
    place = [] if address is None else ["--address", address]
    command = [sys.executable, "-P", "-m", "sweeps.cli", "sweep", study, *overrides, *place]
    # Jupyter's kernel asks programs for colours, and thereby for moves of a terminal's cursor.
    environment = {
        k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "CLICOLOR_FORCE")
    }
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True,  # Ctrl-C is forwarded once, whatever this process's group is
    )  # fmt: skip
    line, failures = "", _console()
    with process as sweep:
        assert sweep.stdout
        try:
            for line in sweep.stdout:
                (failures if line.startswith("failed ") else console).print(line.rstrip())
            sweep.wait()
        except KeyboardInterrupt:
            sweep.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                sweep.wait(SAVE_TIMEOUT)
            raise
        finally:
            sweep.kill()
    if sweep.returncode not in (0, 1):
        raise LaunchError(line.strip().removeprefix("lth: "))
