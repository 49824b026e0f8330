"""Scores by name, and a user's own."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import OF_WEIGHTS, batch, mlp, prunable_network, pruned
from torch import nn

from lth_core import models
from lth_core.errors import DivergedError, SpecError
from lth_core.masks import digest, ones
from lth_core.prune import ROUNDS, SCORES
from lth_core.prune.network import from_model, from_weights
from lth_core.prune.scores import fingerprint, scores_of
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, PruneSpec

MODEL = mlp(4, 6, 3)
NETWORK = prunable_network(MODEL, *batch((4,), 3))


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_recurrent_layers_are_scored_without_cudnn(
    score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no backward pass of theirs in evaluation mode."""
    forward, used = nn.LSTM.forward, []

    def watched(*arguments: Any) -> Any:
        used.append(torch.backends.cudnn.enabled)
        return forward(*arguments)

    monkeypatch.setattr(nn.LSTM, "forward", watched)
    model = models.build(ModelSpec(name="lstm", width=0.1), (1, 4, 4), 3, generator(0, "init"))
    x, y = batch((1, 4, 4), 3)
    spec = PruneSpec(when="before", score=score, statistics="running")
    scores_of(from_model(model, x.float(), y, spec=spec), score)
    assert used
    assert not any(used)


@pytest.mark.parametrize("name", ["of_the_copy", "attached"])
def test_own_score_prunes_as_the_same_one_by_name(name: str) -> None:
    fields = {"scope": "global", "fraction": 0.6}
    own = pruned(NETWORK, score=f"own_scores:{name}", **fields)
    assert digest(own) == digest(pruned(NETWORK, score="magnitude", **fields))


@pytest.mark.parametrize("name", ["forgetful", "flattened", "whole", "lists", "a_tensor"])
def test_own_score_that_does_not_fit_the_weights_is_refused(name: str) -> None:
    layer = "fc2.weight" if name == "forgetful" else "fc1.weight"
    with pytest.raises(SpecError) as refused:
        scores_of(NETWORK, f"own_scores:{name}")
    assert refused.value.field == "prune.score"
    assert refused.value.got == f"own_scores:{name}"
    assert layer in refused.value.rule


def test_score_that_is_nan_is_divergence() -> None:
    with pytest.raises(DivergedError, match=r"^cannot prune fc1\.weight: .*own_scores:undefined"):
        scores_of(NETWORK, "own_scores:undefined")


def test_score_may_be_nan_where_weights_are_dead() -> None:
    mask = ones(MODEL)
    mask["fc1.weight"][2] = False
    network = from_weights(NETWORK.weights, mask)
    own = pruned(network, score="own_scores:undefined_where_dead", fraction=0.5)
    assert digest(own) == digest(pruned(network, fraction=0.5))


@pytest.mark.parametrize("score", OF_WEIGHTS)
def test_weight_that_is_nan_is_divergence_for_every_score_that_looks(score: str) -> None:
    model = mlp(4, 6, 3)
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")
    network = prunable_network(model, *batch((4,), 3))
    if score == "random":
        assert pruned(network, score=score)
    else:
        with pytest.raises(DivergedError, match="are NaN"):
            pruned(network, score=score)


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (PruneSpec(score="magnitud"), "prune.score", "known: magnitude.*package.module:function"),
        (PruneSpec(score="nowhere:score"), "prune.score", "cannot be imported"),
        (PruneSpec(score="own_scores:nothing"), "prune.score", "known: .*of_the_copy"),
        (PruneSpec(scope="like:magnitud"), "prune.scope", "known: magnitude"),
        (PruneSpec(scope="like:own_scores:undefined"), "prune.scope", "names no known score"),
        (PruneSpec(scope="like:edge-popup"), "prune.scope", "names no known score"),
    ],
)
def test_unknown_score_is_refused_with_what_is_known(
    spec: PruneSpec, field: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        fingerprint(spec)
    assert refused.value.field == field


def test_only_scores_whose_name_does_not_say_what_they_do_have_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {fingerprint(PruneSpec(score=score, scope="like:snip")) for score in OF_WEIGHTS} == {""}
    assert fingerprint(PruneSpec(when="never", score="edge-popup")) == ""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits in a second
    source = tmp_path / "edited_score.py"
    source.write_text("def score(network): return network.weights\n")
    before = fingerprint(PruneSpec(score="edited_score:score"))
    assert len(before) == 64
    source.write_text("def score(network): return network.initial\n")
    monkeypatch.delitem(sys.modules, "edited_score")  # as in the next process
    assert fingerprint(PruneSpec(score="edited_score:score")) != before


def test_rounds_are_of_scores_that_there_are() -> None:
    assert ROUNDS == {"synflow": 100}
    assert set(ROUNDS) <= set(SCORES)


@pytest.mark.parametrize(("statistics", "trains"), [("batch", True), ("running", False)])
def test_scores_see_batch_norm_with_the_statistics_asked_for(statistics: str, trains: bool) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    spec = PruneSpec(score="snip", when="before", statistics=statistics)
    model = prunable_network(net, *batch((4,), 3), spec=spec).model()
    assert model[1].training == trains


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"score": "snip"}, {"score": "grasp", "temperature": 1.0}], ids=["snip", "grasp"]
)
def test_vgg_keeps_every_layer_at_a_thousandth_as_in_the_published_comparison(
    fields: dict[str, Any],
) -> None:
    """With running statistics, as the figures of `at-init-vgg16`; the batch's empty half of them.

    A quarter of the width and 20 images show it as the whole network does.
    """
    spec = ModelSpec(name="vgg-16", init="kaiming_normal", width=0.25)
    model = models.build(spec, (3, 32, 32), 10, torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 3, 32, 32, generator=stream), torch.arange(20) % 10
    common = {"when": "before", "scope": "global", "fraction": 0.999, **fields}
    emptied = {}
    for statistics in ("batch", "running"):
        mask = pruned(prunable_network(model, x, y), statistics=statistics, **common)
        emptied[statistics] = [name for name, m in mask.items() if not m.any()]
    assert emptied["running"] == []
    assert emptied["batch"]
