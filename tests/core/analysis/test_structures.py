import math
from itertools import combinations

import pytest
from hand_made import record, study
from structured import AXES, NARROWING, TRAINED_AXES, costs, structured, trained

from lth_core.analysis.rewinds import MOST_LEVELS
from lth_core.analysis.structures import (
    only_structures,
    over_pairs,
    similarities,
    similarity,
    structure_tables,
)


def similar(outputs, axes=TRAINED_AXES):
    (found,) = similarities(trained(outputs), axes)
    return found


def test_structures_of_equal_seeds_have_a_correlation_of_exactly_1():
    found = similar({"0ep": [(3, 7, 9), (3, 7, 9)], "1ep": [(1, 2, 9), (7, 3, 9)]})
    assert found.matrix[0][1] == found.matrix[1][0] == 1
    assert found.points[0].between_seeds.mean == 1
    assert all(row[i] == 1 for i, row in enumerate(found.matrix))


def test_correlations_are_those_worked_out_by_hand():
    found = similar({"0ep": [(1, 2, 3), (3, 1, 2)], "1ep": [(2, 4, 6), (3, 2, 1)]})
    assert [(s.point, s.seed) for s in found.structures] == [
        ("0ep", 0), ("0ep", 1), ("1ep", 0), ("1ep", 1),
    ]  # fmt: skip
    # Deviations (-1, 0, 1) and (1, -1, 0): -1 / 2. The doubled structure has the same shape.
    expected = [[1, -0.5, 1, -1], [-0.5, 1, -0.5, 0.5], [1, -0.5, 1, -1], [-1, 0.5, -1, 1]]
    assert found.matrix == [pytest.approx(row) for row in expected]


def test_shares_are_of_the_dense_network_so_layers_of_all_widths_count_alike():
    records = trained({"0ep": [(1, 2, 3), (3, 1, 2)], "1ep": [(1, 2, 3), (3, 1, 2)]})
    wide = {"conv1": 10, "conv2": 10, "conv3": 100, "output": 4}
    for r in records:
        r["layer_outputs"] = {
            name: 10 * n if name == "conv3" else n for name, n in r["layer_outputs"].items()
        }
    (found,) = similarities(records, TRAINED_AXES)
    assert next(r for r in records if r["branch"] == "dense")["layer_outputs"] == wide
    assert found.structures[0].kept == pytest.approx((0.1, 0.2, 0.3))
    assert found.matrix[0][1] == pytest.approx(-0.5)


def test_a_structure_with_equal_shares_has_no_correlation_rather_than_nan():
    found = similar({"0ep": [(5, 5, 5), (5, 5, 5), (1, 2, 3)], "1ep": [(1, 2, 3), (3, 2, 1)]})
    assert found.matrix[0][:3] == found.matrix[1][:3] == [None, None, None]
    assert found.matrix[2][2] == 1
    assert found.points[0].between_seeds is None
    assert all(v is None or math.isfinite(v) for row in found.matrix for v in row)


def test_layers_that_no_structure_narrows_are_left_out():
    found = similar({"0ep": [(10, 2, 3), (10, 1, 2)], "1ep": [(10, 2, 3), (10, 1, 2)]})
    assert found.layers == ("conv2", "conv3")


def test_a_layer_that_one_method_alone_narrows_counts_for_all_of_them():
    records = trained({"0ep": [(10, 2, 3), (10, 1, 2)], "1ep": [(10, 2, 3), (10, 1, 2)]})
    records += trained({"0ep": [(1, 2, 3), (2, 1, 2)], "1ep": [(1, 2, 3), (2, 1, 2)]}, "gates")
    assert {found.layers for found in similarities(records, TRAINED_AXES)} == {
        ("conv1", "conv2", "conv3")
    }


def test_spread_cost_and_accuracy_are_those_of_each_points_structures():
    found = similar(NARROWING)
    assert [point.search_flops for point in found.points] == [0, 100, 200]
    assert [s.parameters for s in found.points[0].structures] == [0.4, 0.42, 0.44, 0.46]
    assert {s.flops for s in found.structures} == {0.5}
    assert [s.accuracy for s in found.points[2].structures] == pytest.approx(
        [0.9, 0.91, 0.92, 0.93]
    )


def test_structures_are_compared_with_the_first_one_of_their_own_seed():
    found = similar({"0ep": [(1, 2, 3), (3, 1, 2)], "1ep": [(1, 2, 3), (1, 3, 2)]})
    first, second = (point.with_first for point in found.points)
    assert (first.n, first.mean) == (2, 1)
    assert second.mean == pytest.approx((1 - 1) / 2)
    assert similar({**NARROWING, "9ep": [(5, 5, 5)] * 4}).points[-1].with_first is None


def test_structures_come_from_scratch_where_no_ticket_is_trained():
    records = [r for r in trained(NARROWING) if r["branch"] != "ticket"]
    (found,) = similarities(records, TRAINED_AXES)
    assert found.matrix == similar(NARROWING).matrix


def test_one_seed_or_one_rewind_point_has_no_similarity():
    assert similarities(trained({"0ep": [(1, 2, 3)], "1ep": [(1, 2, 3)]}), TRAINED_AXES) == []
    assert similarities(trained({"0ep": [(1, 2, 3), (3, 1, 2)]}), TRAINED_AXES) == []
    assert similarities(study(), ["seed"]) == []


# Interval over pairs of seeds


def test_the_interval_leaves_out_a_seed_with_all_of_its_pairs():
    found = over_pairs({(0, 1): 0.1, (0, 2): 0.4, (1, 2): 0.7})
    assert (found.n, found.mean) == (3, pytest.approx(0.4))
    # Without a seed: 0.7, 0.4, 0.1. Squares 0.09 + 0 + 0.09, times 2/3; t(2) = 4.3027.
    half = 4.302653 * math.sqrt(2 / 3 * 0.18)
    assert (found.low, found.high) == (pytest.approx(0.4 - half), pytest.approx(0.4 + half))


def test_one_pair_has_no_interval():
    found = over_pairs({(0, 1): 0.3})
    assert (found.n, found.mean, found.low, found.high) == (2, 0.3, None, None)


@pytest.mark.parametrize("noise", [0.3, 30])
def test_about_95_percent_of_intervals_hold_the_mean_correlation(noise):
    import numpy as np

    stream = np.random.default_rng(0)
    shared = stream.normal(size=8)

    def correlations(n):
        return np.corrcoef(shared + noise * stream.normal(size=(n, 8)))

    truth = correlations(1000)[np.triu_indices(1000, 1)].mean()
    hits = []
    for _ in range(300):
        drawn = correlations(5)
        found = over_pairs({(i, j): drawn[i, j] for i, j in combinations(range(5), 2)})
        hits.append(found.low <= truth <= found.high)
    assert 0.92 <= sum(hits) / 300 <= 1


# Trend


def test_similarity_that_grows_with_training_is_a_yes():
    grown = {
        "0ep": [(1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 2, 3), (3, 1, 2), (2, 3, 1)],
        "1ep": [(1, 2, 3)] * 6,
    }
    trend = similar(grown).trend
    # Three pairs of equal ones and twelve of -1/2: from -0.2 to 1.
    assert (trend.rise.mean, trend.first, trend.last) == (pytest.approx(1.2), "0ep", "1ep")
    assert trend.grows is True
    assert similar(dict(zip(grown, reversed(grown.values()), strict=True))).trend.grows is False


def test_the_rise_is_that_of_the_line_of_least_squares_from_first_to_last_point():
    found = similar(NARROWING)
    means = [point.between_seeds.mean for point in found.points]
    assert found.trend.rise.mean == pytest.approx(means[2] - means[0])  # of three points
    assert (found.trend.points, found.trend.rise.n) == (3, 4)


def test_a_rise_whose_interval_contains_0_is_undecided():
    trend = similar({"0ep": NARROWING["0ep"], "1ep": NARROWING["1ep"]}).trend
    assert trend.rise.low < 0 < trend.rise.mean < trend.rise.high
    assert trend.grows is None


def test_two_seeds_are_undecided():
    trend = similar({"0ep": [(1, 2, 3), (3, 2, 1)], "1ep": [(1, 2, 3), (1, 2, 3)]}).trend
    assert (trend.rise.mean, trend.grows) == (pytest.approx(2), None)


def test_a_seed_without_a_structure_at_a_point_is_no_part_of_the_trend():
    lost = [r for r in trained(NARROWING) if (r["seed"], r["rewind"]) != (3, "1ep")]
    (found,) = similarities(lost, TRAINED_AXES)
    assert (found.trend.rise.n, found.trend.points) == (3, 3)


def test_points_without_a_similarity_are_no_part_of_the_trend():
    found = similar({**NARROWING, "9ep": [(5, 5, 5)] * 4})
    assert (found.trend.last, found.trend.points) == ("5ep", 3)


# Costs


def rows_of(records, axes=AXES):
    (table,) = structure_tables(records, axes)
    return {row.variant.name: row for row in table.rows}


def test_the_factor_is_the_dense_training_over_the_search():
    rows = rows_of(costs())
    assert {name: row.factor for name, row in rows.items() if row.variant.branch == "ticket"} == {
        "random": None, "gates": 20, "imp-slimming": 1,
    }  # fmt: skip
    assert rows["gates scratch_e"].factor == 20
    assert (rows["gates"].search_flops, rows["gates"].search_seconds) == (50, 0.5)


def test_shares_are_of_the_dense_networks_costs_where_they_are_measured():
    rows = rows_of(costs())
    means = {cost: share.mean for cost, share in rows["gates"].shares.items()}
    assert means == pytest.approx({"flops": 0.5, "parameters": 0.4})
    timed = costs(latency_ms=3.0, dense_latency_ms=4.0)
    assert rows_of(timed)["gates"].shares["latency"].mean == 0.75
    assert rows_of(timed)["gates"].latency_ms == 3
    unknown = costs(latency_ms=None, dense_latency_ms=None)
    assert "latency" not in rows_of(unknown)["gates"].shares


def test_accuracies_are_summarized_over_seeds():
    accuracy = rows_of(costs())["gates"].accuracy
    assert (accuracy.n, accuracy.mean) == (3, pytest.approx(0.941))
    assert accuracy.high - accuracy.mean == pytest.approx(4.302653 * 0.001 / math.sqrt(3))


def test_budgets_of_an_axis_are_rows_of_one_table_costly_first():
    budgets = [
        {**r, "prune.budget.flops": b, "trial": f"{r['trial']}-{b}",
         "flops": 200 * b if r["branch"] != "dense" else 200}
        for b in (0.2, 0.5) for r in costs()
    ]  # fmt: skip
    (table,) = structure_tables(budgets, [*AXES, "prune.budget.flops"])
    gates = [row for row in table.rows if row.variant.name == "gates"]
    assert [row.shares["flops"].mean for row in gates] == pytest.approx([0.5, 0.2])
    assert [row.accuracy.n for row in gates] == [3, 3]


def test_of_many_budgets_the_one_nearest_to_half_is_shown():
    budgets = [
        {**r, "prune.budget.flops": b, "trial": f"{r['trial']}-{b}",
         "flops": 20 * b if r["branch"] != "dense" else 200}
        for b in range(1, 10) for r in costs()
    ]  # fmt: skip
    (table,) = structure_tables(budgets, [*AXES, "prune.budget.flops"])
    gates = [row.shares["flops"].mean for row in table.rows if row.variant.name == "gates"]
    assert gates == sorted(gates, reverse=True)
    assert 0.5 in gates
    assert len(gates) in (MOST_LEVELS, MOST_LEVELS + 1)


def test_branches_that_are_not_compared_have_no_row():
    about = {"method": "gates", "when": "gates", "prune.score": "gates", "trial": "gates-0"}
    more = structured(0, "gates", 0.1, **about)
    assert rows_of([*costs(), more]).keys() == rows_of(costs()).keys()


def test_methods_that_remove_no_channels_are_left_out():
    mixed = [*costs(), record(0, "ticket", 1, 0.9, **{"prune.score": "magnitude"})]
    assert "imp" not in rows_of(mixed)
    assert only_structures(costs(), AXES)
    assert not only_structures(mixed, AXES)
    assert structure_tables(study(), ["seed"]) == []
    assert not only_structures(study(), ["seed"])


def test_a_study_of_rewind_points_is_compared_by_similarity():
    assert structure_tables(trained(NARROWING), TRAINED_AXES) == []
    assert only_structures(trained(NARROWING), TRAINED_AXES)


def test_similarity_of_two_structures_needs_several_layers():
    (found,) = similarities(
        trained({"0ep": [(1, 10, 10), (2, 10, 10)], "1ep": [(1, 10, 10), (2, 10, 10)]}),
        TRAINED_AXES,
    )
    assert similarity(*found.structures[:2]) is None
