"""Description of a study in MLflow, in Markdown: the answer, its verdicts, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lth_core.analysis.rewinds import merge_rewound_methods
from lth_core.redaction import without_secrets
from lth_core.spec.settings import dotted_settings, setting_text
from sweeps.plan.plan import Plan
from sweeps.report.study_results import StudyResults, answer_of, varied_values
from tracking.publish import names
from tracking.report.answer import Answer
from tracking.report.search_table import best_lines
from tracking.report.verdict_table import Section, sections

MOST_VALUES = 12
"""Largest number of an axis's values that are listed."""


PICTURES = {"tickets": "accuracy"}
"""Figure that answers a kind of study; for the others it has the kind's name."""


def study_description(plan: Plan, results: StudyResults, experiment: str, run: str) -> str:
    """The description, with links to the report and to the tickets.

    Args:
        experiment, run: MLflow's ids of the study's experiment and run.
    """
    rule = plan.study.verdict.rule()
    records = merge_rewound_methods(results.records, results.axes)
    return "\n".join([
        *_answer(answer_of(plan.study, results), experiment, run),
        "",
        *(f"- best: {line}" for line in best_lines(results.best)),
        "",
        *_tables(sections(records, results.axes, rule)),
        *_settings(plan, results),
        "",
        *_command(plan),
    ])  # fmt: skip


def _answer(answer: Answer, experiment: str, run: str) -> Iterator[str]:
    """The sentence, links, and the figure that answers the study."""
    page = f"#/experiments/{experiment}/runs/{run}/artifacts"
    yield f"**{answer.sentence}**"
    yield ""
    report, figures = (f"{page}/{name}?{names.TRAINING}" for name in ("report.html", "figures"))
    yield (
        f"{answer.basis}. [Report]({report}), [figures]({figures}). Tickets, masks "
        "and curves are artifacts of the trials' runs: `level_NN/ticket.safetensors`."
    )
    yield ""
    # MLflow's server answers this address; it is relative to the page, which has no other path.
    figure = f"figures%2F{PICTURES.get(answer.kind, answer.kind)}.svg"
    yield f"![{answer.sentence}](get-artifact?path={figure}&run_uuid={run})"


def _tables(cells: Sequence[Section]) -> Iterator[str]:
    """A table of verdicts for each cell."""
    for cell in cells:
        branches = ["dense", *cell.branches]
        if len(cells) > 1:
            yield f"**{cell.label}**"
            yield ""
        yield f"| weights | {' | '.join(branches)} | verdict |"
        yield "|" + "---:|" * (len(branches) + 1) + "---|"
        for row in cell.rows:
            accuracies = " | ".join(row.accuracy.get(branch, "") for branch in branches)
            yield f"| {row.density} | {accuracies} | {row.verdict} |"
        yield ""


def _settings(plan: Plan, results: StudyResults) -> Iterator[str]:
    """Values of the axes, and the settings that all trials share."""
    for axis in results.axes:
        values = varied_values(plan, results, axis)
        shown = ", ".join(setting_text(value) for value in values[:MOST_VALUES])
        more = f", ... ({len(values)})" if len(values) > MOST_VALUES else ""
        yield f"- varied: `{axis}` {shown}{more}"
    base = {
        name: value
        for name, value in dotted_settings(plan.study.base).items()
        if name not in results.axes
    }
    yield "- fixed: " + ", ".join(f"{name} {setting_text(value)}" for name, value in base.items())


def _command(plan: Plan) -> Iterator[str]:
    yield "To repeat it, here or elsewhere with the artifact `study.yaml` of this run:"
    yield ""
    yield f"    {without_secrets(plan.study.command())}"
    yield "    lth sweep study.yaml"
