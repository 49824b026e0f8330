from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lth_core import masks
from lth_core.errors import DivergedError
from lth_core.masks import Mask, State
from lth_core.prune import at_level, compounded, prune, requested_density
from lth_core.prune.network import from_weights
from lth_core.spec import PruneSpec

SHAPES = {"fc1.weight": (7, 5), "fc2.weight": (4, 7), "output.weight": (3, 4)}
shares = st.floats(0, 0.95)


def drawn(seed: int, values: int = 0) -> State:
    """Weights of each layer on a scale of its own; of few values if asked."""
    stream = torch.Generator().manual_seed(seed)
    state = {}
    for scale, (name, shape) in enumerate(SHAPES.items(), start=1):
        weight = torch.randn(shape, generator=stream) * scale
        state[name] = (
            torch.randint(-values, values + 1, shape, generator=stream).float()
            if values
            else weight
        )
    return state


def full() -> Mask:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}


def pruned(state: State, mask: Mask, seed: int = 0, **fields: object) -> Mask:
    spec = PruneSpec(**fields)  # type: ignore[arg-type]
    # The state as it is: plain would make pruned weights 0, and hide one that is looked at.
    network = replace(from_weights(state, mask), weights=state)
    return prune(network, spec, torch.Generator().manual_seed(seed))


def by_sorting(state: State, mask: Mask, names: list[str], fraction: float) -> set[tuple[str, int]]:
    """What goes from one group, by sorting all its survivors: the slow reference, without ties."""
    alive = [
        (abs(weight), name, i)
        for name in names
        for i, (weight, kept) in enumerate(
            zip(state[name].flatten().tolist(), mask[name].flatten().tolist(), strict=True)
        )
        if kept
    ]
    return {(name, i) for _, name, i in sorted(alive)[: round(fraction * len(alive))]}


def removed(before: Mask, after: Mask) -> set[tuple[str, int]]:
    return {
        (name, int(i))
        for name in before
        for i in (before[name] & ~after[name]).flatten().nonzero().squeeze(1)
    }


@given(st.integers(0, 999), shares, shares, st.sampled_from(["global", "layerwise"]))
def test_prune_agrees_with_sorting_over_two_levels(
    seed: int, first: float, second: float, scope: str
) -> None:
    mask = full()
    groups = [list(SHAPES)] if scope == "global" else [[name] for name in SHAPES]
    for level, fraction in enumerate((first, second)):
        state = drawn(seed + level)
        after = pruned(state, mask, scope=scope, fraction=fraction)
        expected = set().union(*(by_sorting(state, mask, names, fraction) for names in groups))
        assert removed(mask, after) == expected
        assert masks.nested(after, mask)
        mask = after


@pytest.mark.parametrize("scope", ["global", "layerwise"])
def test_prune_removes_exactly_k_weights_when_scores_tie(scope: str) -> None:
    tied = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    mask, sizes = full(), {name: m.numel() for name, m in full().items()}
    for _ in range(4):
        left = masks.kept(mask)
        mask = pruned(tied, mask, scope=scope, fraction=0.3)
        if scope == "global":
            assert masks.kept(mask) == left - round(0.3 * left)
        else:
            sizes = {name: n - round(0.3 * n) for name, n in sizes.items()}
            assert {name: int(m.sum()) for name, m in mask.items()} == sizes


def test_ties_are_drawn_by_the_generator() -> None:
    tied = {name: torch.ones(shape) for name, shape in SHAPES.items()}
    one, again, other = (pruned(tied, full(), seed, fraction=0.5) for seed in (1, 1, 2))
    assert masks.digest(one) == masks.digest(again) != masks.digest(other)


@pytest.mark.parametrize("scope", ["global", "layerwise"])
@pytest.mark.parametrize("dead", [0.0, -1e9, 1e9, float("nan")])
def test_scores_of_dead_weights_never_enter_a_threshold(scope: str, dead: float) -> None:
    state = drawn(3)
    mask = pruned(state, full(), scope=scope, fraction=0.5)
    with_dead_values = {name: torch.where(mask[name], value, dead) for name, value in state.items()}
    clean = pruned(state, mask, scope=scope, fraction=0.4)
    assert masks.digest(pruned(with_dead_values, mask, scope=scope, fraction=0.4)) == masks.digest(
        clean
    )
    assert masks.nested(clean, mask)


def test_layers_lose_their_own_fraction_and_ignored_ones_nothing() -> None:
    def left(**fields: object) -> list[int]:
        return [int(m.sum()) for m in pruned(drawn(0), full(), fraction=0.2, **fields).values()]

    assert left() == [28, 22, 10]  # of 35, 28, 12: 7, round(5.6), round(2.4) go
    assert left(output_fraction=0.5) == [28, 22, 6]
    assert left(ignore=("output",)) == [28, 22, 12]
    assert left(layer_fractions={"fc*": 0.5}) == [17, 14, 10]  # round(17.5) is 18, to even
    assert left(layer_fractions={"fc*": 0.5, "fc1": 0.0}) == [35, 14, 10]
    kept = left(scope="global", ignore=("output",))
    assert kept[2] == 12
    assert sum(kept[:2]) == 63 - round(0.2 * 63)  # a share of what competes, not of all 75


def test_global_scope_lets_layers_compete() -> None:
    state = {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(SHAPES.items(), 1)}
    mask = pruned(state, full(), scope="global", fraction=35 / 75)
    assert [int(m.sum()) for m in mask.values()] == [0, 28, 12]


def test_collapsed_layer_stays_empty_and_the_rest_is_pruned() -> None:
    mask = {**full(), "fc1.weight": torch.zeros(7, 5, dtype=torch.bool)}
    after = pruned(drawn(0), mask, fraction=0.5)
    assert [int(m.sum()) for m in after.values()] == [0, 14, 6]


def test_prune_leaves_its_arguments_alone() -> None:
    state, mask = drawn(0), full()
    pruned(state, mask, fraction=0.5, ignore=("output",))
    assert all(bool(m.all()) for m in mask.values())
    assert all(torch.equal(value, drawn(0)[name]) for name, value in state.items())


def test_nan_among_survivors_is_divergence() -> None:
    state = drawn(0)
    state["fc2.weight"][0, 0] = float("nan")
    with pytest.raises(DivergedError, match=r"fc2\.weight"):
        pruned(state, full())


@given(st.integers(0, 999), shares, st.integers(0, 2), st.integers(1, 8))
def test_one_shot_masks_are_nested_and_of_the_iterative_density(
    seed: int, fraction: float, values: int, level: int
) -> None:
    spec, state = PruneSpec(fraction=fraction, output_fraction=fraction / 2), drawn(seed, values)

    def shot(level: int) -> Mask:
        return prune(from_weights(state), compounded(spec, level), torch.Generator().manual_seed(1))

    mask: Tensor
    assert masks.nested(shot(level + 1), shot(level))
    sizes = {masks.layer_of(name): tuple(m.shape) for name, m in full().items()}
    for name, mask in shot(level).items():
        own = fraction / 2 if name == "output.weight" else fraction
        assert abs(int(mask.sum()) - mask.numel() * (1 - own) ** level) <= 0.5 + 1e-6
    asked = requested_density(sizes, spec, level)
    assert abs(masks.density(shot(level)) - asked) * masks.total(full()) <= 0.5 * len(sizes) + 1e-6


def test_requested_density_counts_only_what_is_pruned() -> None:
    sizes = {"a": (8, 10), "b": (4, 5), "c": (10, 10)}
    spec = PruneSpec(fraction=0.5, layer_fractions={"b": 0.1}, ignore=("c",))
    assert requested_density(sizes, spec, 2) == pytest.approx((80 * 0.25 + 20 * 0.81) / 100)


def test_given_densities_are_reached_to_the_weight_and_requested() -> None:
    spec, shapes = PruneSpec(densities=(0.6, 0.5, 0.05), scope="global"), {"a": (10, 20)}
    state, mask = {"a.weight": torch.arange(200.0).view(10, 20)}, None
    for level, density in enumerate(spec.densities, start=1):
        network = from_weights(state, mask)
        mask = prune(network, at_level(spec, level), torch.Generator())
        once = prune(from_weights(state), compounded(spec, level), torch.Generator())
        assert masks.kept(mask) == masks.kept(once) == round(density * 200)
        assert requested_density(shapes, spec, level) == pytest.approx(density)
    assert requested_density(shapes, spec, 0) == 1


def test_compounded_fraction_stays_below_one() -> None:
    assert compounded(PruneSpec(fraction=0.9), 40).fraction < 1
