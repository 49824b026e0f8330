"""How many weights a layer keeps where the scores do not say: ERK, and like another score."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_nets import OF_WEIGHTS, batch, counts, mlp, prunable_network, pruned

from lth_core.masks import kept, nested, ones
from lth_core.prune.network import from_weights
from lth_core.prune.scope import erk, in_proportion

SHAPES = {"conv1": (16, 3, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (60, 128), "output": (10, 60)}
SIZES = [prod(shape) for shape in SHAPES.values()]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[float], list[int], int]:
    n = draw(st.integers(1, 6))
    shares = draw(st.lists(st.floats(0.01, 100), min_size=n, max_size=n))
    most = draw(st.lists(st.integers(0, 50), min_size=n, max_size=n))
    return shares, most, draw(st.integers(0, sum(most)))


@given(problems())
def test_proportion_gives_exactly_the_total_and_to_none_above_its_most(
    problem: tuple[list[float], list[int], int],
) -> None:
    shares, most, total = problem
    given_ = in_proportion(shares, most, total)
    assert sum(given_) == total
    assert all(0 <= count <= limit for count, limit in zip(given_, most, strict=True))


@given(problems())
def test_layer_below_its_limit_has_its_proportion_rounded(
    problem: tuple[list[float], list[int], int],
) -> None:
    """One scale fits all: count = scale x share, rounded up or down, or the most there is."""
    shares, most, total = problem
    trio = list(zip(shares, most, in_proportion(shares, most, total), strict=True))
    least = max([(count - 1) / share for share, _, count in trio if count] or [0.0])
    greatest = min([(count + 1) / share for share, limit, count in trio if count < limit] or [1e9])
    assert least <= greatest * (1 + 1e-9)


def by_erk(density: float) -> list[float]:
    """Densities by Evci et al. 2020: raised together, those that pass 1 made dense."""
    raw = [sum(shape) / prod(shape) for shape in SHAPES.values()]
    dense: set[int] = set()
    while True:
        left = density * sum(SIZES) - sum(SIZES[i] for i in dense)
        scale = left / sum(raw[i] * SIZES[i] for i in range(4) if i not in dense)
        found = [1.0 if i in dense else scale * raw[i] for i in range(4)]
        if max(found) <= 1:
            return found
        dense |= {i for i in range(4) if found[i] > 1}


@pytest.mark.parametrize("density", [0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 1.0])
def test_erk_densities_follow_the_published_formula(density: float) -> None:
    total = round(density * sum(SIZES))
    found = erk(SHAPES, SIZES, total)
    assert sum(found) == total
    expected = [share * size for share, size in zip(by_erk(density), SIZES, strict=True)]
    assert all(abs(count - value) <= 1.5 for count, value in zip(found, expected, strict=True))


def test_layer_that_erk_would_overfill_stays_dense_and_the_others_share_the_rest() -> None:
    """By shares of 25, 54, 188, 70: the output is full from 2,889 weights in all, conv1 5,214."""
    assert erk(SHAPES, SIZES, 2880)[3] < 600
    assert erk(SHAPES, SIZES, 5200)[0] < 432
    assert erk(SHAPES, SIZES, 5200)[3] == 600
    counts_ = erk(SHAPES, SIZES, 8000)
    assert (counts_[0], counts_[3]) == (432, 600)
    densities = [count / size for count, size in zip(counts_, SIZES, strict=True)]
    formula = [sum(shape) / prod(shape) for shape in SHAPES.values()]
    assert densities[1] / densities[2] == pytest.approx(formula[1] / formula[2], rel=0.01)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9])
def test_erk_over_levels_is_nested_exact_and_the_one_shot_share(fraction: float) -> None:
    """Also once a layer has fewer weights left than rows."""
    stream = torch.Generator().manual_seed(0)
    state = {f"{name}.weight": torch.randn(s, generator=stream) for name, s in SHAPES.items()}
    mask = ones_of = {name: torch.ones_like(w, dtype=torch.bool) for name, w in state.items()}
    while kept(mask) > 10:
        left = kept(mask)
        before, mask = mask, pruned(from_weights(state, mask), scope="erk", fraction=fraction)
        assert nested(mask, before)
        assert kept(mask) == left - round(fraction * left)
        once = erk(SHAPES, [m.numel() for m in ones_of.values()], kept(mask))
        assert all(abs(a - b) <= 1 for a, b in zip(counts(mask), once, strict=True))


def test_erk_of_rows_has_the_density_of_erk_of_weights() -> None:
    shapes = {"fc1": (100, 400), "fc2": (200, 100), "output": (10, 200)}
    rows = erk(shapes, [100, 200, 10], 31, "neurons")
    densities = [n / shape[0] for n, shape in zip(rows, shapes.values(), strict=True)]
    formula = [sum(shape) / prod(shape) for shape in shapes.values()]
    assert sum(rows) == 31
    scale = densities[1] / formula[1]
    assert all(
        abs(d - scale * f) <= 1.5 / shape[0]
        for d, f, shape in zip(densities, formula, shapes.values(), strict=True)
    )


def test_erk_prunes_rows_by_their_own_shares() -> None:
    shapes = {"fc1": (10, 90), "fc2": (40, 10), "output": (5, 40)}
    state = {f"{name}.weight": torch.rand(shape) + 1 for name, shape in shapes.items()}
    mask = pruned(from_weights(state), structure="neurons", scope="erk", fraction=0.7)
    rows = [int(m.any(1).sum()) for m in mask.values()]
    # Of 50 rows 15 stay, by shares of 100 / 90 and 50 / 10; the output is not in it.
    assert rows == [3, 12, 5]


def test_what_rounding_leaves_over_goes_where_it_took_most() -> None:
    assert in_proportion([13, 18, 9], [9, 9, 9], 4) == [1, 2, 1]  # of 1.3, 1.8, 0.9


MODEL = mlp(12, 30, 20, 4)
X, Y = batch((12,), 4, n=20)


@pytest.mark.slow
@pytest.mark.parametrize("like", sorted(OF_WEIGHTS))
@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_like_keeps_as_many_a_layer_as_the_other_score_would_globally(
    like: str, fraction: float
) -> None:
    network = prunable_network(MODEL, X, Y, initial=mlp(12, 30, 20, 4, seed=5))
    rounds = 100 if like == "synflow" else 1
    fields = {"when": "before", "fraction": fraction}
    theirs = pruned(network, score=like, scope="global", rounds=rounds, **fields)
    ours = pruned(network, score="random", scope=f"like:{like}", **fields)
    assert counts(ours) == counts(theirs)
    assert nested(ours, ones(MODEL))


def test_like_chooses_within_a_layer_by_its_own_score() -> None:
    network = prunable_network(MODEL, X, Y)
    mask = pruned(network, when="before", scope="like:snip", fraction=0.7)
    for name, m in mask.items():
        sizes = network.weights[name].abs()
        assert sizes[m].min() > sizes[~m].max()


def test_like_leaves_layers_with_a_share_of_their_own_to_it() -> None:
    network = prunable_network(MODEL, X, Y)
    own = {"output_fraction": 0.5, "layer_fractions": {"fc1": 0.1}}
    mask = pruned(network, when="before", scope="like:snip", fraction=0.8, **own)
    assert counts(mask) == [360 - 36, 600 - 480, 40]
