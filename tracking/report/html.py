"""HTML report of a study in one file, and a one-line verdict on each cell."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context, rcdefaults
from matplotlib.figure import Figure

from lth_core.analysis.cells import cells
from lth_core.analysis.groups import methods
from lth_core.analysis.rewinds import STABLE_BELOW, merge_rewound_methods
from lth_core.analysis.structures import only_structures
from lth_core.analysis.verdict_rule import DEFAULT_RULE, FEWEST, VerdictRule
from lth_core.columns import Record
from lth_core.store import make_folder
from lth_core.store.folder import FolderFiles
from tracking.figures import CurvesOf, figures
from tracking.report.method_table import method_tables
from tracking.report.rewind_table import predictor_tables, rewind_tables
from tracking.report.structure_table import cost_tables, similarity_tables
from tracking.report.verdict_table import NO_RECORDS, sections
from tracking.text import count, density_text


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A figure of a report, drawn."""

    name: str
    title: str
    caption: str
    png: bytes
    pdf: bytes

    @property
    def png_base64(self) -> str:
        """The PNG as it stands in a page's `data:` URL."""
        return b64encode(self.png).decode()


def headlines(
    records: Sequence[Record], axes: Sequence[str], rule: VerdictRule = DEFAULT_RULE
) -> list[str]:
    """One line a cell: its sparsest matching ticket, and whether it is better than reinit.

    Args:
        records: as `lth_core.results.record`, with every axis by its dotted name.
        axes: dotted names of the study's axes; a cell is a value of each but `seed`.
        rule: margin, confidence and adjustment of the verdicts.
    """
    records = merge_rewound_methods(records, axes)
    return [section.headline for section in sections(records, axes, rule)]


def write_report(
    file: Path,
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    curves: CurvesOf,
    rule: VerdictRule,
    provenance: Mapping[str, str],
    stable_below: float = STABLE_BELOW,
    incomplete: str = "",
) -> Path:
    """Write one self-contained HTML file, and figures/NAME.png and .pdf beside it.

    Args:
        file: its folder is made where it is missing; existing files are replaced one by one.
        study: the study's name.
        records, axes, rule: as in `headlines`.
        curves: from a record's `training_digest` to its learning curves.
        provenance: how the study was run, by name: versions, machine, command, ...
        stable_below: barrier, in error as a fraction, below which training is stable.
        incomplete: sentences that say which records are missing; empty where none are.

    Returns:
        The file's absolute path.

    Raises:
        StoreError: a file cannot be written.
    """
    files = FolderFiles(make_folder(file.parent))
    drawn = drawn_figures(records, axes, curves, rule, stable_below)
    text = page(study, records, axes, drawn, rule, provenance, stable_below, incomplete)
    for figure in drawn:
        files.write(f"figures/{figure.name}.png", figure.png)
        files.write(f"figures/{figure.name}.pdf", figure.pdf)
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
        for name, chart in figures(stable_below, rule.margin).items() if records else ():
            if figure := chart.draw(records, axes, curves):
                drawn.append(DrawnFigure(name, chart.title, chart.caption, *_rendered(figure)))
    return drawn


def page(
    study: str,
    records: Sequence[Record],
    axes: Sequence[str],
    drawn: Sequence[DrawnFigure],
    rule: VerdictRule,
    provenance: Mapping[str, str],
    stable_below: float = STABLE_BELOW,
    incomplete: str = "",
) -> str:
    """The report's HTML with the figures in it; other arguments as in `write_report`."""
    records = merge_rewound_methods(records, axes)
    structures_alone = len(methods(records)) > 1 and only_structures(records, axes)
    template = _templates().get_template("report.html.jinja")
    return template.render(
        study=study,
        scope=_scope(records, axes),
        incomplete=incomplete,
        methods=[] if structures_alone else method_tables(records, axes, rule),
        costs=cost_tables(records, axes, rule),
        similarities=similarity_tables(records, axes),
        sections=sections(records, axes, rule),
        rewinds=rewind_tables(records, axes, rule, stable_below),
        predictors=predictor_tables(records, axes),
        stable_below=f"{100 * stable_below:g}",
        figures=drawn,
        provenance=provenance,
        fewest=FEWEST,
    )


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _rendered(figure: Figure) -> tuple[bytes, bytes]:
    """PNG and PDF of a figure; equal figures give equal bytes."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.set_layout_engine(None)  # the PNG laid it out; a second layout takes as long as drawing
    with rc_context({"pdf.fonttype": 42}):  # fonts that journals accept
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


def _scope(records: Sequence[Record], axes: Sequence[str]) -> str:
    """Counts of trials, cells, seeds and methods, and the lowest density."""
    if not records:
        return NO_RECORDS
    trials = len({record["trial"] for record in records})
    seeds = len({record["seed"] for record in records})
    density = min(record["density"] for record in records)
    counts = [count(trials, "trial"), count(len(cells(records, axes)), "cell")]
    counts.append(count(seeds, "seed"))
    if (compared := len(methods(records))) > 1:
        counts.append(count(compared, "method"))
    return f"{', '.join(counts)}; down to {density_text(density)} of the weights."
