from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_nets import batch, conv_net, counts, mlp, prunable_network, pruned
from torch import Tensor

from lth_core.errors import SpecError
from lth_core.masks import Mask, State, nested
from lth_core.prune.network import from_weights

SCOPES = ("global", "layerwise", "erk", "like:magnitude")
SHAPES = {
    "conv1.weight": (6, 3, 3, 3), "conv2.weight": (9, 6, 3, 3), "fc1.weight": (12, 20),
    "fc2.weight": (7, 12), "output.weight": (4, 7),
}  # fmt: skip
UNITS = {
    "channels": {"conv1.weight": 6, "conv2.weight": 9},
    "neurons": {"fc1.weight": 12, "fc2.weight": 7},
}


def weights(seed: int = 0) -> State:
    stream = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=stream) * (1 + scale)
        for scale, (name, shape) in enumerate(SHAPES.items())
    }


def alive(mask: Mask) -> dict[str, int]:
    """Units left in each layer, each whole."""
    rows = {name: m.flatten(1) for name, m in mask.items()}
    assert all(torch.equal(r.any(1), r.all(1)) for r in rows.values())
    return {name: int(r.any(1).sum()) for name, r in rows.items()}


@pytest.mark.slow
@given(
    st.sampled_from(sorted(UNITS)), st.sampled_from(SCOPES), st.floats(0, 0.999),
    st.floats(0, 0.999), st.integers(1, 3),
)  # fmt: skip
def test_exactly_k_whole_units_are_pruned_and_in_no_other_layer(
    structure: str, scope: str, first: float, second: float, rounds: int
) -> None:
    state, mask, left = weights(), None, UNITS[structure]
    for fraction in (first, second):
        fields = {"when": "before", "rounds": rounds, "scope": scope, "structure": structure}
        after = pruned(from_weights(state, mask), fraction=fraction, **fields)
        assert mask is None or nested(after, mask)
        units = alive(after)
        assert all(units[name] == SHAPES[name][0] for name in SHAPES.keys() - left.keys())
        if scope == "layerwise":
            expected = {name: n - round(fraction * n) for name, n in left.items()}
            assert {name: units[name] for name in left} == expected
        total = sum(left.values())
        if scope != "layerwise":
            assert sum(units[name] for name in left) == total - round(fraction * total)
        mask, left = after, {name: units[name] for name in left}


def test_channels_of_the_smallest_mean_go_first() -> None:
    """The mean over a filter's weights, so that layers of larger filters do not win by size."""
    state = {name: w / w.std() for name, w in weights().items()}
    means = sorted(
        (float(filter_.abs().mean()), name, i)
        for name in UNITS["channels"] for i, filter_ in enumerate(state[name])
    )  # fmt: skip
    mask = pruned(from_weights(state), structure="channels", scope="global", fraction=0.4)
    gone = {
        (name, i) for name in UNITS["channels"] for i, m in enumerate(mask[name]) if not m.any()
    }
    assert gone == {(name, i) for _, name, i in means[:6]}
    assert {name for name, _ in gone} == set(UNITS["channels"])


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow", "movement", "random"])
def test_structures_go_with_every_kind_of_score(score: str) -> None:
    model, (x, y) = conv_net(), batch((2, 4, 4), 3)
    fields = {"structure": "channels", "scope": "global", "fraction": 0.2}
    mask = pruned(prunable_network(model, x, y), score=score, **fields)
    units = {name: int(m.flatten(1).any(1).sum()) for name, m in mask.items()}
    assert units["conv1.weight"] + units["conv2.weight"] == 7 - round(0.2 * 7)
    assert units["output.weight"] == 3


def test_ignored_layer_keeps_its_units_and_stays_out_of_the_count() -> None:
    mask = pruned(
        from_weights(weights()),
        structure="channels",
        scope="global",
        fraction=0.5,
        ignore=("conv1",),
    )
    assert alive(mask) == {"conv1.weight": 6, "conv2.weight": 5, "fc1.weight": 12,
                           "fc2.weight": 7, "output.weight": 4}  # fmt: skip


def test_layer_has_its_own_fraction_of_units() -> None:
    own = {"layer_fractions": {"fc1": 0.75}, "scope": "global", "fraction": 0.5}
    units = alive(pruned(from_weights(weights()), structure="neurons", **own))
    assert (units["fc1.weight"], units["fc2.weight"]) == (3, 3)  # round(3.5) is 4, to even


def test_equal_units_are_drawn_by_the_seed() -> None:
    tied = from_weights({name: torch.ones(shape) for name, shape in SHAPES.items()})
    fields = {"structure": "neurons", "scope": "global", "fraction": 0.5}
    one, again, other = (pruned(tied, ties, **fields)["fc1.weight"] for ties in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_network_without_such_units_is_refused() -> None:
    x, y = batch((4,), 3)
    with pytest.raises(
        SpecError, match=r"^prune\.structure: must be units that a prunable layer of"
    ):
        pruned(prunable_network(mlp(4, 5, 3), x, y), structure="channels")


def rows(values: Tensor, of: int) -> list[Tensor]:
    """Groups of a given size along the inputs, position by position; the last may be smaller."""
    along = values.movedim(1, -1).reshape(-1, values.shape[1])
    return [group for row in along for group in row.split(of)]


@pytest.mark.parametrize("shape", [(6, 8), (5, 10), (3, 1), (4, 8, 3, 3), (4, 7, 2, 2), (2, 6, 3)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (4, 4)])
def test_exactly_n_of_every_m_weights_along_the_inputs_stay_the_highest(
    shape: tuple[int, ...], n: int, m: int
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    fields = {"structure": f"{n}:{m}", "fraction": 1 - n / m}
    mask = pruned(from_weights({"fc.weight": weight, "output.weight": weight.clone()}), **fields)
    for kept in mask.values():
        for sizes, chosen in zip(rows(weight.abs(), m), rows(kept, m), strict=True):
            assert int(chosen.sum()) == min(n, len(sizes))
            assert set(sizes[chosen].tolist()) == set(
                sizes.sort().values[-int(chosen.sum()) :].tolist()
            )


def test_n_of_m_draws_among_equal_weights_by_the_seed() -> None:
    tied = from_weights({"fc.weight": torch.ones(40, 8)})
    fields = {"structure": "2:4", "fraction": 0.5}
    one, again, other = (pruned(tied, ties, **fields)["fc.weight"] for ties in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # By position, the same two of four would stay everywhere.
    assert all(10 < int(column.sum()) < 30 for column in one.T)
    assert all(int(group.sum()) == 2 for group in rows(one, 4))


def test_n_of_m_leaves_ignored_layers_dense_and_dead_weights_dead() -> None:
    shapes = {"fc1.weight": (60, 8), "output.weight": (4, 60)}
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    start = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    start["fc1.weight"][:, :3] = False
    # Dead weights score as high as the others, where magnitude would give them 0.
    network = replace(from_weights(state, start), weights=state)
    mask = pruned(network, structure="2:4", fraction=0.5, ignore=("output",))
    assert counts(mask) == [60 * (1 + 2), 240]
    assert nested(mask, start)
