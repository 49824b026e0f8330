from math import sqrt

import pytest
from hand_made import curves, record, rewound
from matplotlib.colors import to_hex
from varied import varied

from lth_core.analysis.rewinds import merge_rewound_methods
from tracking.figures import figures
from tracking.figures.drawing.rewind_axis import MOST_TICKS
from tracking.figures.drawing.styles import DENSE, STYLES
from tracking.figures.predictors import predictors
from tracking.figures.rewind import rewind
from tracking.figures.rewind_travel import rewind_travel
from tracking.figures.stability import stability

AXES = ["rewind", "seed"]
OF_REWINDING = ("rewind", "stability", "predictors", "rewind_travel")


def settled(records=None, axes=AXES):
    return merge_rewound_methods(rewound() if records is None else records, axes)


def line(panel, color):
    (found,) = [x for x in panel.lines if to_hex(x.get_color()) == color and len(x.get_xdata()) > 2]
    return found


def named(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("name", OF_REWINDING)
def test_studies_of_one_rewind_point_have_none_of_these(name):
    one = [r for r in rewound() if r["rewind"] == "5%"]
    assert figures(curves)[name].draw(one, AXES) is None
    assert figures(curves)[name].draw(rewound(), ["seed"]) is None
    assert figures(curves)[name].draw([], AXES) is None


def test_winning_tickets_are_marked_at_their_rewind_points():
    figure = rewind(varied(settled()), AXES)
    marked = [x for panel in figure.axes for x in panel.lines if x.get_markersize() == 7.5]
    (winning,) = marked
    assert winning.axes is figure.axes[0]
    assert list(winning.get_xdata()) == [2, 3]  # 5% and 10%
    assert "winning ticket" in named(figure)
    texts = [figure.hover_text(value) for value in figure.values]
    assert "ticket, rewind point 5%: 98 ± 2.5% (3 seeds), winning" in texts


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_REWINDING)
@pytest.mark.parametrize(
    "records",
    [rewound(seeds=1), [r for r in rewound() if r["level"] == 0],
     [r for r in rewound() if r["branch"] != "dense"], [r for r in rewound() if r["seed"] or r["level"]],
     [{**r, "density": 0.0} if r["level"] else r for r in rewound()],
     rewound(**{"model.name": "a$b$\\frac_c"})],
    ids=["one seed", "no ticket", "no dense", "a dense run missing", "no weights", "hostile name"],
)  # fmt: skip
def test_rewind_figures_of_partial_records_can_be_drawn(name, records):
    axes = [*AXES, "model.name"]
    if figure := figures(curves)[name].draw(settled(records, axes), axes):
        figure.draw_without_rendering()


def test_accuracy_is_drawn_branch_by_branch_against_rewind_points_a_panel_a_density():
    figure = rewind(settled(), AXES)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == ["50% of the weights, 3 seeds", "25% of the weights, 3 seeds"]
    first, second = figure.axes
    ticket = line(first, STYLES["ticket"][0])
    assert list(ticket.get_xdata()) == [0, 1, 2, 3, 4]
    assert list(ticket.get_ydata()) == pytest.approx([92, 95, 98, 99, 57])
    assert list(line(second, STYLES["ticket"][0]).get_ydata()) == pytest.approx(
        [67, 77, 87, 92, 37]
    )
    assert named(figure) == ["dense", "ticket", "reinit", "dense \N{MINUS SIGN} 0.5 points"]
    level = [x for x in first.lines if to_hex(x.get_color()) == DENSE]
    assert [list(x.get_ydata()) for x in level] == [[97, 97], [96.5, 96.5]]


def test_the_band_is_the_95_percent_t_interval():
    (panel, _) = rewind(settled(), AXES).axes
    (band,) = [c for c in panel.collections if to_hex(c.get_facecolor()[0]) == STYLES["ticket"][0]]
    at_5_percent = [y for x, y in band.get_paths()[0].vertices if x == 2]
    half = 4.302652729911275 / sqrt(3)  # t at 0.975; the deviation of the dense runs is 1
    assert (min(at_5_percent), max(at_5_percent)) == pytest.approx((98 - half, 98 + half))


def test_ticks_are_steps_and_shares_of_training():
    (panel, _) = rewind(settled(), AXES).axes
    labels = [tick.get_text() for tick in panel.get_xticklabels()]
    assert labels == ["0\n0%", "8\n2%", "20\n5%", "40\n10%", "400\n100%"]


def test_where_trainings_differ_in_length_ticks_are_the_names():
    longer = [{**r, "rewind_step": 2 * r["rewind_step"], "steps": 800, "train.steps": 800}
              for r in rewound()]  # fmt: skip
    axes = [*AXES, "train.steps"]
    records = settled([*longer, *rewound(**{"train.steps": 400})], axes)
    figure = rewind(records, axes)
    labels = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert labels == ["0\n0%", "2%", "5%", "10%", "100%"]
    assert len(figure.axes) == 4


@pytest.mark.slow
def test_many_rewind_points_have_few_ticks():
    records = [{**r, "rewind": f"{k}it", "rewind_step": k} for k in range(40)
               for r in rewound(seeds=1) if r["rewind"] == "5%"]  # fmt: skip
    panel = rewind(settled(records), AXES).axes[0]
    assert len(panel.get_xticks()) <= MOST_TICKS
    assert len(line(panel, STYLES["ticket"][0]).get_xdata()) == 40


def test_stability_draws_barriers_in_points_of_dense_runs_and_each_density():
    figure = stability(settled(), AXES)
    (panel,) = figure.axes
    assert list(line(panel, DENSE).get_ydata()) == pytest.approx([5.1, 3.1, 1.1, 0.1, 0.1])
    drawn = [list(x.get_ydata()) for x in panel.lines if len(x.get_xdata()) == 5]
    assert drawn[1] == pytest.approx([4.1, 1.1, 1.1, 0.1, 0.1])
    assert drawn[2] == pytest.approx([20.1, 10.1, 6.1, 3.1, 0.1])
    assert named(figure) == ["dense", "50% of the weights", "25% of the weights",
                             "stable below 2 points"]  # fmt: skip


def test_the_threshold_of_stability_is_a_line_within_the_limits_wherever_it_is_set():
    calm = [{**r, "test_barrier": 0.0} if r["branch"] == "twin" else r for r in rewound()]
    figure = figures(stable_below=0.1)["stability"].draw(settled(calm), AXES)
    (panel,) = figure.axes
    assert [x.get_ydata()[0] for x in panel.lines if len(x.get_xdata()) == 2] == [10]
    assert panel.get_ylim()[0] < 0 < 10 < panel.get_ylim()[1]
    assert "stable below 10 points" in named(figure)


def test_without_twins_there_is_no_stability_to_draw():
    records = [r for r in rewound() if r["branch"] != "twin"]
    assert stability(settled(records), AXES) is None


def test_the_legend_of_a_single_panel_fits_into_the_figure():
    figure = stability(settled(), AXES)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.slow
def test_travel_is_a_line_a_density():
    figure = rewind_travel(settled(), AXES)
    (panel,) = figure.axes
    assert [list(x.get_ydata()) for x in panel.lines] == [
        pytest.approx([0.4, 0.392, 0.38, 0.36, 0])
    ] * 2
    assert named(figure) == ["50% of the weights", "25% of the weights"]
    assert panel.get_ylim()[0] == pytest.approx(0, abs=0.03)


def row(panel, name, color):
    """Means and ends of intervals that are drawn in one colour."""
    place = [tick.get_text() for tick in panel.get_yticklabels()].index(name)
    found = [
        x for x in panel.lines if x.get_color() == color and abs(x.get_ydata()[0] - place) < 0.4
    ]
    return [float(x) for line in found for x in line.get_xdata()]


@pytest.mark.slow
def test_predictors_are_rows_with_their_correlations():
    figure = predictors(settled(), AXES)
    panel = figure.axes[0]
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == ["the step itself", "dense barrier, test", "distance to the end",
                     "cosine with the end", "mask overlap", "loss"]  # fmt: skip
    assert row(panel, "distance to the end", "#0072b2") == pytest.approx([-1])
    # Over all points: accuracies rank 2 3 4 5 1, distances 5 4 3 2 1.
    assert row(panel, "distance to the end", "#8a8a8a") == pytest.approx([0], abs=1e-9)
    assert panel.get_ylim()[0] > panel.get_ylim()[1]
    assert named(figure) == ["up to the best point", "all points"]


def test_intervals_of_correlations_are_cut_at_1():
    up, down = [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]
    records = [
        record(seed, branch, level, accuracy, rewind=f"{i}it", rewind_step=i, rewind_loss=value)
        for seed, known in enumerate((up, down))
        for i, (accuracy, value) in enumerate(zip(up, known, strict=True))
        for branch, level in (("dense", 0), ("ticket", 1))
    ]
    (panel,) = predictors(settled(records), AXES).axes
    assert row(panel, "loss", "#0072b2") == pytest.approx([-1, 1, 0])
