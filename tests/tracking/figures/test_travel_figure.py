import pytest
from hand_made import study, taxonomy

from tracking.figures.travel import SIDES, travel

AXES = ["seed"]


def test_both_sides_are_drawn_as_means_over_seeds():
    (panel,) = travel(study(), AXES).axes
    lines = {x.get_color(): list(x.get_ydata()) for x in panel.lines}
    assert lines[SIDES["travel_inside"][1]] == pytest.approx([0.05, 0.05])
    assert lines[SIDES["travel_outside"][1]] == pytest.approx([0.03, 0.03])
    assert panel.get_ylim()[0] == 0
    assert len(panel.collections) == 2


def test_a_training_that_diverges_does_not_hide_the_others():
    far = [{**r, "travel_inside": 1e9 * (r["travel_inside"] or 0)} for r in study(lr=2)]
    records = [*study(lr=1), *far]
    assert {panel.get_yscale() for panel in travel(records, ["seed", "lr"]).axes} == {"log"}


def test_several_methods_are_drawn_as_the_mean_of_each_seeds_ratio():
    figure = travel(taxonomy(levels=2), ["seed", "prune.score"])
    (panel,) = figure.axes
    one, *methods = panel.lines
    assert set(one.get_ydata()) == {1}
    assert len(methods) == 18
    for drawn in methods:
        assert list(drawn.get_ydata()) == pytest.approx([(2 + 2.5 + 1.2) / 3] * 2)
    assert panel.get_yscale() == "log"


def test_tickets_without_a_side_are_left_out():
    records = [{**r, "travel_outside": None} if r["level"] == 1 else r for r in study()]
    (panel,) = travel(records, AXES).axes
    assert [len(drawn.get_xdata()) for drawn in panel.lines] == [1, 1]


@pytest.mark.parametrize("outside", [None, 0.0])
def test_nothing_measured_is_not_drawn(outside):
    records = [{**r, "travel_outside": outside} for r in study()]
    assert travel(records, AXES) is None
