"""SVG and CSV of figures."""

import csv
import io
import re
from xml.etree import ElementTree

import pytest
from hand_made import study
from varied import cell

from lth_core.analysis.summary import Summary
from tracking.figures import accuracy
from tracking.figures.drawing.panels import WIDEST
from tracking.figures.drawing.study_figure import StudyFigure, Value
from tracking.figures.drawing.svg import MOST_HOVERS, RADIUS, svg_text

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</title><script>alert("x")</script>\x00 {0} $a$'


@pytest.fixture(scope="module")
def figure():
    return accuracy(cell([0.1, -0.45, -3], [3, 3, 3]), ["seed"])


@pytest.fixture(scope="module")
def svg(figure):
    return svg_text(figure, "accuracy", "Accuracy")


def test_each_value_has_a_hover_text_where_it_is_drawn(figure, svg):
    circles = ElementTree.fromstring(svg).findall(f".//{SVG}circle")
    texts = [circle.find(f"{SVG}title").text for circle in circles]
    assert len(texts) == len(figure.values) == 1 + 2 * 3
    assert "ticket, density 50%: 97.1 ± 0.24% (5 seeds), winning" in texts
    assert "dense, density 100%: 97 ± 0.2% (5 seeds)" in texts
    # A marker of the curve is at the middle of each circle.
    at = [(float(use.get("x")), float(use.get("y"))) for use in ElementTree.fromstring(svg).iter(f"{SVG}use")]  # fmt: skip
    for circle in circles[:-1]:
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        assert min(abs(x - u) + abs(y - v) for u, v in at) < 0.2
    assert f'r="{RADIUS}"' in svg


def test_svg_has_a_name_a_description_text_as_text_and_no_identifier_of_another(figure, svg):
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", "Accuracy")
    assert root.find(f"{SVG}desc").text == figure.caption
    assert "Weights remaining (%, log scale)" in [text.text for text in root.iter(f"{SVG}text")]
    used = set(re.findall(r'id="([^"]*)"', svg))
    assert used
    assert not used & set(re.findall(r'id="([^"]*)"', svg_text(figure, "other", "Accuracy")))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= used
    assert "<style" not in svg


@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_a_study_are_text_in_svg():
    figure = accuracy(study(seeds=1, levels=1, **{"model.name": HOSTILE}), ["model.name"])
    root = ElementTree.fromstring(svg_text(figure, "accuracy", HOSTILE))
    assert not list(root.iter(f"{SVG}script"))
    assert '</title><script>alert("x")</script>' in root.get("aria-label")


@pytest.mark.slow
def test_a_figure_of_many_cells_is_no_wider_than_a_page_and_has_a_limited_number_of_hovers():
    many = [r for i in range(9) for r in study(seeds=1, levels=1, width=i)]
    figure = accuracy(many, ["width"])
    assert figure.get_size_inches()[0] <= WIDEST
    figure.values *= 60
    assert svg_text(figure, "accuracy", "Accuracy").count("<circle") == MOST_HOVERS


def test_csv_has_a_row_for_each_value(figure):
    rows = list(csv.DictReader(io.StringIO(figure.csv_text())))
    assert len(rows) == len(figure.values)
    (row,) = [r for r in rows if (r["line"], r["x"]) == ("ticket", "50.0")]
    assert (row["panel"], row["n"], row["note"]) == ("", "5", "winning")
    assert [float(row[key]) for key in ("low", "mean", "high")] == pytest.approx(
        [96.86, 97.1, 97.34], abs=0.01
    )


def test_caption_speaks_of_this_study():
    near = "less than 0.5 points below dense"
    told = accuracy(cell([0.1, 0.1, -3], [3, 0, 3]), ["seed"]).caption
    assert told.startswith("Test accuracy of dense, ticket and reinit at the end of training,")
    assert "means over 5 seeds" in told
    assert f"\N{WHITE CIRCLE}: shown to be {near}. \N{BLACK CIRCLE}: shown to be {near}, " in told
    few = accuracy(study(seeds=1), ["seed"]).caption
    assert "of one seed. Too few seeds for verdicts." in few
    assert "intervals" not in few
    assert "None of these tickets is shown to match" in accuracy(cell([-3]), ["seed"]).caption


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.9, 1.0, "0.95 ± 0.05"), (0.35, 1.0, "0.95 (0.35 to 1)"), (None, None, "0.95")],
)
def test_hover_text_has_both_ends_of_an_interval_that_is_cut(low, high, text):
    figure = StudyFigure((4, 3))
    value = Value(
        figure.subplots(), "imp", "1ep", Summary(3, 0.95, None, low, high), place=(0, 0.95)
    )
    assert figure.hover_text(value) == f"imp, 1ep: {text} (3 seeds)"
