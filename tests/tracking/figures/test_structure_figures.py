import numpy as np
import pytest
from hand_made import study
from structured import AXES, NARROWING, TRAINED_AXES, costs, trained

from tracking.figures.methods import by_method
from tracking.figures.structures.cost import structures
from tracking.figures.structures.search_cost import search_cost
from tracking.figures.structures.similarity import similarity
from tracking.figures.structures.similarity_matrix import similarity_matrix

pytestmark = pytest.mark.slow

FIGURES = (structures, search_cost, similarity, similarity_matrix)


def points(panel):
    """(x, y) of the points, lines of a single marker each, in the order of the table's rows."""
    found = [line for line in panel.lines if line.get_marker() not in ("", "None", None)]
    return [
        (x, y) for line in found for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def titles(figure):
    return [panel.get_title(loc="left") for panel in figure.axes]


@pytest.mark.parametrize("draw", FIGURES)
def test_studies_without_structures_have_no_such_figure(draw):
    assert draw(study(), ["seed"]) is None


@pytest.mark.parametrize("draw", [similarity, similarity_matrix])
def test_similarity_needs_rewind_points_and_two_seeds(draw):
    assert draw(costs(), AXES) is None
    assert draw(trained({n: rows[:1] for n, rows in NARROWING.items()}), TRAINED_AXES) is None  # fmt: skip


@pytest.mark.parametrize("draw", [structures, search_cost, by_method])
def test_structures_by_rewind_point_have_figures_of_their_own(draw):
    assert draw(trained(NARROWING), TRAINED_AXES) is None


def test_structures_replace_the_figure_of_methods():
    assert by_method(costs(), AXES) is None


def test_accuracies_are_drawn_against_each_measured_cost():
    apart = [
        {**r, "kept_parameters": 20 + 10 * (r["method"] == "gates")} if r["level"] else r
        for r in costs()
    ]
    figure = structures(apart, AXES)
    assert titles(figure) == ["FLOPs, all 50%, 3 seeds", "parameters, 3 seeds"]
    by_parameters = points(figure.axes[1])
    assert [x for x, _ in by_parameters] == pytest.approx([40, 40, 60, 60, 40, 40])
    assert [y for _, y in by_parameters] == pytest.approx([95.1, 95.0, 94.1, 94.0, 93.1, 93.0])
    timed = [
        {**r, "latency_ms": 3.0 if r["level"] else 4.0, "dense_latency_ms": 4.0} for r in apart
    ]
    assert titles(structures(timed, AXES))[2] == "measured latency, all 75%, 3 seeds"


def test_points_of_equal_cost_are_side_by_side_in_the_tables_order():
    (panel, _) = structures(costs(), AXES).axes
    places = [x for x, _ in points(panel)]
    assert places == sorted(set(places))
    assert len(places) == 6


def test_structures_that_hardly_learn_are_numbers_at_the_lower_edge():
    broken = [
        {**r, "final_test_accuracy": 0.1 if r["branch"] == "ticket" else 0.12}
        if (r["method"], r["level"]) == ("random", 1)
        else r
        for r in costs()
    ]
    for panel in structures(broken, AXES).axes:
        assert len(points(panel)) == 4
        assert [text.get_text() for text in panel.texts] == ["12\N{DOWNWARDS ARROW}"]
        assert panel.get_ylim()[0] > 80
        left, right = panel.get_xlim()
        assert left <= panel.texts[0].get_position()[0] <= right
    assert all(not panel.texts for panel in structures(costs(), AXES).axes)


def test_search_cost_is_a_share_of_the_dense_training_and_0_where_it_is_free():
    (panel,) = search_cost(costs(), AXES).axes
    places = [x for x, _ in points(panel)]
    assert places[2:] == pytest.approx([0.05, 0.05, 1, 1])
    assert places[0] == places[1] == panel.get_xticks()[0]
    panel.figure.canvas.draw()
    assert panel.get_xticklabels()[0].get_text() == "0"
    free = [{**r, "search_flops": 0.0} for r in costs()]
    assert search_cost(free, AXES) is None


def test_searches_of_equal_cost_lie_side_by_side():
    equal = [{**r, "search_flops": 50.0 * (r["level"] > 0)} for r in costs()]
    (panel,) = search_cost(equal, AXES).axes
    random, gates, slimming = [x for x, _ in points(panel)][::2]
    assert (random < gates < slimming, gates) == (True, pytest.approx(0.05))


def test_similarity_between_seeds_is_drawn_by_rewind_point_with_its_interval():
    both = trained(NARROWING) + trained(dict.fromkeys(NARROWING, [(1, 2, 3)] * 4), "gates")
    figure = similarity(both, TRAINED_AXES)
    (panel,) = figure.axes
    drawn = points(panel)
    assert [round(x) for x, _ in drawn] == [0, 1, 2, 0, 1, 2]
    assert [y for _, y in drawn[3:]] == [1, 1, 1]
    assert drawn[2][1] == 1
    assert [tick.get_text() for tick in panel.get_xticklabels()] == list(NARROWING)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["slimming", "gates"]
    bars = [x for x in panel.lines if x.get_marker() == "None" and len(set(x.get_xdata())) == 1]
    assert len(bars) == 6
    assert all(-1 <= end <= 1 for bar in bars for end in bar.get_ydata())


def test_the_matrix_has_a_square_for_each_pair_and_ones_on_its_diagonal():
    figure = similarity_matrix(trained(NARROWING), TRAINED_AXES)
    panel = figure.axes[0]
    (image,) = panel.images
    matrix = np.asarray(image.get_array())
    assert matrix.shape == (12, 12)
    assert (matrix.diagonal() == 1).all()
    assert (matrix == matrix.T).all()
    assert [tick.get_text() for tick in panel.get_yticklabels()] == list(NARROWING)
    assert [tick.get_text() for tick in panel.get_yticklabels(minor=True)] == list("0123") * 3
    written = [text.get_text() for text in panel.texts]
    assert written[1:5] == ["90.0", "91.0", "92.0", "93.0"]


def test_a_structure_without_correlations_is_left_blank():
    outputs = {"0ep": [(5, 5, 5), (1, 2, 3)], "1ep": [(1, 2, 3), (3, 1, 2)]}
    (image,) = similarity_matrix(trained(outputs), TRAINED_AXES).axes[0].images
    assert np.ma.getmaskarray(image.get_array())[0].all()


def test_methods_have_maps_of_their_own():
    both = trained(NARROWING) + trained(NARROWING, "gates")
    figure = similarity_matrix(both, TRAINED_AXES)
    assert titles(figure)[:2] == ["slimming", "gates"]
