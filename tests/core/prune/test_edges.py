"""Every score at the edges: all equal, one weight left, a collapsed layer, many rounds."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_nets import OF_WEIGHTS, batch, conv_net, counts, mlp, prunable_network, pruned, sparse

from lth_core.masks import Mask, digest, kept, nested, ones
from lth_core.prune import SCORES, PrunableNetwork
from lth_core.prune.network import Scores

MODEL, BEFORE = mlp(5, 8, 6, 3), mlp(5, 8, 6, 3, seed=1)
X, Y = batch((5,), 3)
SCOPES = ("global", "layerwise", "erk", "like:snip", "like:random", "like:magnitude")
SCHEDULES = ("exponential", "linear", "cubic", "constant")


def network(mask: Mask | None = None) -> PrunableNetwork:
    return prunable_network(MODEL, X, Y, mask, BEFORE)


def dead() -> PrunableNetwork:
    """Of zeros: every score but the random one finds all weights equal."""
    model = mlp(5, 8, 6, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return prunable_network(model, X, Y)


@pytest.mark.parametrize("scope", ["global", "layerwise", "erk"])
@pytest.mark.parametrize("score", sorted(set(OF_WEIGHTS) - {"random"}))
def test_of_equal_scores_exactly_k_go_by_a_seeded_draw(score: str, scope: str) -> None:
    one, again, other = (
        pruned(dead(), ties, score=score, scope=scope, fraction=0.4) for ties in (1, 1, 2)
    )
    total = [40, 48, 18]
    if scope == "layerwise":
        assert counts(one) == [n - round(0.4 * n) for n in total]
    assert kept(one) == sum(total) - round(0.4 * sum(total))
    assert digest(one) == digest(again) != digest(other)


@pytest.mark.parametrize("score", OF_WEIGHTS)
@pytest.mark.parametrize(("fraction", "left"), [(0.4, 1), (0.6, 0)])
def test_one_weight_left_stays_or_goes_as_rounding_says(
    score: str, fraction: float, left: int
) -> None:
    alone = {name: torch.zeros_like(m) for name, m in ones(MODEL).items()}
    alone["fc2.weight"][3, 3] = True
    after = pruned(network(alone), score=score, scope="global", fraction=fraction)
    assert counts(after) == [0, left, 0]
    assert counts(pruned(network(alone), score=score, fraction=fraction)) == [0, left, 0]


@pytest.mark.parametrize("collapsed", ["fc1.weight", "fc2.weight", "fc3.weight"])
@pytest.mark.parametrize("score", OF_WEIGHTS)
def test_collapsed_layer_breaks_no_score_and_the_others_are_pruned(
    score: str, collapsed: str
) -> None:
    mask = {**ones(MODEL), collapsed: torch.zeros_like(ones(MODEL)[collapsed])}
    before = counts(mask)
    assert counts(pruned(network(mask), score=score, fraction=0.5)) == [n // 2 for n in before]
    everywhere = pruned(network(mask), score=score, scope="global", fraction=0.5)
    assert kept(everywhere) == sum(before) // 2
    assert nested(everywhere, mask)


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_scores_of_a_network_with_batch_norm_survive_a_collapsed_layer(score: str) -> None:
    model, (x, y) = conv_net(), batch((2, 4, 4), 3)
    mask = {**ones(model), "conv1.weight": torch.zeros(3, 2, 3, 3, dtype=torch.bool)}
    after = pruned(prunable_network(model, x, y, mask), score=score, fraction=0.5)
    assert counts(after) == [0, 24, 6]


@given(
    st.sampled_from(sorted(OF_WEIGHTS)), st.sampled_from(SCOPES), st.sampled_from(SCHEDULES),
    st.floats(0, 0.999), st.integers(1, 4), st.floats(0, 0.999),
)  # fmt: skip
def test_counts_are_exact_at_every_density_scope_and_schedule(
    score: str, scope: str, schedule: str, fraction: float, rounds: int, output: float
) -> None:
    start = sparse(MODEL, 0.8)
    fields = {"fraction": fraction, "output_fraction": output, "schedule": schedule}
    mask = pruned(network(start), when="before", score=score, scope=scope, rounds=rounds, **fields)
    left = [n - round(fraction * n) for n in counts(start)[:2]]
    together = sum(counts(start)[:2])
    assert sum(counts(mask)[:2]) == (
        sum(left) if scope == "layerwise" else together - round(fraction * together)
    )
    assert counts(mask)[2] == counts(start)[2] - round(output * counts(start)[2])
    assert nested(mask, start)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Mask]:
    """The masks that a score named `spy` is shown; what it scored lowest it then scores highest."""
    masks: list[Mask] = []

    def spy(network: PrunableNetwork) -> Scores:
        masks.append(network.mask)
        flip = (-1) ** len(masks)
        return {
            name: flip * w.abs() + ~network.mask[name] * 9 for name, w in network.weights.items()
        }

    monkeypatch.setitem(SCORES, "spy", spy)
    return masks


@pytest.mark.parametrize("scope", ["global", "layerwise", "erk", "like:magnitude"])
def test_masks_shrink_round_by_round_and_nothing_comes_back(scope: str, seen: list[Mask]) -> None:
    fields = {"when": "before", "score": "spy", "rounds": 4, "fraction": 0.9}
    seen.append(pruned(network(), scope=scope, **fields))
    assert [kept(mask) for mask in seen] != [kept(ones(MODEL))] * 5
    assert len(seen) == 5
    assert all(nested(later, earlier) for earlier, later in pairwise(seen))
    if scope != "layerwise":
        lost = [106 - round((1 - 0.1 ** (r / 4)) * 106) for r in range(4)] + [
            106 - round(0.9 * 106)
        ]
        assert [kept(mask) for mask in seen] == lost


def test_each_round_scores_what_the_round_before_left(seen: list[Mask]) -> None:
    """Weights that a round removed are 0 in the network that the next one scores."""
    shown: list[Scores] = []
    inner = SCORES["spy"]
    SCORES["spy"] = lambda network: shown.append(network.weights) or inner(network)
    pruned(network(), when="before", score="spy", rounds=3, fraction=0.5)
    for weights, mask in zip(shown, seen, strict=True):
        assert all(not weights[name][~mask[name]].any() for name in mask)


@pytest.mark.parametrize("value", [-9e9, 9e9, float("nan")])
@pytest.mark.parametrize("structure", ["weights", "neurons"])
def test_scores_of_dead_weights_are_ignored(
    value: float, structure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead_weights_scored(network: PrunableNetwork) -> Scores:
        return {n: w.abs().where(network.mask[n], value) for n, w in network.weights.items()}

    monkeypatch.setitem(SCORES, "dead_weights_scored", dead_weights_scored)
    start = sparse(MODEL, 0.6)
    fields = {"scope": "global", "structure": structure, "fraction": 0.4}
    expected = pruned(network(start), score="magnitude", **fields)
    assert digest(pruned(network(start), score="dead_weights_scored", **fields)) == digest(expected)
    assert nested(expected, start)


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_scores_see_the_copy_that_the_candidate_gives_under_its_mask(score: str) -> None:
    """Not a network of other weights: another copy gives other scores, dead weights none."""
    mask = sparse(MODEL, 0.6)
    honest = SCORES[score](network(mask))
    other = SCORES[score](replace(network(mask), copy=lambda: mlp(5, 8, 6, 3, seed=1)))
    assert any(not torch.equal(honest[name], other[name]) for name in mask)
    changed = mlp(5, 8, 6, 3)
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if name in mask:
                parameter[~mask[name]] = 7.0
    same = SCORES[score](replace(network(mask), copy=lambda: changed))
    assert all(torch.equal(honest[name], same[name]) for name in mask)
