"""Embeddings are prunable on request, and networks on token ids are checked as others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from token_nets import LENGTH, NETS, TOKENS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from toys import jobs_of, same, textbook

from lth_core import (
    DataSpec,
    ModelSpec,
    PruneSpec,
    TicketSpec,
    Trainer,
    TrainSpec,
    find_tickets,
    load_ticket,
    masks,
    models,
)
from lth_core.errors import SpecError
from lth_core.models.layers import prunable_layers
from lth_core.models.positions import shapes_and_positions
from lth_core.prune.network import from_model
from lth_core.prune.scores import scores_of
from lth_core.resolve import resolve
from lth_core.seeds import generator

WORDS = {"include": ("words",)}


def spec_of(net: str, *, levels: int = 2, **prune: object) -> TicketSpec:
    data = "next_token" if net == "tied" else "tokens"
    return TicketSpec(
        data=DataSpec(name=f"token_nets:{data}"),
        model=ModelSpec(name=f"token_nets:{net}"),
        train=TrainSpec(lr=0.02, steps=8, batch_size=20, evaluate_every=4),
        prune=PruneSpec(fraction=0.5, **prune),
        levels=levels, rewind=2, branches=("ticket",),
    )  # fmt: skip


def built(net: str, classes: int = 2, seed: int = 0) -> nn.Module:
    spec = ModelSpec(name=f"token_nets:{net}")
    return models.build(spec, (LENGTH,), classes, generator(seed, "test"))


# Which layers


@pytest.mark.parametrize(
    ("net", "include", "layers"),
    [
        ("averaging", (), ["head"]),
        ("averaging", ("words",), ["words", "head"]),
        ("averaging", ("w*",), ["words", "head"]),
        ("averaging", ("head",), ["head"]),
        ("bag", ("*",), ["bag"]),
        ("tied", (), ["body", "words"]),
        ("tied", ("words",), ["body", "words"]),
    ],
)
def test_embeddings_are_prunable_where_they_are_included(
    net: str, include: tuple[str, ...], layers: list[str]
) -> None:
    classes = TOKENS if net == "tied" else 2
    model = built(net, classes)
    assert list(prunable_layers(model, include)) == layers
    assert list(prunable_layers(NETS[net](classes), include)) == layers  # not run yet
    assert list(masks.ones(model, include)) == [f"{layer}.weight" for layer in layers]


def test_tied_weight_is_the_heads_and_is_drawn_as_the_heads() -> None:
    model = built("tied", TOKENS)
    layer = prunable_layers(model, ("words",))["words"]
    assert isinstance(layer.module, nn.Linear)
    assert layer.weight is model.words.weight is model.head.weight
    # kaiming_normal from 8 inputs; an embedding's own draw has a deviation of 1.
    assert 0.35 < layer.weight.std() < 0.65


def test_lookup_costs_nothing_and_a_tied_weight_costs_its_products() -> None:
    layers = shapes_and_positions(built("averaging"), (LENGTH,), ("words",))
    assert layers == {"words": ((TOKENS, 8), 0), "head": ((2, 8), 1)}
    layers = shapes_and_positions(built("tied", TOKENS), (LENGTH,), ("words",))
    assert layers == {"body": ((8, 8), 1), "words": ((TOKENS, 8), 1)}


# Refused when it is planned


@pytest.mark.parametrize(
    ("net", "prune", "message"),
    [
        ("averaging", {"include": ("wrds",)},
         r"prune\.include: must match an embedding.*got 'wrds'; known: words, head"),
        ("bag", {}, r"model\.name: must have a weight to prune.*prune\.include names none of bag"),
        ("sparse", {}, r"model\.name: must have dense gradients: words"),
        ("averaging", {**WORDS, "when": "before", "score": "synflow"}, r"prune\.include: .*synflow"),
        ("averaging", {**WORDS, "scope": "like:synflow"}, r"prune\.include: .*synflow"),
        ("averaging", {**WORDS, "structure": "neurons"}, r"prune\.structure: .*words"),
        ("averaging", {**WORDS, "structure": "2:4"}, r"prune\.structure: .*words"),
        ("bag", {"include": ("bag",), "when": "before", "score": "grasp"},
         r"prune\.score: needs second derivatives"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_with_an_embedding_is_refused(
    net: str, prune: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=f"^{message}") as refused:
        resolve(spec_of(net, levels=1, **prune))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "scaled",
            r"data\.name: must have std 1 and a whole mean, because token_nets:averaging takes token ids, but got .token_nets:scaled",
        ),
        ("one_too_many", r"model\.name: must run on .*values of its data \(0 to 12\).*IndexError"),
        ("shifted", None),
    ],
)
def test_ids_that_a_network_cannot_take_are_refused_at_plan(data: str, message: str | None) -> None:
    spec = replace(spec_of("averaging"), data=DataSpec(name=f"token_nets:{data}"))
    if message is None:
        resolve(spec)
        return
    with pytest.raises(SpecError, match=f"^{message}"):
        resolve(spec)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            DataSpec(name="digits"),  # its pixels lie in -1..2, which would be ids 0 and 1
            r"data\.name: must have std 1 and a whole mean, because token_nets:flat takes token ids, but got 'digits'",
        ),
        (
            DataSpec(name="token_nets:pictured", normalize="per_image"),
            r"data\.normalize: must be 'dataset', because token_nets:flat takes token ids, but got 'per_image'",
        ),
        (DataSpec(name="token_nets:pictured"), None),
    ],
)
def test_network_on_ids_is_refused_data_that_become_fractions(
    data: DataSpec, message: str | None
) -> None:
    spec = replace(spec_of("flat"), data=data)
    if message is None:
        resolve(spec)
        return
    with pytest.raises(SpecError, match=f"^{message}"):
        resolve(spec)


def test_include_must_match_a_layer_of_a_built_in_network_too() -> None:
    spec = TicketSpec(prune=PruneSpec(include=("words",)))
    with pytest.raises(SpecError, match=r"known: fc1, fc2, output"):
        resolve(spec)
    resolve(replace(spec, prune=PruneSpec(include=("fc1",))))


def test_network_of_an_embedding_alone_is_planned_where_it_is_included() -> None:
    spec = spec_of("bag", include=("bag",))
    resolve(replace(spec, model=replace(spec.model, init="as_built")))


def test_synflow_scores_the_rest_of_a_network_with_an_embedding() -> None:
    resolve(spec_of("averaging", when="before", score="synflow"))
    resolve(replace(spec_of("tied", when="before", score="synflow", **WORDS)))


# Scores


def by_hand(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """|w dL/dw| of each entry of an embedding that is averaged."""
    table = network.words.weight.detach().clone().requires_grad_()
    rows = torch.nn.functional.one_hot(x.long(), TOKENS).float().mean(1) @ table
    cross_entropy(network.head(rows), y).backward()
    return (table * table.grad).abs().detach()


def test_snip_of_an_embedding_is_weight_times_gradient_and_0_for_absent_tokens() -> None:
    model, x, y = built("averaging"), torch.tensor([[1.0, 2.0, 5.0], [5.0, 5.0, 7.0]]), [0, 1]
    prune = PruneSpec(when="before", score="snip", **WORDS)
    scores = scores_of(from_model(model, x, torch.tensor(y), spec=prune), "snip")["words.weight"]
    assert torch.allclose(scores, by_hand(model, x, torch.tensor(y)), atol=1e-7)
    assert scores.any(1).nonzero().flatten().tolist() == [1, 2, 5, 7]


# Searches


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer()


@pytest.mark.slow
@pytest.mark.parametrize("net", ["averaging", "attending", "padded"])
def test_imp_prunes_an_embedding_as_a_textbook_does(net: str, trainer: Trainer) -> None:
    """Each level trains by plain torch, and drops the lower half of each layer's survivors."""
    spec = resolve(spec_of(net, **WORDS))
    (dense,), *tickets = (list(level.values()) for level in jobs_of(spec))
    job, mask = dense, masks.ones(trainer.model(dense), ("words",))
    found = [level.mask for level in find_tickets(spec, trainer)]
    for level, (ticket,) in enumerate(tickets, 1):
        model = trainer.network(job, masks.masked(trainer.start(job), mask))
        end = textbook(job, model, mask, trainer.data(job))
        for name, m in mask.items():
            size = end[name].abs().where(m, torch.inf).flatten()
            dropped = size.argsort()[: round(0.5 * int(m.sum()))]
            mask = {**mask, name: m.flatten().index_fill(0, dropped, False).view(m.shape)}
        assert same(mask, found[level])
        job = ticket
    assert int(mask["words.weight"].sum()) == TOKENS * 8 // 4


@pytest.mark.slow
def test_dense_run_is_the_same_with_and_without_an_embedding_included(trainer: Trainer) -> None:
    plain, asked = (
        next(find_tickets(resolve(spec_of("averaging", **prune)), trainer)) for prune in ({}, WORDS)
    )
    jobs = [level.results["dense"].job for level in (plain, asked)]
    assert same(*(trainer.final(job)[0] for job in jobs))
    (row,), (more,) = plain.records, asked.records
    assert (row["weights_prunable"], more["weights_prunable"]) == (16, 16 + TOKENS * 8)
    assert row["final_test_accuracy"] == more["final_test_accuracy"]
    assert row["dense_flops"] == more["dense_flops"] == 2 * 16


METHODS: dict[str, dict[str, object]] = {
    "imp": {},
    "global": {"scope": "global"},
    "erk": {"scope": "erk"},
    "snip": {"when": "before", "score": "snip"},
    "grasp": {"when": "before", "score": "grasp"},
    "gmp": {"when": "during"},
    "set": {"when": "during", "grow": "random"},
    "rigl": {"when": "during", "grow": "gradient"},
    "edge-popup": {"when": "never", "score": "edge-popup"},
    "supermask": {"when": "never", "score": "supermask"},
}


@pytest.mark.slow
@pytest.mark.parametrize("net", ["bounded", "padded"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_an_embedding_to_the_density_and_keeps_zeros(
    method: str, net: str, trainer: Trainer
) -> None:
    """`max_norm` scales rows in the forward pass, and a padding row has no gradient."""
    spec = spec_of(net, levels=1, **WORDS, **METHODS[method])
    *_, level = find_tickets(spec, trainer)
    (row,), mask = level.records, level.mask["words.weight"]
    assert row["weights_kept"] == (16 + TOKENS * 8) // 2
    assert method in ("global", "erk") or int(mask.sum()) == TOKENS * 8 // 2
    state, _ = trainer.final(level.results["ticket"].job)
    assert not state["words.weight"][~mask].any()
    assert state["words.weight"][mask].any()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["imp", "rigl", "supermask"])
def test_controls_keep_the_embeddings_count_and_stored_masks_are_read_back(
    method: str, trainer: Trainer, tmp_path: Path
) -> None:
    branches = ("ticket", "reinit", "random_mask", "shuffled_mask", "inverted_mask", "reshuffled")
    spec = replace(spec_of("attending", **WORDS, **METHODS[method]), branches=branches)
    *_, level = find_tickets(spec, trainer)
    stored = Trainer(trainer.store, frozen=True)
    for branch, result in level.results.items():
        mask = trainer.mask_of(result.job)
        assert int(mask["words.weight"].sum()) == TOKENS * 8 // 4, branch
        assert same(mask, stored.final(result.job)[1])
    level.ticket.save(tmp_path / "ticket")
    loaded = load_ticket(tmp_path / "ticket")
    assert (loaded.digest, loaded.density) == (level.ticket.digest, 0.25)
    assert same(loaded.mask, level.mask)
    assert torch.equal(loaded.model().words.weight, level.ticket.start["words.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("net", sorted(NETS.keys() - {"sparse"}))
def test_ids_reach_the_network_as_they_are(net: str, trainer: Trainer) -> None:
    spec = resolve(spec_of(net, levels=0, include=("*",)))
    data = trainer.data(jobs_of(spec)[0]["dense"])
    assert torch.equal(data.normalize(data.train.x), data.train.x)
    assert set(data.train.x.unique().tolist()) <= set(range(TOKENS))
    (level,) = find_tickets(spec, trainer)
    assert level.records[0]["density"] == 1
