import pytest

from lth_core.errors import SpecError
from lth_core.prune import groups
from lth_core.spec import PruneSpec

SHAPES = {"conv1": (4, 3, 3, 3), "conv2": (8, 4, 3, 3), "fc1": (16, 32), "output": (10, 16)}
LAYERS = list(SHAPES)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [(["conv1"], 0.2), (["conv2"], 0.2), (["fc1"], 0.2), (["output"], 0.2)]),
        ({"scope": "global"}, [(LAYERS, 0.2)]),
        ({"scope": "global", "output_fraction": 0.1}, [(LAYERS[:3], 0.2), (["output"], 0.1)]),
        ({"scope": "global", "ignore": ("conv*", "output")}, [(["fc1"], 0.2)]),
        (
            {"scope": "global", "layer_fractions": {"conv*": 0.1}},
            [(["fc1", "output"], 0.2), (["conv1"], 0.1), (["conv2"], 0.1)],
        ),
        (
            {
                "scope": "global",
                "layer_fractions": {"conv2": 0.5, "conv*": 0.1},
                "ignore": ["output"],
            },
            [(["fc1"], 0.2), (["conv1"], 0.1), (["conv2"], 0.5)],
        ),
        ({"scope": "global", "output_fraction": 0.1, "ignore": LAYERS[:3]}, [(["output"], 0.1)]),
        ({"scope": "erk", "output_fraction": 0.1}, [(LAYERS[:3], 0.2), (["output"], 0.1)]),
        ({"scope": "like:snip", "ignore": ("conv1",)}, [(LAYERS[1:], 0.2)]),
        ({"structure": "channels", "scope": "global"}, [(["conv1", "conv2"], 0.2)]),
        ({"structure": "neurons", "scope": "global"}, [(["fc1"], 0.2)]),
        ({"structure": "2:4", "fraction": 0.5, "ignore": LAYERS[1:]}, [(["conv1"], 0.5)]),
    ],
)
def test_layers_are_divided_into_groups_with_their_fraction(
    fields: dict[str, object], expected: object
) -> None:
    assert groups(SHAPES, PruneSpec(**fields)) == expected


def test_output_names_the_last_layer_whatever_it_is_called() -> None:
    shapes = {"1": (8, 4), "3": (3, 8)}
    assert groups(shapes, PruneSpec(ignore=("output",))) == [(["1"], 0.2)]
    assert groups(shapes, PruneSpec(output_fraction=0.1)) == [(["1"], 0.2), (["3"], 0.1)]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ignore": ("fc9",)}, "prune.ignore"),
        ({"ignore": ("*",)}, "prune.ignore"),
        ({"layer_fractions": {"fc9": 0.1}}, "prune.layer_fractions"),
    ],
)
def test_pattern_that_names_no_layer_or_leaves_none_is_refused(
    fields: dict[str, object], field: str
) -> None:
    with pytest.raises(SpecError) as refused:
        groups(SHAPES, PruneSpec(**fields))
    assert refused.value.field == field
    assert refused.value.known == tuple(LAYERS)
