import pytest
from hand_made import study

from tracking.figures.sparsest_tickets import sparsest_tickets, x_and_line

AXES = ["model.width", "model.depth", "seed"]


def sized(gains, depths=(1,), **axes):
    """Studies of several widths, six seeds; at width w, tickets are more accurate by gains[w]."""
    return [
        {
            **r, "seed": r["seed"] + more,
            "final_test_accuracy": r["final_test_accuracy"] + gain * (r["branch"] == "ticket"),
        }
        for depth in depths
        for w, gain in gains.items()
        for more in (0, 3)
        for r in study(**{
            "model.width": w, "model.depth": depth, "weights_prunable": 1000 * w * depth, **axes,
        })
    ]  # fmt: skip


def drawn(figure):
    return {(v.line, v.x): (v.value.mean, v.note) for v in figure.values}


def test_weights_of_the_sparsest_matching_ticket_are_drawn_against_width():
    # Level 1 (50%) is a point above dense, level 2 (25%) 6 points below; at width 4 both are worse.
    figure = sparsest_tickets(sized({1: 0.0, 2: 0.2, 4: -0.2}), AXES)
    assert drawn(figure) == {
        ("ticket", 1): (500, "50% winning, 25% not matching"),
        ("ticket", 2): (500, "25% winning"),
        ("ticket", 4): (4000, "none matching, 50% not matching"),
    }
    assert "\N{MULTIPLICATION SIGN}: no ticket is shown to match" in figure.caption
    low, high = figure.axes[0].get_ylim()
    assert low < 250
    assert high > 4000


def test_levels_without_weights_and_many_values_are_drawn():
    records = [
        {**r, "density": 0.0 if r["level"] == 2 else r["density"]}
        for r in sized(dict.fromkeys(range(1, 21), 0.0))
    ]
    (panel,) = sparsest_tickets(records, AXES).axes
    assert 0 < panel.get_ylim()[0] < 1, "no weights have no place on a log scale; one weight has"
    assert len(panel.get_xticks()) < 20
    assert not panel.texts


def test_each_depth_has_a_line_and_each_other_axis_a_panel():
    records = sized({1: 0.0, 2: 0.0, 3: 0.0}, depths=(1, 4))
    both = [{**r, "model.init": init} for r in records for init in ("a", "b")]
    figure = sparsest_tickets(both, [*AXES, "model.init"])
    assert [panel.get_label() for panel in figure.axes] == ["model.init=a", "model.init=b"]
    assert {v.line for v in figure.values} == {"depth 1", "depth 4"}


def test_width_depth_and_data_come_before_other_axes_of_numbers():
    records = [
        {
            "method": "imp", "train.lr": i, "model.depth": i, "model.width": i % 2,
            "rewind": i, "prune.fraction": i / 10, "data.split_seed": i,
        }
        for i in range(3)
    ]  # fmt: skip
    axes = [
        "rewind",
        "prune.fraction",
        "data.split_seed",
        "train.lr",
        "model.depth",
        "model.width",
        "seed",
    ]
    assert x_and_line(records, axes) == ("model.depth", "model.width")
    assert x_and_line(records, ["rewind", "prune.fraction", "train.lr"]) == ("train.lr", None)


@pytest.mark.parametrize(
    ("records", "axes"),
    [
        (study(), ["seed"]),
        (sized({1: 0.0, 2: 0.0}), AXES),
        ([r for r in sized({1: 0.0, 2: 0.0, 4: 0.0}) if r["seed"] < 2], AXES),
        ([{**r, "train.lr": r["model.width"]} for r in sized({1: 0, 2: 0, 4: 0})],
         [*AXES, "train.lr"]),
        ([], AXES),
    ],
    ids=["no axis", "two widths", "two seeds", "each width another rate", "no records"],
)  # fmt: skip
def test_a_study_without_three_values_that_are_judged_has_no_such_figure(records, axes):
    assert sparsest_tickets(records, axes) is None
