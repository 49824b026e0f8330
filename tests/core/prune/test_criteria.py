"""Magnitude, random, and the criteria of Zhou et al., weight by weight."""

from collections.abc import Callable
from math import copysign

import pytest
import torch
from small_nets import OF_WEIGHTS, counts, pruned
from torch import Tensor

from lth_core.masks import nested
from lth_core.prune import SCORES
from lth_core.prune.network import PrunableNetwork, from_weights


def _increase(w: float, w0: float) -> float:
    return abs(w) - abs(w0)


# (final weight, initial weight) -> score
BY_HAND: dict[str, Callable[[float, float], float]] = {
    "magnitude": lambda w, w0: abs(w),
    "magnitude-squared": lambda w, w0: w * w,
    "small-final": lambda w, w0: -abs(w),
    "large-init": lambda w, w0: abs(w0),
    "small-init": lambda w, w0: -abs(w0),
    "magnitude-increase": _increase,
    "magnitude-increase-same-sign": lambda w, w0: _increase(w, w0) if w * w0 > 0 else 0,
    "magnitude-increase-diff-sign": lambda w, w0: _increase(w, w0) if w * w0 < 0 else 0,
    "movement": lambda w, w0: abs(w - w0),
    "final-times-initial": lambda w, w0: w * w0,
    "large-final-same-sign": lambda w, w0: max(0.0, w * copysign(1, w0)),
    "large-final-diff-sign": lambda w, w0: max(0.0, -w * copysign(1, w0)),
}
# Of those whose two sizes are cut at one percentile: whether large ones stay.
BY_PERCENTILE = {"large-init-large-final": True, "small-init-small-final": False}


def moved(density: float = 1.0, seed: int = 0) -> PrunableNetwork:
    """Two layers that training moved, one grown and one shrunk, some of each sign flipped."""
    stream = torch.Generator().manual_seed(seed)
    initial, final, mask = {}, {}, {}
    for name, shape, growth in (("a.weight", (4, 5), 3.0), ("b.weight", (2, 4), 0.1)):
        initial[name] = torch.randn(shape, generator=stream)
        final[name] = (initial[name] + 0.8 * torch.randn(shape, generator=stream)) * growth
        mask[name] = torch.rand(shape, generator=stream) < density
    return from_weights(final, mask, initial)


def test_every_score_but_those_of_their_own_is_checked_here() -> None:
    assert {*BY_HAND, *BY_PERCENTILE} | {"random", "snip", "grasp", "synflow"} == set(OF_WEIGHTS)


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("name", BY_HAND)
def test_criterion_is_its_formula_over_the_survivors(name: str, density: float) -> None:
    network = moved(density)
    for layer, score in SCORES[name](network).items():
        alive = network.mask[layer]
        pairs = zip(
            network.weights[layer][alive].tolist(),
            network.initial[layer][alive].tolist(),
            strict=True,
        )
        expected = torch.tensor([float(BY_HAND[name](w, w0)) for w, w0 in pairs])
        assert torch.allclose(score[alive], expected, rtol=1e-5, atol=1e-7)


def cut_at_one_percentile(w: Tensor, w0: Tensor, keep: int, large: bool) -> list[int]:
    """The survivors whose sizes, then and now, are beyond the same percentile, as many as are kept.

    The procedure of get_weight_init.py in the authors' code, over ranks and without bisection.
    """
    sign = 1 if large else -1
    sizes = [(sign * v.abs()).tolist() for v in (w, w0)]
    for below in range(len(w)):
        low = [sorted(each)[:below] for each in sizes]
        stay = [
            i
            for i in range(len(w))
            if all(each[i] not in cut for each, cut in zip(sizes, low, strict=True))
        ]
        if len(stay) == keep:
            return stay
    raise AssertionError("no percentile keeps as many")


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("name", BY_PERCENTILE)
def test_criterion_of_both_sizes_cuts_them_at_one_percentile(name: str, density: float) -> None:
    """At the counts that a percentile gives exactly; dead weights have no part in it."""
    network, held = moved(density), 0
    for layer, score in SCORES[name](network).items():
        alive = network.mask[layer]
        w, w0 = network.weights[layer][alive], network.initial[layer][alive]
        best = score[alive].argsort(descending=True).tolist()
        ranked = score[alive].sort(descending=True).values.tolist()
        for keep in range(1, len(w)):
            if ranked[keep - 1] > ranked[keep]:
                expected = cut_at_one_percentile(w, w0, keep, BY_PERCENTILE[name])
                assert sorted(best[:keep]) == expected
                held += 1
    assert held > 5


@pytest.mark.parametrize("name", BY_PERCENTILE)
def test_where_all_began_equal_the_final_sizes_decide(name: str) -> None:
    w0 = {"fc.weight": torch.tensor([[0.5, -0.5, 0.5, -0.5]])}
    w = {"fc.weight": torch.tensor([[0.3, -0.4, 0.1, 0.2]])}
    kept = pruned(from_weights(w, initial=w0), score=name, fraction=0.25)["fc.weight"]
    assert kept.tolist() == [[i != (2 if BY_PERCENTILE[name] else 1) for i in range(4)]]


@pytest.mark.parametrize(
    ("name", "goes"),
    [
        ("magnitude", {1}), ("small-final", {3}), ("large-init", {0}), ("small-init", {3}),
        ("magnitude-increase", {2}), ("movement", {3}), ("final-times-initial", {2}),
        ("magnitude-increase-diff-sign", {2}),
        ("large-final-same-sign", {1, 2}), ("large-final-diff-sign", {0, 3}),
    ],
)  # fmt: skip
def test_criterion_removes_a_weight_that_its_name_says(name: str, goes: set[int]) -> None:
    w0 = {"fc.weight": torch.tensor([[0.1, 0.6, 4.0, -5.0]])}
    w = {"fc.weight": torch.tensor([[0.6, -0.1, -1.0, -5.0]])}
    kept = pruned(from_weights(w, initial=w0), score=name, fraction=0.25)["fc.weight"]
    (gone,) = (~kept[0]).nonzero().flatten().tolist()
    assert gone in goes


def test_movement_of_an_untrained_network_leaves_it_to_the_draw() -> None:
    weights = {"fc.weight": torch.randn(20, 5, generator=torch.Generator().manual_seed(0))}
    one, again, other = (
        pruned(from_weights(weights), t, score="movement", fraction=0.5)["fc.weight"]
        for t in (1, 1, 2)
    )
    assert int(one.sum()) == 50
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def wide_and_narrow(seed: int = 0) -> PrunableNetwork:
    """Layers of other sizes and scales."""
    shapes = {"a.weight": (50, 200), "b.weight": (40, 50), "c.weight": (100, 8)}
    scales = zip(shapes.items(), (100.0, 1.0, 0.01), strict=True)
    return from_weights(
        {name: torch.full(shape, scale) for (name, shape), scale in scales}, seed=seed
    )


def test_random_scores_compare_across_layers_under_a_global_rank() -> None:
    """Every layer keeps about the same share: a draw scaled by fan-in or weights would not."""
    mask = pruned(wide_and_narrow(), score="random", scope="global", fraction=0.6)
    assert sum(counts(mask)) == 12800 - round(0.6 * 12800)
    for m in mask.values():
        # Four standard deviations of a share among that number of weights.
        assert float(m.float().mean()) == pytest.approx(0.4, abs=4 * (0.24 / m.numel()) ** 0.5)


def test_random_scores_are_uniform_and_of_their_seed_and_layer() -> None:
    one, again, other = (SCORES["random"](wide_and_narrow(seed)) for seed in (1, 1, 2))
    wide = one["a.weight"].flatten()
    quarters = torch.histc(wide, 4, 0, 1) / wide.numel()
    assert torch.allclose(quarters, torch.tensor(0.25), atol=0.04)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any((one[name] == other[name]).any() for name in one)
    assert (wide[:2000] == one["b.weight"].flatten()).sum() < 9


def test_random_masks_of_one_seed_are_nested_over_densities() -> None:
    network = wide_and_narrow()
    dense, sparse = (
        pruned(network, ties, score="random", scope="global", fraction=fraction)
        for ties, fraction in enumerate((0.3, 0.8))
    )
    assert nested(sparse, dense)
