import pytest
from hand_made import study

from lth_core.analysis.cells import cells
from lth_core.analysis.verdict_rule import VerdictRule
from tracking.figures import figures
from tracking.figures.width import best_gap, width

AXES = ["model.width", "model.depth", "seed"]


def wide(gains, depths=(1,)):
    """Studies of several widths; at width w, every ticket's accuracy is higher by gains[w]."""
    return [
        {**r, "final_test_accuracy": r["final_test_accuracy"] + gain * (r["branch"] == "ticket")}
        for depth in depths
        for w, gain in gains.items()
        for r in study(**{"model.width": w, "model.depth": depth})
    ]


def test_best_level_less_dense_in_points_is_drawn_against_width():
    (panel,) = width(wide({0.5: -0.05, 1: 0.0, 2: 0.01}), AXES).axes
    zero, margin, line = panel.lines
    assert set(zero.get_ydata()) == {0}
    assert set(margin.get_ydata()) == {-0.5}
    assert list(line.get_xdata()) == [0.5, 1, 2]
    # Level 1 is the best: a point above dense, whatever the seed.
    assert list(line.get_ydata()) == pytest.approx([-4, 1, 2])


def test_the_margin_of_the_study_is_marked():
    drawn = figures(rule=VerdictRule(margin=0.02))["width"].draw(wide({0.5: -0.05, 1: 0.0}), AXES)
    zero, marked, _ = drawn.axes[0].lines
    assert (set(zero.get_ydata()), set(marked.get_ydata())) == ({0}, {-2})


def test_each_depth_has_a_line_and_each_other_axis_a_panel():
    records = wide({1: 0.0, 2: 0.01}, depths=(1, 4))
    both = [{**r, "model.init": init} for r in records for init in ("a", "b")]
    figure = width(both, [*AXES, "model.init"])
    assert [len(panel.lines) for panel in figure.axes] == [2 + 2, 2 + 2]


def test_studies_of_one_width_have_no_such_figure():
    assert width(study(), ["seed"]) is None
    assert width(wide({1: 0.0}), AXES) is None
    apart = [{**r, "train.lr": r["model.width"]} for r in wide({1: 0.0, 2: 0.01})]
    assert width(apart, [*AXES, "train.lr"]) is None


def test_gap_is_paired_by_seed_and_of_the_best_level():
    records = [r for r in study() if not (r["branch"] == "dense" and r["seed"] == 2)]
    (cell,) = cells(records, [])
    gap = best_gap(cell)
    assert (gap.n, gap.mean) == (2, pytest.approx(1))
