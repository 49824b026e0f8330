from dataclasses import astuple, replace
from math import sqrt

import pytest
from hand_made import DENSE, TICKET, curves, record, rewound, study, taxonomy
from matplotlib._pylab_helpers import Gcf
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from varied import cell

from lth_core.analysis.cells import cells
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.train.training import Curves
from tracking.figures import FIGURES, figures
from tracking.figures.accuracy import accuracy
from tracking.figures.drawing.panels import MOST_PANELS, limits, plain, spread, stretch, unstretch
from tracking.figures.drawing.styles import STYLES
from tracking.figures.early_stop import early_stop
from tracking.figures.layer_density import layer_density
from tracking.figures.learning_curves import MOST_CURVES, learning_curves

AXES = ["seed"]
BLUE = STYLES["ticket"][0]
OF_STRUCTURES = {"similarity", "similarity_matrix", "structures", "search_cost"}
OF_REWINDING = {"rewind", "stability", "predictors", "rewind_travel"}


def line(panel, branch):
    return next(line for line in panel.lines if line.get_color() == STYLES[branch][0])


def names(figure):
    """Names of lines: beside them in a single panel, and in the legend above several."""
    texts = [text for panel in figure.axes for text in panel.texts]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    return [text.get_text() for text in texts]


def test_accuracy_draws_the_mean_of_each_branch_at_its_density_in_percent():
    (panel,) = accuracy(study(), AXES).axes
    ticket = line(panel, "ticket")
    assert list(ticket.get_xdata()) == [50, 25]
    assert list(ticket.get_ydata()) == pytest.approx([98, 91])
    assert list(line(panel, "reinit").get_ydata()) == pytest.approx([95, 81])


def test_the_dense_mean_and_the_margin_below_it_are_lines_across_the_panel():
    (panel,) = accuracy(study(), AXES, rule=VerdictRule(margin=0.02)).axes
    across = [list(x.get_ydata()) for x in panel.lines if list(x.get_xdata()) == [0, 1]]
    assert across == [pytest.approx([97, 97]), pytest.approx([95, 95])]
    assert "dense \N{MINUS SIGN} 2 points" in names(panel.figure)


@pytest.mark.slow
def test_matching_and_winning_tickets_are_marked_on_their_curve():
    records = cell([0.1, 0.1, -0.45, -3], [3, 0, 3, 3])
    (panel,) = accuracy(records, AXES).axes
    winning, matching = [drawn for drawn in panel.lines if drawn.get_markersize() == 7.5]
    assert (list(winning.get_xdata()), list(matching.get_xdata())) == ([50], [25])
    assert (winning.get_markerfacecolor(), matching.get_markerfacecolor()) == (BLUE, "white")
    (legend,) = panel.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["winning ticket", "matching ticket"]
    strict = accuracy(records, AXES, rule=VerdictRule(confidence=1 - 1e-12))
    assert not strict.legends


def test_the_band_is_the_95_percent_t_interval():
    (panel,) = accuracy(study(levels=2), AXES).axes
    half = 4.302652729911275 / sqrt(3)  # t at 0.975; the deviation of 97, 98, 99 is 1
    (band,) = [c for c in panel.collections if to_hex(c.get_facecolor()[0]) == STYLES["ticket"][0]]
    first = [y for x, y in band.get_paths()[0].vertices if x == 50]
    assert (min(first), max(first)) == pytest.approx((98 - half, 98 + half))


def test_the_interval_of_a_single_level_is_seen():
    (panel,) = accuracy(study(levels=1), AXES).axes
    half = 4.302652729911275 / sqrt(3)
    bars = [c for c in panel.collections if isinstance(c, LineCollection)]
    bands = {to_hex(bar.get_color()[0]): bar for bar in bars}
    (drawn,) = bands[STYLES["ticket"][0]].get_segments()
    assert drawn[:, 1] == pytest.approx((98 - half, 98 + half))
    assert bands[STYLES["ticket"][0]].get_linewidth() > 4


def test_one_seed_draws_lines_without_bands():
    (panel,) = accuracy(study(seeds=1), AXES).axes
    assert list(line(panel, "ticket").get_ydata()) == pytest.approx(
        [100 * TICKET[1][0], 100 * TICKET[2][0]]
    )
    assert not any(len(path.vertices) for c in panel.collections for path in c.get_paths())
    assert not panel.patches


def test_early_stop_draws_steps_as_they_are():
    (panel,) = early_stop(study(), AXES).axes
    assert list(line(panel, "ticket").get_ydata()) == pytest.approx([90, 70])
    assert panel.get_yscale() == "linear"


def test_density_falls_to_the_right_on_a_logarithmic_axis():
    (panel,) = accuracy(study(), AXES).axes
    left, right = panel.get_xlim()
    assert left > 100 > 25 > right
    assert panel.get_xscale() == "log"
    assert list(panel.get_xticks()) == [50, 100]


def test_every_mean_lies_within_the_limits():
    (panel,) = accuracy(study(), AXES).axes
    low, high = panel.get_ylim()
    assert low < 81
    assert high > 98


def test_learning_curves_are_means_over_seeds_of_dense_and_tickets_alone():
    panel, bar = learning_curves(study(), AXES, curves).axes
    assert len(panel.lines) == 3
    for drawn in panel.lines:
        assert list(drawn.get_xdata()) == [50, 100]
        assert list(drawn.get_ydata()) == pytest.approx([51, 91])
    assert len({drawn.get_color() for drawn in panel.lines}) == 3
    assert "Weights remaining" in bar.get_ylabel()


def test_learning_curves_choose_few_of_many_levels_with_the_first_and_the_last():
    records = [record(0, "dense", 0, 0.9)] + [
        {**record(0, "ticket", 1, 0.9), "level": level, "density": 0.8**level}
        for level in range(1, 20)
    ]
    panel, _ = learning_curves(records, AXES, curves).axes
    assert len(panel.lines) == MOST_CURVES


def test_learning_curves_are_of_validation_where_test_examples_were_not_always_evaluated():
    def best(digest):
        known = curves(digest)
        return known and replace(known, test_accuracy=[None, known.test_accuracy[1]])

    figure = learning_curves(study(), AXES, best)
    assert figure.get_supylabel().startswith("Validation accuracy")
    for drawn in figure.axes[0].lines:
        assert list(drawn.get_xdata()) == [50, 100]
        assert list(drawn.get_ydata()) == pytest.approx([50, 90])
    assert learning_curves(study(), AXES, curves).get_supylabel().startswith("Test accuracy")


def last(digest):
    """The curves' last points alone."""
    known = curves(digest)
    return known and Curves(*([value[-1]] for value in astuple(known)))


def test_learning_curve_of_one_evaluation_is_a_point_that_can_be_seen():
    def dense_once(digest):
        return (last if digest.startswith("dense") else curves)(digest)

    panel, _ = learning_curves(study(), AXES, dense_once).axes
    assert [drawn.get_marker() for drawn in panel.lines] == ["o", "None", "None"]


def test_figures_that_tell_nothing_are_not_drawn():
    equal = [{**r, "layer_density": dict.fromkeys("ab", r["density"] + 0.004)} for r in study()]
    assert layer_density(equal, AXES) is None
    assert early_stop([{**r, "early_stop_step": 400} for r in study()], AXES) is None
    assert learning_curves(study(), AXES, last) is None
    assert learning_curves(study(), AXES) is None
    for draw in (accuracy, early_stop):
        assert draw(study(levels=0), AXES) is None


def test_layer_density_draws_each_layer_from_dense_on():
    figure = layer_density(study(), AXES)
    (panel,) = figure.axes
    hidden, output = panel.lines[1:]  # after the diagonal
    assert list(hidden.get_ydata()) == pytest.approx([100, 50, 25])
    assert list(output.get_ydata()) == pytest.approx([100, 75, 62.5])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["hidden", "output"]


def test_a_layer_with_no_weights_left_ends_its_line():
    gone = {"layer_density": {"hidden": 0.0, "output": 0.5}}
    records = [record(0, "dense", 0, 0.9), record(0, "ticket", 1, 0.9, **gone)]
    (panel,) = layer_density(records, AXES).axes
    assert [y == y for y in panel.lines[1].get_ydata()] == [True, False]


def test_many_layers_get_a_colour_bar_instead_of_a_legend():
    named = {"layer_density": {f"layer{i}": 0.4 for i in range(20)}}
    figure = layer_density([record(0, "ticket", 1, 0.9, **named)], AXES)
    assert not figure.legends
    ticks = figure.axes[1].get_yticklabels()
    assert [tick.get_text() for tick in ticks] == ["layer0", "layer19"]


def test_early_stops_a_step_apart_have_whole_steps_as_ticks():
    steps = [{**r, "early_stop_step": 400 + (r["branch"] == "dense")} for r in study()]
    figure = early_stop(steps, AXES)
    (panel,) = figure.axes
    figure.draw_without_rendering()
    assert panel.yaxis.get_offset_text().get_text() == ""
    ticks = [tick for tick in panel.get_yticks() if 398 <= tick <= 402]
    assert ticks == [398, 399, 400, 401, 402]


def test_the_early_stop_axis_does_not_go_far_below_step_0():
    records = [{**r, "early_stop_step": 400 * (r["seed"] == 0)} for r in study()]
    (panel,) = early_stop(records, AXES).axes
    low, high = panel.get_ylim()
    assert -high / 20 < low < 0


def test_copies_for_barriers_have_no_line_but_a_twin_has_a_style():
    copies = [record(s, "twin", 1, 0.1) for s in range(3)]
    copies += [record(s, branch, 0, 0.1) for s in range(3) for branch in ("rewound", "twin")]
    records = [*study(), *copies]
    for draw in (accuracy, early_stop):
        named = set(names(draw(records, AXES)))
        assert named - {"dense \N{MINUS SIGN} 0.5 points"} == {"dense", "ticket", "reinit"}
    assert "twin" in STYLES


@pytest.mark.parametrize("name", ["travel", "overlap", "layer_density"])
def test_figures_that_ignore_rewind_points_have_one_panel(name):
    records = [{**r, "method": "one-shot", "overlap_seeds": 0.5, "overlap_seeds_chance": 0.1}
               for r in rewound()]  # fmt: skip
    assert len(figures(curves)[name].draw(records, ["rewind", "seed"]).axes) == 1


def test_each_cell_has_a_panel_in_rising_order_with_its_own_title():
    records = [r for k in ("2000it", "500it") for r in study(rewind=k)]
    figure = accuracy(records, ["seed", "rewind"])
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["rewind=500it, 3 seeds", "rewind=2000it, 3 seeds"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_a_title_that_is_too_long_keeps_the_number_of_seeds():
    (panel,) = accuracy(study(seeds=2, **{"data.name": "long " * 60}), ["data.name"]).axes
    title = panel.get_title(loc="left").splitlines()
    assert len(title) == 3
    assert title[1].endswith("...")
    assert title[2] == "2 seeds"


def test_the_figure_says_that_cells_beyond_the_last_panel_are_left_out():
    many = [r for width in range(15) for r in study(seeds=1, **{"model.width": width})]
    figure = accuracy(many, ["model.width"])
    assert len(figure.axes) == MOST_PANELS
    assert "12 of 15 cells; 3 are left out" in figure.get_supxlabel()


def test_an_unknown_branch_gets_a_style_of_its_own_and_a_place_in_the_legend():
    records = [*study(), record(0, "late_reset", 1, 0.9)]
    figure = accuracy(records, AXES)
    assert {"dense", "ticket", "reinit", "late_reset"} < set(names(figure))
    colors = [to_hex(drawn.get_color()) for drawn in figure.axes[0].lines]
    assert len(set(colors)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "records",
    [[], study(levels=0), study(seeds=1), [r for r in study() if r["branch"] != "reinit"],
     study(**{"model.name": "a$b$\\frac_c"}), [r for r in study() if r["branch"] != "dense"],
     taxonomy(), taxonomy(seeds=1, levels=1), taxonomy(levels=0),
     study() + study(method="a$b$\\frac_c", when="at noon", overlap_methods={"imp": 0.5},
                     overlap_methods_chance={"imp": 0.1}),
     [{**r, "density": 0.0, "collapsed_layers": 2} if r["level"] else r for r in taxonomy()]],
    ids=["nothing", "dense alone", "one seed", "no reinit", "hostile name", "no dense",
         "many methods", "many methods once", "no tickets", "hostile method", "no weights left"],
)  # fmt: skip
def test_figures_of_partial_records_can_be_drawn(name, records):
    if figure := figures(curves)[name].draw(records, ["seed", "model.name"]):
        figure.draw_without_rendering()


def drawn(records):
    return {n for n, chart in figures(curves).items() if chart.draw(records, ["seed"])}


@pytest.mark.slow
def test_figures_without_data_are_not_drawn():
    assert (
        drawn(taxonomy(levels=2))
        == set(FIGURES) - {"sparsest_tickets"} - OF_REWINDING - OF_STRUCTURES
    )
    bare = [{**r, "travel_inside": None, "travel_outside": None} for r in study()]
    absent = {"methods", "travel", "overlap", "sparsest_tickets"} | OF_REWINDING | OF_STRUCTURES
    assert set(FIGURES) - drawn(bare) == absent


def test_early_stops_are_drawn_where_they_are_and_not_at_all_without_validation_examples():
    bare = [{**r, "early_stop_step": None} for r in study(**{"data.validation": 0})]
    assert drawn(study()) - drawn(bare) == {"early_stop"}
    mixed = [*study(**{"data.validation": 0.1}), *bare]
    without, with_early_stops = early_stop(mixed, ["seed", "data.validation"]).axes
    assert list(line(with_early_stops, "ticket").get_ydata()) == pytest.approx([90, 70])
    assert not without.lines


def test_figures_leave_pyplot_alone():
    before = set(Gcf.figs)
    accuracy(study(), AXES)
    assert set(Gcf.figs) == before


def test_the_accuracy_scale_is_undone_and_finite_at_100():
    assert list(unstretch(stretch([0, 50, 99, 100]))) == pytest.approx([0, 50, 99, 100])


def test_limits_hold_all_values_but_cut_intervals_that_dwarf_them():
    low, high = limits([10, 12], [(9.5, 10.5), (-500, 524)])
    assert -500 < low < 9.5
    assert 12 < high < 524


def test_names_of_lines_are_apart_and_near_their_lines():
    assert spread([0.1, 0.5, 0.51], 0.1) == pytest.approx([0.1, 0.455, 0.555])
    assert spread([-1, 0.99, 1], 0.1) == pytest.approx([0, 0.9, 1])


def test_labels_are_shown_as_they_are():
    assert plain("_a$b") == r" _a\$b"


def test_cells_count_a_seed_once_though_two_trials_ran_it():
    (cell,) = cells(study() + study(), AXES)
    assert cell.seeds == 3
    assert cell.series("dense", "final_test_accuracy")[0].value.n == len(DENSE)


@pytest.mark.parametrize(
    "values", [[1e-5, 0.1, 2], ["2ep", "10ep"], [[100], [300, 100]], [False, True], [None, 3]]
)
def test_cells_are_in_natural_order(values):
    records = [r for value in reversed(values) for r in study(seeds=1, axis=value)]
    found = [cell.values["axis"] for cell in cells(records, ["axis"])]
    assert sorted(map(str, found)) == sorted(map(str, values))
    if None not in values:
        assert found == values


def test_captions_and_titles_count_the_seeds_of_each_level():
    """A stop rule ended a seed before its second level."""
    records = [r for r in study() if (r["seed"], r["level"]) != (0, 2)]
    figure = accuracy(records, AXES)
    assert figure.axes[0].get_title(loc="left") == "2 to 3 seeds"
    assert "means over 2 to 3 seeds" in figure.caption
