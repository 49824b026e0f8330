"""HTML report of a study in one file."""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib import rc_context, rcdefaults

from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import STABLE_BELOW, merge_rewound_methods
from lth_core.analysis.structures import only_structures
from lth_core.analysis.verdict import WORDS
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from lth_core.store import make_folder
from lth_core.store.folder import FolderFiles
from tracking.figures import CurvesOf, StudyFigure, figures
from tracking.figures.drawing.svg import svg_text
from tracking.report.answer import Kind, study_answer
from tracking.report.method_table import method_tables
from tracking.report.rewind_table import predictor_tables, rewind_tables
from tracking.report.scope import scope_text
from tracking.report.search_table import BestSetting, caveat
from tracking.report.structure_table import cost_tables, similarity_tables
from tracking.report.verdict_table import sections
from tracking.report.words import words_of

PARTS: dict[Kind, list[str]] = {
    "tickets": ["verdicts", "figures"],
    "rewind": ["rewinds", "predictors", "figures", "verdicts"],
    "methods": ["methods", "costs", "figures", "verdicts"],
    "structures": ["similarities", "costs", "figures", "verdicts"],
}
"""Templates of a study's results, those that answer its question first."""
KEY_FIGURES: dict[Kind, list[str]] = {
    "tickets": ["sparsest_tickets", "accuracy"],
    "rewind": ["rewind"],
    "methods": ["methods"],
    "structures": ["similarity", "structures"],
}
"""Figures that answer the question; the first that was drawn is beside the answer."""


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A figure of a report, drawn."""

    name: str
    title: str
    caption: str
    svg: str
    """Element to be inlined in a page; a file of its own too."""
    pdf: bytes
    csv: str
    """The values drawn."""

    @property
    def width(self) -> float:
        """Width of the drawing in points; 0 of an empty one."""
        found = re.search(r'<svg[^>]* width="([\d.]+)pt"', self.svg)
        return float(found[1]) if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Origin of a study's results, by the names that the report shows."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """Machine, versions, data, durations, ..."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses with http or https."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Commands as typed in a shell."""
    spec: str = ""
    """The study file, overrides included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Plan of a study against its records."""

    planned: int | None = None
    """Number of planned trials; None where it is not known."""
    unfinished: str = ""
    """`10 of 96 levels are done`; empty where the study is finished."""
    missing: str = ""
    """Sentences that say which records are missing; empty where none are."""
    objective: Sequence[str] = ()
    """Columns by which an adaptive search chose the settings."""
    best: Sequence[BestSetting] = ()
    """The best of its settings."""


COMPLETE = Completeness()


def write_report(
    file: Path,
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    rule: VerdictRule,
    provenance: Provenance,
    stable_below: float = STABLE_BELOW,
    completeness: Completeness = COMPLETE,
) -> Path:
    """Write one self-contained HTML file, and figures/NAME.svg, .pdf and .csv beside it.

    Args:
        file: its folder is made where it is missing; existing files are replaced one by one.
        study: the study's name.
        records: as `lth_core.results.record`, with every axis by its dotted name.
        axes: dotted names of the study's axes; a cell is a value of each but `seed`.
        rule: margin, confidence and adjustment of the verdicts.
        curves: from a record's `training_digest` to its learning curves.
        provenance: how the study was made.
        stable_below: barrier, in error as a fraction, below which training is stable.
        completeness: which of its records are missing.

    Returns:
        The file's absolute path.

    Raises:
        StoreError: a file cannot be written.
    """
    files = FolderFiles(make_folder(file.parent, "report"))
    drawn = drawn_figures(records, axes, curves, rule, stable_below)
    text = page(study, records, axes, drawn, rule, provenance, stable_below, completeness)
    for figure in drawn:
        files.write(f"figures/{figure.name}.svg", figure.svg.encode())
        files.write(f"figures/{figure.name}.pdf", figure.pdf)
        files.write(f"figures/{figure.name}.csv", figure.csv.encode())
    files.write(file.name, text.encode())
    return file.absolute()


def drawn_figures(
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    rule: VerdictRule,
    stable_below: float = STABLE_BELOW,
) -> list[DrawnFigure]:
    """The figures that the records have the data for; arguments as in `write_report`."""
    records, drawn = merge_rewound_methods(records, axes), []
    with rc_context():
        rcdefaults()  # a user's matplotlibrc, in the current folder too, is not for these figures
        for name, chart in figures(curves, stable_below, rule).items() if records else ():
            if figure := chart.draw(records, axes):
                svg, pdf = _rendered(figure, name, chart.title)
                drawn.append(
                    DrawnFigure(name, chart.title, figure.caption, svg, pdf, figure.csv_text())
                )
    return drawn


def page(
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    drawn: Sequence[DrawnFigure],
    rule: VerdictRule,
    provenance: Provenance,
    stable_below: float = STABLE_BELOW,
    completeness: Completeness = COMPLETE,
) -> str:
    """The report's HTML with the figures in it; other arguments as in `write_report`."""
    records = merge_rewound_methods(records, axes)
    answer = study_answer(
        records, axes, rule, completeness.unfinished, objective=completeness.objective
    )
    key = next((f for name in KEY_FIGURES[answer.kind] for f in drawn if f.name == name), None)
    structures_alone = len(methods(records)) > 1 and only_structures(records, axes)
    templates = _templates()
    script, below = templates.get_template("script.js").render(), f"{100 * stable_below:g}"
    content = {
        "study": study,
        "answer": answer,
        "key_figure": key,
        "scope": scope_text(records, axes, completeness.planned),
        "incomplete": completeness.missing,
        "best": completeness.best,
        "caveat": caveat(completeness.objective),
        "order": PARTS[answer.kind],
        "methods": [] if structures_alone else method_tables(records, axes, rule),
        "costs": cost_tables(records, axes, rule),
        "similarities": similarity_tables(records, axes),
        "sections": sections(records, axes, rule),
        "verdict_words": WORDS,
        "rewinds": rewind_tables(records, axes, rule, stable_below),
        "predictors": predictor_tables(records, axes),
        "stable_below": below,
        "figures": [figure for figure in drawn if figure is not key],
        "provenance": provenance,
    }
    results = templates.get_template("results.html.jinja").render(content)
    return templates.get_template("report.html.jinja").render(
        content,
        results=Markup(results),
        words=words_of(results, below),
        script=Markup(script),
        script_hash=f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}",
    )


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spaced"] = lambda text: text.replace("±", " ± ")
    # A setting may be longer than a line of the answer.
    environment.filters["breakable"] = lambda text: escape(text).replace("=", Markup("=<wbr>"))
    return environment


def _rendered(figure: StudyFigure, name: str, title: str) -> tuple[str, bytes]:
    """SVG and PDF of a figure; equal figures give equal bytes."""
    svg, pdf = svg_text(figure, name, title), io.BytesIO()
    figure.set_layout_engine(None)  # the SVG laid it out; a second layout takes as long as drawing
    with rc_context({"pdf.fonttype": 42}):  # fonts that journals accept
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return svg, pdf.getvalue()
