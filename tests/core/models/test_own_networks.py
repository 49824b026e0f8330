"""Any network of a user's: checked when it is planned, right when it runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from odd_nets import BROKEN, SOUND, Through, counted_flops
from torch import Tensor, nn
from torch.nn import functional
from toys import jobs_of, same, timeless

from lth_core import ModelSpec, TicketSpec, Trainer, find_tickets, load_ticket, masks, models
from lth_core.errors import SpecError
from lth_core.models.layers import (
    layer_of,
    load_state,
    parameter_of,
    prunable_layers,
    state_of,
)
from lth_core.models.positions import shapes_and_positions
from lth_core.resolve import resolve
from lth_core.seeds import generator
from lth_core.spec import PruneSpec
from lth_core.store import Store

SHAPE = (1, 8, 8)


def built(name: str, seed: int = 0, **fields: object) -> nn.Module:
    spec = ModelSpec(name=f"odd_nets:{name}", **fields)  # type: ignore[arg-type]
    return models.build(spec, SHAPE, 10, generator(seed, "test"))


def spec_of(small: TicketSpec, name: str, **prune: object) -> TicketSpec:
    return replace(
        small, model=ModelSpec(name=f"odd_nets:{name}"), levels=2, rewind=2,
        train=replace(small.train, steps=6, evaluate_every=6), branches=("ticket", "reinit"),
        prune=PruneSpec(fraction=0.5, **prune),
    )  # fmt: skip


# Checked when it is planned


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Complex modules")
@pytest.mark.parametrize("name", BROKEN)
def test_network_that_does_not_fit_is_refused_at_plan_by_layer(
    name: str, small: TicketSpec
) -> None:
    with pytest.raises(SpecError, match=BROKEN[name][1]) as refused:
        resolve(spec_of(small, name))
    assert refused.value.field == "model.name"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [*SOUND, "positive"])
def test_network_that_fits_is_planned(name: str, small: TicketSpec) -> None:
    resolve(spec_of(small, name))


@pytest.mark.parametrize("name", ["one_draw", "cached"])
def test_factory_whose_weights_no_seed_decides_is_refused_where_it_draws_them(
    name: str, small: TicketSpec
) -> None:
    spec = spec_of(small, name)
    resolve(spec)
    with pytest.raises(SpecError, match="two seeds give the same ones"):
        resolve(replace(spec, model=replace(spec.model, init="as_built")))


@pytest.mark.parametrize(("batch", "fits"), [(1212, False), (1, False), (60, True)])
def test_batch_norm_with_a_last_batch_of_one_is_refused(
    batch: int, fits: bool, small: TicketSpec
) -> None:
    """The digits leave 1,213 training examples here."""
    spec = spec_of(small, "with_norm")
    train = replace(spec.train, batch_size=batch, steps="2ep", evaluate_every="1ep")
    spec = replace(spec, train=train, rewind="0it")
    if fits:
        resolve(spec)
        return
    with pytest.raises(
        SpecError, match=r"no last batch of one of 1213 .*batch norm: norm"
    ) as refused:
        resolve(spec)
    assert refused.value.field == "train.batch_size"


def test_network_that_fails_on_a_last_batch_of_one_is_refused(small: TicketSpec) -> None:
    spec = spec_of(small, "trains_on_pairs")
    resolve(spec)
    with pytest.raises(SpecError, match=r"^train.batch_size: .* cannot train \(RuntimeError"):
        resolve(replace(spec, train=replace(spec.train, batch_size=1212, steps="2ep")))


@pytest.mark.parametrize("score", ["grasp", "snip", "synflow"])
@pytest.mark.parametrize("name", SOUND)
def test_every_score_is_taken_of_every_network(name: str, score: str, small: TicketSpec) -> None:
    resolve(spec_of(small, name, when="before", score=score))


@pytest.mark.parametrize("structure", ["channels", "neurons", "2:4"])
def test_structure_is_refused_of_layers_that_have_no_such_units(
    structure: str, small: TicketSpec
) -> None:
    name = "transposed" if structure == "channels" else "attention"
    layer = {"transposed": "up", "attention": "block.self_attn.in_proj_weight"}[name]
    spec = replace(
        spec_of(small, name), levels=1, prune=PruneSpec(fraction=0.5, structure=structure)
    )
    with pytest.raises(SpecError, match=rf"prune.ignore must name {layer}") as refused:
        resolve(spec)
    assert refused.value.field == "prune.structure"
    resolve(replace(spec, prune=replace(spec.prune, ignore=(layer,))))


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"prune": PruneSpec(when="before", score="grasp")}, "prune.score"), ({"predictors": True}, "predictors")],
    ids=["grasp", "predictors"],
)  # fmt: skip
def test_network_without_second_derivatives_is_refused_where_they_are_needed(
    changes: dict[str, object], field: str, small: TicketSpec
) -> None:
    spec = spec_of(small, "differentiable_once")
    resolve(spec)
    with pytest.raises(SpecError, match="needs second derivatives") as refused:
        resolve(replace(spec, **changes))
    assert refused.value.field == field


def test_checks_leave_a_networks_buffers_as_they_were_built() -> None:
    assert built("counting").calls == 0


@pytest.mark.slow
def test_predictors_are_taken_over_the_weights_that_take_part(small: TicketSpec) -> None:
    spec = replace(spec_of(small, "idle"), predictors=True, levels=0)
    (level,) = find_tickets(spec)
    row = level.records[0]
    assert row["rewind_gradient_norm"] > 0
    assert row["rewind_curvature"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "prune",
    [{"when": "during", "grow": "gradient"}, {"when": "never", "score": "edge-popup"},
     {"when": "never", "score": "supermask"}],
    ids=["rigl", "edge-popup", "supermask"],
)  # fmt: skip
def test_layer_that_training_skips_at_random_is_pruned_without_its_gradient(
    prune: dict[str, object], small: TicketSpec
) -> None:
    train = replace(small.train, steps=12, evaluate_every=6)
    spec = replace(spec_of(small, "skipping", **prune), train=train, levels=1)
    *_, level = find_tickets(replace(spec, branches=("ticket",)))
    assert set(level.records[0]["layer_density"].values()) == {0.5}


# Its output


@pytest.mark.slow
@pytest.mark.parametrize("prune", [{"ignore": ("output",)}, {"scope": "global"},
                                   {"output_fraction": 0.25}])  # fmt: skip
def test_output_of_a_stored_training_and_of_a_ticket_file_is_that_of_the_network(
    prune: dict[str, object], small: TicketSpec, tmp_path: Path
) -> None:
    """JSON in a store has sorted keys, and `one` comes after `head`."""
    spec, store = replace(spec_of(small, "tied", **prune), levels=1), Store()
    trained = [level.records[0] for level in find_tickets(spec, Trainer(store))]
    levels = list(find_tickets(spec, Trainer(store, frozen=True)))
    reused = [level.records[0] for level in levels]
    assert [timeless(row) for row in reused] == [timeless(row) for row in trained]
    assert list(reused[0]["layer_density"]) == ["embed", "one", "head"]
    assert all(row["reused"] for row in reused)
    levels[1].ticket.save(tmp_path / "ticket")
    assert load_ticket(tmp_path / "ticket").density == trained[1]["density"]


# Its layers


EXPECTED = {
    "tied": ["embed", "one", "head"],
    "head_first": ["body", "head"],
    "scaled_head_first": ["body", "head"],
    "idle": ["body", "head"],
    "attention": ["block.self_attn.in_proj_weight", "block.self_attn.out_proj", "block.linear1",
                  "block.linear2", "head"],
    "cross_attention": ["attend.q_proj_weight", "attend.k_proj_weight", "attend.v_proj_weight",
                        "attend.out_proj", "head"],
    "recurrent": ["rows.weight_ih_l0", "rows.weight_hh_l0", "rows.weight_ih_l1",
                  "rows.weight_hh_l1", "head"],
    "cell": ["step.weight_ih", "step.weight_hh", "head"],
    "transposed": ["down", "up", "head"],
    "bilinear": ["both", "head"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_layers_are_those_that_take_part_and_the_output_is_the_last(name: str) -> None:
    model = built(name)
    assert list(prunable_layers(model)) == EXPECTED[name]
    parameters = dict(model.named_parameters())
    for layer, (_, weight) in prunable_layers(model).items():
        assert parameters[parameter_of(layer)] is weight
        assert layer_of(parameter_of(layer)) == layer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "cell", "head_first", "idle", "transposed", "gru"])
def test_flops_are_those_of_torchs_counter(name: str) -> None:
    """It also counts products of activations in attention, and layers whose result is not used."""
    model = built(name)
    layers = shapes_and_positions(model, SHAPE)
    flops = sum(2 * torch.Size(shape).numel() * times for shape, times in layers.values())
    beside = {"attention": 2 * 2 * 8 * 8 * 8, "idle": 2 * (12 * 300 + 2 * 12 * 12)}.get(name, 0)
    if name == "gru":  # torch's counter sees no LSTM or GRU
        gates, steps = 3 * 6, 8
        one = gates * 8 + gates * 6 + gates * 12 + gates * 6
        assert flops == 2 * (2 * steps * one + 12 * 10)
        return
    assert flops + beside == counted_flops(model, SHAPE)


OUTSIDE: dict[str, Callable[[Through, Tensor], Tensor]] = {
    "a function of another layer's weight": lambda n, x: functional.linear(x, n.two.weight),
    "its transpose": lambda n, x: functional.linear(x, n.two.weight.t()),
    "a product of matrices": lambda n, x: x @ n.two.weight + n.two(x),
    "a product from the left": lambda n, x: (n.two.weight @ x.t()).t(),
    "a convolution": lambda n, x: functional.conv2d(
        x.view(-1, 3, 2, 2), n.conv.weight, padding=1).flatten(1) + n.two(x),
    "a transposed convolution": lambda n, x: functional.conv_transpose2d(
        n.two(x).view(-1, 3, 2, 2), n.conv.weight, padding=1).flatten(1),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_weight_that_a_function_multiplies_by_counts(name: str) -> None:
    model = Through(
        lambda n, x: n.head(OUTSIDE[name](n, n.one(x.flatten(1)))),
        one=nn.Linear(64, 12), two=nn.Linear(12, 12), conv=nn.Conv2d(3, 3, 3), head=nn.Linear(12, 10),
    )  # fmt: skip
    layers = shapes_and_positions(model, SHAPE)
    flops = sum(2 * torch.Size(shape).numel() * times for shape, times in layers.values())
    assert flops == counted_flops(model, SHAPE)


def test_attention_of_three_inputs_counts_each_by_its_length() -> None:
    layers = shapes_and_positions(built("cross_attention"), SHAPE)
    assert [times for _, times in layers.values()] == [3, 5, 5, 3, 1]
    layers = shapes_and_positions(built("bilinear"), SHAPE)
    assert layers["both"] == ((5, 8, 12), 1)
    assert shapes_and_positions(built("tied"), SHAPE)["one"] == ((12, 12), 2)


def test_shared_weight_has_one_name_in_states_and_masks() -> None:
    model, other = built("tied"), built("tied", seed=1)
    state = state_of(model)
    assert "two.weight" not in state
    assert "two.bias" in state
    mask = masks.ones(model)
    mask["one.weight"][0] = False
    load_state(other, masks.masked(state, mask))
    assert other.two.weight is other.one.weight
    assert not other.two.weight[0].any()
    assert same(state_of(other), masks.masked(state, mask))
    with pytest.raises(RuntimeError, match="Missing key"):
        load_state(other, {name: value for name, value in state.items() if name != "one.weight"})


# It runs


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize(
    "prune",
    [{}, {"when": "before", "score": "snip"}, {"when": "during", "score": "magnitude", "grow": "gradient"}],
    ids=["imp", "snip", "rigl"],
)  # fmt: skip
def test_tickets_of_every_network_have_the_density_asked_for(
    name: str, prune: dict[str, object], small: TicketSpec
) -> None:
    spec = spec_of(small, name, **prune)
    trainer = Trainer()
    levels = list(find_tickets(spec, trainer))
    weights = masks.total(masks.ones(built(name)))
    kept = [level.records[0]["weights_kept"] for level in levels]
    assert kept == pytest.approx([weights, weights / 2, weights / 4], abs=2)
    job = jobs_of(spec)[2]["ticket"]
    state, mask = trainer.final(job)
    for parameter, kept_weights in mask.items():
        assert not state[parameter][~kept_weights].any(), parameter
    model = built(name)
    load_state(model, state)
    assert torch.isfinite(model.eval()(torch.randn(3, *SHAPE))).all()


def test_ignored_output_is_the_layer_that_makes_the_logits(small: TicketSpec) -> None:
    spec = spec_of(small, "head_first", ignore=("output",))
    job = jobs_of(spec)[2]["ticket"]
    mask = Trainer().final(job)[1]
    assert bool(mask["head.weight"].all())
    assert masks.density({"body.weight": mask["body.weight"]}) == 0.25


# Two networks of today's layers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit-tiny", "lstm"])
@pytest.mark.parametrize(
    "prune",
    [{}, {"when": "before", "score": "snip"}, {"when": "before", "score": "synflow"},
     {"when": "before", "score": "grasp"}, {"when": "during", "grow": "gradient"}],
    ids=["imp", "snip", "synflow", "grasp", "rigl"],
)  # fmt: skip
@pytest.mark.long
def test_transformer_and_lstm_have_tickets_of_every_method(
    name: str, prune: dict[str, object], small: TicketSpec
) -> None:
    spec = replace(spec_of(small, "tied", **prune), model=ModelSpec(name=name, width=0.25))
    records = [row for level in find_tickets(spec) for row in level.records]
    weights = records[0]["weights_prunable"]
    kept = [row["weights_kept"] for row in records if row["branch"] in ("dense", "ticket")]
    assert kept == pytest.approx([weights, weights / 2, weights / 4], abs=2)
    assert all(row["collapsed_layers"] == 0 for row in records)
    model = models.build(spec.model, SHAPE, 10, generator(0, "x"))
    assert counted_flops(model, SHAPE) >= records[0]["dense_flops"] or name == "lstm"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "steps", "accuracy"), [("vit-tiny", 300, 0.85), ("lstm", 300, 0.85)]
)
def test_transformer_and_lstm_learn_the_digits(
    name: str, steps: int, accuracy: float, small: TicketSpec
) -> None:
    train = replace(small.train, optimizer="adam", lr=0.003, steps=steps, evaluate_every=100)
    spec = replace(small, model=ModelSpec(name=name), train=train, levels=0, rewind=0)
    (level,) = find_tickets(spec)
    assert level.records[0]["final_test_accuracy"] > accuracy
