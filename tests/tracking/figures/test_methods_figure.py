import pytest
from hand_made import DENSE, record, study, taxonomy
from matplotlib.colors import to_hex

from lth_core.analysis.families import variants
from tracking.figures.drawing.lines import MOST_BANDS
from tracking.figures.drawing.panels import WIDEST
from tracking.figures.drawing.styles import variant_styles
from tracking.figures.methods import by_method

SCORES = ["seed", "prune.score"]


def line(panel, look):
    (found,) = [
        x for x in panel.lines if x.get_marker() == look["marker"]
        and to_hex(x.get_color()) == look["color"] and x.get_linestyle() in ("-", look["linestyle"])
    ]  # fmt: skip
    return found


def test_a_single_method_has_no_figure_of_methods():
    assert by_method(study(), ["seed"]) is None


def test_every_method_is_a_line_of_its_means_against_density_in_percent():
    (panel,) = by_method(taxonomy(), SCORES).axes
    looks = variant_styles(variants(taxonomy()))
    (snip,) = [variant for variant in looks if variant.name == "snip"]
    drawn = line(panel, looks[snip])
    assert list(drawn.get_xdata()) == [50, 25, 12.5, 6.25, 3.125]
    assert drawn.get_ydata()[0] == pytest.approx(96.7)
    assert sum(len(set(x.get_ydata())) > 1 for x in panel.lines) == 20


def judged(method, losses, reinit=0.0):
    """Records of three seeds whose tickets lose a little or much, level by level."""
    dense = [0.97, 0.972, 0.974]
    found = [record(s, "dense", 0, value, method=method) for s, value in enumerate(dense)]
    for level, loss in enumerate(losses, 1):
        for seed, value in enumerate(dense):
            ticket = value - loss + seed / 10_000
            found.append(record(seed, "ticket", level, ticket, method=method))
            if reinit:
                fresh = ticket - reinit - seed / 1000
                found.append(record(seed, "reinit", level, fresh, method=method))
    return found


def test_matching_and_winning_tickets_are_marked_on_the_curves_of_their_methods():
    records = [*judged("a", [0, 0.001, 0.2]), *judged("b", [0.2]), *judged("c", [0], reinit=0.1)]
    figure = by_method(records, ["seed"])
    looks = {variant.name: look for variant, look in variant_styles(variants(records)).items()}
    marks = {
        (x.get_marker(), to_hex(x.get_markeredgecolor()), to_hex(x.get_markerfacecolor())):
        [float(at) for at in x.get_xdata()]
        for x in figure.axes[0].lines if x.get_linestyle() == "None"
    }  # fmt: skip
    a, c = looks["a"], looks["c"]
    densities = [100 * r["density"] for r in records if r["method"] == "a" and r["seed"] == 0]
    assert marks == {
        (a["marker"], a["color"], "#ffffff"): pytest.approx(densities[1:3]),
        (c["marker"], c["color"], c["color"]): pytest.approx(densities[1:2]),
    }
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said[:4] == [
        "dense",
        "dense \N{MINUS SIGN} 0.5 points",
        "winning ticket",
        "matching ticket",
    ]
    notes = {(value.line, value.x): value.note for value in figure.values}
    assert notes["a", densities[1]] == "matching"
    assert notes["b", densities[1]] == "not matching"
    assert "\N{BLACK CIRCLE}: shown to be less than 0.5 points below dense" in figure.caption


def test_the_dense_run_and_its_margin_are_one_line_each_where_methods_share_it():
    (panel,) = by_method(taxonomy(), SCORES).axes
    level = [x for x in panel.lines if len(set(x.get_ydata())) == 1]
    dense = 100 * sum(DENSE) / 3
    assert [x.get_ydata()[0] for x in level] == pytest.approx([dense, dense - 0.5])


def test_dense_runs_that_differ_are_lines_of_their_own():
    records = [
        {**r, "final_test_accuracy": 0.5} if (r["branch"], r["method"]) == ("dense", "gmp") else r
        for r in taxonomy()
    ]
    (panel,) = by_method(records, SCORES).axes
    level = {x.get_ydata()[0] for x in panel.lines if len(set(x.get_ydata())) == 1}
    assert sorted(level) == pytest.approx([49.5, 50, 96.5, 97])


@pytest.mark.slow
def test_panels_are_those_axes_that_no_method_determines():
    wide = [r for w in (1, 2) for r in taxonomy(levels=1, **{"model.width": w})]
    figure = by_method(wide, [*SCORES, "model.width"])
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["model.width=1, 3 seeds", "model.width=2, 3 seeds"]
    assert figure.get_size_inches()[0] == WIDEST


def test_the_legend_goes_by_family():
    (legend,) = by_method(taxonomy(), SCORES).legends
    said = [text.get_text() for text in legend.get_texts()]
    margin = "dense \N{MINUS SIGN} 0.5 points"
    assert said[:4] == ["dense", margin, "Before training", "random"]
    bold = [t.get_text() for t in legend.get_texts() if t.get_fontweight() == "bold"]
    assert bold == ["Before training", "During training", "After training", "Never trained"]
    assert said.index("one-shot finetune") == said.index("one-shot") + 1


def test_the_legend_of_many_methods_fits_into_the_figure():
    many = [r for i in range(12) for when in ("before", "after")
            for r in study(seeds=1, method=f"a-rather-long-name-{when}-{i}", when=when)]  # fmt: skip
    figure = by_method(many, ["seed"])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert (box.x0, box.y0) > (0, 0)
    assert box.y0 >= 0
    assert box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    (panel,) = figure.axes
    assert panel.get_window_extent().x1 <= box.x0
    assert panel.get_window_extent().width > whole.width / 2


def test_all_methods_look_different_and_families_share_no_colour():
    looks = variant_styles(variants(taxonomy()))
    assert len({str(look) for look in looks.values()}) == len(looks)
    colors = {}
    for variant, look in looks.items():
        assert colors.setdefault(look["color"], variant.when) == variant.when


def test_a_retraining_differs_from_its_method_in_the_dash_alone():
    looks = {variant.name: look for variant, look in variant_styles(variants(taxonomy())).items()}
    ticket, finetune = looks["one-shot"], looks["one-shot finetune"]
    assert {key for key in ticket if ticket[key] != finetune[key]} == {"linestyle"}


@pytest.mark.parametrize("count", [2, MOST_BANDS + 1])
def test_intervals_are_drawn_only_for_few_methods(count):
    records = [r for i in range(count) for r in study(method=f"m{i}")]
    (panel,) = by_method(records, ["seed"]).axes
    assert len(panel.collections) == (count if count <= MOST_BANDS else 0)


def test_every_mean_lies_within_the_limits():
    records = [*study(), *(record(s, "ticket", 1, 0.1, method="lost") for s in range(3))]
    (panel,) = by_method(records, ["seed"]).axes
    low, high = panel.get_ylim()
    assert low < 10
    assert high > 98


def test_the_dense_run_is_within_the_limits_though_every_method_is_far_below():
    lost = [record(s, "ticket", 1, 0.3, method=m) for s in range(3) for m in ("a", "b")]
    (panel,) = by_method([*study(levels=0), *lost], ["seed"]).axes
    assert panel.get_ylim()[1] > 97
