from collections.abc import Callable
from math import log
from typing import Any

import pytest

from lth_core.errors import SpecError
from sweeps.studies.axes import SpecReader, axis_fields, base_values, combinations, samples, spec_of
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Range, Study


def study(axes: dict[str, Any], **search: Any) -> Study:
    return parse_study({"name": "x", "axes": axes, "search": search})


def test_last_axis_varies_fastest() -> None:
    assert combinations(study({"seed": [0, 1], "levels": [3, 4, 5]})) == [
        {"seed": seed, "levels": levels} for seed in (0, 1) for levels in (3, 4, 5)
    ]


def test_study_without_axes_is_one_cell() -> None:
    assert combinations(study({})) == [{}]


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({"low": 0, "high": 4, "step": 2}, [0, 2, 4]),
        ({"low": 0, "high": 5, "step": 2}, [0, 2, 4]),
        ({"low": 1, "high": 1, "step": 3}, [1]),
        ({"low": 0.1, "high": 0.7, "step": 0.2}, [0.1, 0.3, 0.5, 0.7]),
        ({"low": 1, "high": 10, "count": 4}, [1, 4, 7, 10]),
        ({"low": 0, "high": 1, "count": 3}, [0, 0.5, 1]),
        ({"low": 0.001, "high": 1, "count": 4, "log": True}, [0.001, 0.01, 0.1, 1]),
    ],
)
def test_range_is_spaced_ends_included(said: dict[str, Any], values: list[float]) -> None:
    got = Range(**said).values()
    assert got == values


def test_range_of_whole_numbers_stays_whole() -> None:
    assert all(type(n) is int for n in Range(low=0, high=4, step=2).values())
    assert all(type(n) is int for n in Range(low=0, high=4, count=3).values())
    assert Range(low=0, high=23, count=24).values() == list(range(24))
    assert [type(n) for n in Range(low=0, high=1, step=0.5).values()] == [int, float, int]
    assert [
        t.seed
        for t in map(spec_from, combinations(study({"seed": {"low": 3, "high": 5, "step": 1}})))
    ] == [3, 4, 5]


def spec_from(fields: dict[str, Any]) -> Any:
    return spec_of(base_values(study({})), fields)


def test_bundled_axis_varies_its_fields_together() -> None:
    pace = [{"prune.fraction": 0.2, "levels": 15}, {"prune.fraction": 0.5, "levels": 5}]
    bundled = study({"pace": pace, "seed": [0, 1]})
    assert combinations(bundled) == [{**point, "seed": seed} for point in pace for seed in (0, 1)]
    assert axis_fields(bundled) == ["prune.fraction", "levels", "seed"]


def test_what_a_bundled_value_leaves_out_is_as_in_the_base() -> None:
    ways = [{"seed": 7, "prune.fraction": 0.5}, {"levels": 2}]
    assert combinations(study({"way": ways})) == [
        {"seed": 7, "prune.fraction": 0.5, "levels": study({}).base.levels},
        {"seed": study({}).base.seed, "prune.fraction": study({}).base.prune.fraction, "levels": 2},
    ]


def test_bundled_values_are_mappings_of_fields_that_the_base_has() -> None:
    with pytest.raises(SpecError, match=r"^axes\.both: must have only mappings of fields"):
        combinations(study({"both": [{"seed": 1}, 3]}))
    with pytest.raises(SpecError, match=r"^axes\.both: must set prune\.layer_fractions\.fc1 in"):
        combinations(study({"both": [{"prune.layer_fractions.fc1": 0.1}, {"seed": 1}]}))


def test_mapping_field_takes_mappings_as_its_values() -> None:
    values = [{"fc*": 0.1}, {"fc*": 0.2, "fc1": 0.5}]
    found = [
        spec_from(f).prune.layer_fractions
        for f in combinations(study({"prune.layer_fractions": values}))
    ]
    assert found == values
    (one,) = combinations(study({"prune.layer_fractions.fc1": [0.3]}))
    assert spec_from(one).prune.layer_fractions == {"fc1": 0.3}
    nested = {"model.name": ["resnet-8"], "prune.layer_fractions.stages.1_1.conv1": [0.3]}
    (dotted,) = combinations(study(nested))
    assert spec_from(dotted).prune.layer_fractions == {"stages.1_1.conv1": 0.3}


def test_axis_fields_name_the_sampled_ones_too_each_once() -> None:
    both = study({"seed": [0, 1]}, algorithm="random", space={"train.lr": [0.1], "seed": [3]})
    assert axis_fields(both) == ["seed", "train.lr"]


def test_spaceless_range_on_the_grid_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^axes\.seed: needs count or step on a grid"):
        combinations(study({"seed": {"low": 0, "high": 3}}))


def test_cell_leaves_the_base_alone() -> None:
    base = base_values(study({}))
    before = repr(base)
    assert (
        spec_of(base, {"prune.fraction": 0.9, "prune.layer_fractions.fc1": 0.1}).prune.fraction
        == 0.9
    )
    assert repr(base) == before


def test_wrong_value_is_named_as_an_axis_only_where_an_axis_set_it() -> None:
    with pytest.raises(SpecError, match=r"^axes\.levels: must be at least 0, but got -1"):
        spec_from({"levels": -1})
    with pytest.raises(SpecError, match=r"^base\.rewind: must not lie past the end"):
        spec_of({**base_values(study({})), "rewind": "50it"}, {"train.steps": "40it"})


# Many cells of one base

CELLS: list[dict[str, Any]] = [
    {"seed": 1, "prune.fraction": 0.3},
    {"seed": 2, "prune.fraction": 0.3},
    {"seed": "3", "prune.fraction": 0.3},
    {"seed": 3.0, "data.root": "~/elsewhere"},
    {"prune.layer_fractions": {"fc*": 0.1}, "prune.layer_fractions.fc1": 0.2, "rewind": "5%"},
    {"prune.layer_fractions.fc1": 0.2, "prune.layer_fractions": {"fc*": 0.1}},
    {"levels": 3, "branches": ["ticket"], "train.steps": "2ep", "model.name": "lenet-300-100"},
]


@pytest.mark.parametrize("first", range(len(CELLS)))
def test_cells_read_together_are_those_read_one_by_one(first: int) -> None:
    base = base_values(study({}))
    reader = SpecReader(base)
    for cell in [*CELLS[first:], *CELLS[:first]]:
        assert reader.spec(cell) == spec_of(base, cell), cell


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ({"seed": -1}, r"^axes\.seed: must be at least 0, but got -1"),
        ({"seed": 1, "prune.fraction": 2}, r"^axes\.prune\.fraction: must be a fraction in"),
        ({"seed": 1, "levels": -1}, r"^axes\.levels: must be at least 0"),
        ({"prune.densities": [0.5]}, r"^base\.levels: must be 1, the number of prune\.densities"),
        ({"model.name": "nosuch"}, r"^axes\.model\.name: is not a known model, but got 'nosuch'"),
        ({"train.steps": "40it", "rewind": "50it"}, r"^axes\.rewind: must not lie past the end"),
        ({"prune.ignore": ["nosuch"]}, r"^axes\.prune\.ignore: must match a prunable layer"),
        ({"train.evaluate_every": "0.001ep"}, r"^axes\.train\.evaluate_every: must be more than 0"),
    ],
)
def test_wrong_cell_among_others_is_refused_as_it_is_alone(
    cell: dict[str, Any], complaint: str
) -> None:
    base = base_values(study({}))
    reader = SpecReader(base)
    reader.spec({"seed": 1, "prune.fraction": 0.3})
    for _ in range(2):  # what was refused is not kept
        with pytest.raises(SpecError, match=complaint) as refused:
            reader.spec(cell)
        with pytest.raises(SpecError) as alone:
            spec_of(base, cell)
        assert str(refused.value) == str(alone.value)


# Random search

SPACE = {
    "train.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "prune.fraction": {"low": 0.1, "high": 0.5},
    "levels": {"low": 1, "high": 4, "step": 1},
    "model.width": [0.5, 1, 2],
}


@pytest.fixture
def sampled() -> Callable[[int], list[dict[str, Any]]]:
    def draw(seed: int, trials: int = 200) -> list[dict[str, Any]]:
        return list(samples(study({}, algorithm="random", trials=trials, seed=seed, space=SPACE)))

    return draw


def test_samples_are_the_same_at_each_call_and_others_for_another_seed(
    sampled: Callable[..., list[dict[str, Any]]],
) -> None:
    assert sampled(0) == sampled(0)
    assert not any(a == b for a, b in zip(sampled(0), sampled(1), strict=True))


def test_more_trials_begin_with_the_same_samples(
    sampled: Callable[..., list[dict[str, Any]]],
) -> None:
    assert sampled(0, trials=50) == sampled(0)[:50]


def test_samples_lie_in_their_space_and_fill_it(
    sampled: Callable[..., list[dict[str, Any]]],
) -> None:
    drawn = sampled(0)
    assert {s["levels"] for s in drawn} == {1, 2, 3, 4}
    assert {s["model.width"] for s in drawn} == {0.5, 1, 2}
    assert all(0.1 <= s["prune.fraction"] <= 0.5 for s in drawn)
    shares = [(log(s["train.lr"]) - log(1e-4)) / log(1e3) for s in drawn]
    assert 0 <= min(shares) < 0.05
    assert 0.95 < max(shares) <= 1
    assert 0.4 < sum(shares) / len(shares) < 0.6  # even on the logarithmic scale


def test_axis_over_when_takes_the_fields_of_each_and_the_defaults_of_the_others() -> None:
    ways = [
        {"prune.when": "before", "prune.score": "synflow", "prune.rounds": 3},
        {"prune.when": "during", "prune.grow": "random"},
        {"prune.one_shot": True},
    ]
    specs = map(spec_from, combinations(study({"way": ways})))
    before, during, after = (spec.prune for spec in specs)
    assert (before.when, before.rounds, before.schedule) == ("before", 3, "exponential")
    assert (during.when, during.grow, during.schedule) == ("during", "random", "constant")
    assert (after.when, after.one_shot) == ("after", True)


def test_field_of_another_when_is_refused_by_its_path() -> None:
    rule = "needs prune.when: during, but got 'random'"
    with pytest.raises(SpecError, match=rf"^base\.prune\.grow: {rule}"):
        parse_study({"name": "x", "base": {"prune": {"when": "before", "grow": "random"}}})
    with pytest.raises(SpecError, match=rf"^axes\.prune\.grow: {rule}"):
        spec_from({"prune.grow": "random"})
