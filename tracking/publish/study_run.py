"""The study's own run: its answer, accuracies of its cells, report, figures and duration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lth_core.analysis.cells import Cell
from lth_core.analysis.verdict import WORDS, Verdict, best_word
from lth_core.spec import TicketSpec
from tracking.publish import names
from tracking.publish.cell_run import accuracy_numbers, density_numbers
from tracking.publish.payload import Number, dataset_input, table_numbers
from tracking.publish.runs import (
    changed_metrics,
    comparison_mark,
    log_datasets,
    log_in_batches,
    published_run,
)
from tracking.publish.views import views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOST_CELLS = 8
"""Largest number of cells whose accuracies are metrics of the study's run; each has a run too."""


@dataclass(frozen=True, kw_only=True)
class StudyContent:
    """Content of a study's run."""

    digest: str
    """sha256 of the data that the content is made from; equal content is written once."""
    description: Callable[[str, str], str]
    """Markdown, from the ids of the experiment and of the run, which links need."""
    cells: Mapping[str, Cell]
    """Cells by a short name."""
    axes: Sequence[str]
    """Dotted names of the study's axes."""
    specs: Sequence[TicketSpec]
    """Specs of trials, one for each of the study's datasets."""
    verdicts: Sequence[Verdict]
    trials: Mapping[str, int]
    """Numbers of trials, by what is counted."""
    report: Callable[[], Path]
    """Writes the report and returns its file; called only where the run lacks it."""
    study_file: bytes
    """The study in YAML."""
    ended: int
    """End of the latest training in ms since 1970; 0: not known."""
    status: str
    """`FINISHED`; `KILLED` where trials are missing; `RUNNING` during a sweep."""


def study_numbers(content: StudyContent) -> Iterator[Number]:
    """Metrics of a study: accuracies with step = level, and counts of verdicts and trials."""
    shown = content.cells if len(content.cells) <= MOST_CELLS else {}
    for name, cell in shown.items():
        yield from accuracy_numbers(cell, name if len(shown) > 1 else "")
    if len(shown) == 1:
        yield from density_numbers(*shown.values())
    yield from table_numbers(content.verdicts)
    words = [verdict.verdict for verdict in content.verdicts]
    for word in WORDS:
        yield Number(f"verdicts/{word}", words.count(word))
    for name, trials in content.trials.items():
        yield Number(f"trials/{name}", trials)


def is_written(run: Run, content: StudyContent) -> bool:
    """Whether a study's run has the content; its status and end may differ."""
    return comparison_mark(published_run(run).tags)[1] == content.digest


def write_study(client: MlflowClient, run: Run, content: StudyContent, file: Path | None) -> None:
    """Write a study's run.

    Args:
        file: the report's file; None: the run has the content, and only its end is written.
    """
    from mlflow.entities import RunTag

    run_id, started = run.info.run_id, run.info.start_time
    if file:
        count, _ = comparison_mark(published_run(run).tags)
        _write_files(client, run_id, file, content.study_file)
        # An older version stamped metrics with the time, before it finished the run.
        count = 1 + (count or max(0, (run.info.end_time or 0) - started))
        numbers, stamp = list(study_numbers(content)), started + count
        metrics = changed_metrics(client, run, numbers, stamp, names.CELL_METRICS)
        description = content.description(run.info.experiment_id, run_id)
        tags = {
            names.VERDICT: best_word(content.verdicts),
            names.DESCRIPTION: shortened(description, names.LONGEST_TAG),
            names.COMPARED: f"{count} {content.digest}",
        }
        note = shortened(description, names.LONGEST_NOTE)
        branches = dict.fromkeys(b for cell in content.cells.values() for b in cell.branches)
        experiment_tags = views(list(branches), content.axes, started + count)
        for name, value in {names.DESCRIPTION: note, **experiment_tags}.items():
            client.set_experiment_tag(run.info.experiment_id, name, value)
        log_datasets(client, run_id, [dataset_input(spec) for spec in content.specs])
        run_tags = [RunTag(*tag) for tag in tags.items()]
        log_in_batches(client, run_id, metrics, [], run_tags)
    ended = max(content.ended, started)
    if run.info.status != content.status or (content.ended and run.info.end_time != ended):
        set_status(client, run_id, content.status, ended if content.ended else None)


def set_store(client: MlflowClient, run_id: str, store: str) -> str:
    """Tag a study's run with its store; returns the store that it had before, or the same."""
    before = client.get_run(run_id).data.tags.get(names.STORE)
    if before != store:
        client.set_tag(run_id, names.STORE, store, synchronous=True)
    return before or store


def set_status(client: MlflowClient, run_id: str, status: str, ended: int | None) -> None:
    """Set a run's status and, unless it is RUNNING, its end in ms since 1970 (None: now)."""
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status, ended)


def _write_files(client: MlflowClient, run_id: str, file: Path, study_file: bytes) -> None:
    client.log_artifact(run_id, str(file))
    # Hidden files belong to another process that is writing the same report.
    for figure in sorted((file.parent / "figures").glob("[!.]*")):
        client.log_artifact(run_id, str(figure), "figures")
    client.log_text(run_id, study_file.decode(), "study.yaml")


def shortened(text: str, longest: int) -> str:
    """The text, cut after a line, with a sentence in place of what is left out."""
    if len(text) <= longest:
        return text
    end = "\n\n(shortened; the report has the rest)"
    return text[: longest - len(end)].rpartition("\n")[0] + end
