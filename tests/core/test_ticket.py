import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load, save
from toys import same, textbook

from lth_core import (
    ModelSpec,
    PruneSpec,
    Ticket,
    TicketSpec,
    Trainer,
    TrainSpec,
    data,
    find_tickets,
    load_ticket,
)
from lth_core.errors import TicketFileError
from lth_core.masks import masked
from lth_core.results import LevelResult
from lth_core.spec import sha256
from lth_core.ticket import digest, pack, unpack


@pytest.fixture(scope="module")
def ticket(search: list[LevelResult]) -> Ticket:
    return search[2].ticket


@pytest.fixture(scope="module")
def normed_ticket(normed: TicketSpec, trainer: Trainer) -> Ticket:
    return list(find_tickets(normed, trainer))[1].ticket


@pytest.fixture
def file(ticket: Ticket, tmp_path: Path) -> Path:
    ticket.save(tmp_path / "ticket.safetensors")
    return tmp_path / "ticket.safetensors"


def header(file: Path) -> dict[str, str]:
    with safe_open(file, framework="np") as opened:
        return opened.metadata()


def test_file_holds_bits_survivors_and_the_rest_as_promised(
    normed_ticket: Ticket, tmp_path: Path
) -> None:
    """Read by safetensors and numpy alone."""
    file = tmp_path / "t.safetensors"
    normed_ticket.save(file)
    tensors, shapes = load_file(file), json.loads(header(file)["shapes"])
    assert set(shapes) == {"conv.weight", "output.weight"}
    rest = {"output.bias"} | {
        f"norm.{n}"
        for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert set(tensors) == {f"{kind}/{name}" for kind in ("mask", "kept") for name in shapes} | {
        f"dense/{name}" for name in rest
    }
    for name, shape in shapes.items():
        bits, kept = tensors[f"mask/{name}"], tensors[f"kept/{name}"]
        assert bits.dtype == np.uint8
        mask = (
            np.unpackbits(bits, count=np.prod(shape), bitorder="little").astype(bool).reshape(shape)
        )
        weight = np.zeros(shape, np.float32)
        weight[mask] = kept
        assert kept.ndim == 1
        assert np.array_equal(mask, normed_ticket.mask[name].numpy())
        assert np.array_equal(weight, normed_ticket.start[name].numpy())
        assert np.array_equal(bits, np.packbits(mask.ravel(), bitorder="little"))
    for name in rest:
        assert np.array_equal(tensors[f"dense/{name}"], normed_ticket.start[name].numpy())


def test_header_describes_the_ticket(file: Path, ticket: Ticket) -> None:
    fields = header(file)
    assert fields["format"] == "lth-ticket/1"
    assert (fields["level"], fields["branch"], fields["rewind_step"]) == ("2", "ticket", "7")
    assert (fields["example_shape"], fields["classes"]) == ("[1,8,8]", "10")
    assert float(fields["density"]) == ticket.density
    assert fields["spec_digest"] == ticket.spec.digest()


def test_ticket_read_back_is_the_ticket_written(file: Path, ticket: Ticket) -> None:
    again = load_ticket(file)
    assert again.spec.digest() == ticket.spec.digest()
    assert again.digest == ticket.digest
    assert again == ticket
    assert {again} == {ticket}
    assert ticket != replace(ticket, start={**ticket.start, "fc.bias": torch.ones(3)})
    assert same(again.start, ticket.start)
    assert same(again.mask, ticket.mask)
    assert (again.level, again.branch, again.rewind_step) == (2, "ticket", 7)


def test_model_of_a_loaded_ticket_holds_the_masked_rewind_point(
    file: Path, ticket: Ticket, search: list[LevelResult], trainer: Trainer
) -> None:
    model = load_ticket(str(file)).model()
    start = trainer.start(search[2].results["ticket"].job)
    assert model.training
    assert same(dict(model.state_dict()), masked(start, search[2].mask))


@pytest.mark.slow
def test_training_a_loaded_ticket_by_hand_gives_the_searchs_result(
    file: Path, search: list[LevelResult], trainer: Trainer
) -> None:
    ticket, job = load_ticket(file), search[2].results["ticket"].job
    ended = textbook(job, ticket.model(), ticket.mask, data.load(job.data, torch.device("cpu")))
    for name, value in trainer.final(job)[0].items():
        torch.testing.assert_close(ended[name], value, rtol=1e-3, atol=1e-4)


def test_compact_ticket_computes_the_same_with_fewer_weights(ticket: Ticket) -> None:
    mask = {name: m.clone() for name, m in ticket.mask.items()}
    mask["fc1.weight"][3:7] = False  # constant neurons
    mask["fc2.weight"][:, 20] = False  # one that is not read
    sparse = replace(ticket, mask=mask, start=masked(ticket.start, mask))
    smaller, x = sparse.compact(), torch.rand(4, 1, 8, 8)
    assert smaller.training
    assert smaller.get_parameter("fc1.weight").shape == (32 - 5, 64)
    with torch.no_grad():
        assert torch.allclose(smaller.eval()(x), sparse.model().eval()(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["conv-2", "resnet-8", pytest.param("mobilenet-v2", marks=pytest.mark.long)]
)
def test_compact_ticket_of_channels_has_the_parameters_on_its_record(
    name: str, trainer: Trainer
) -> None:
    spec = TicketSpec(
        model=ModelSpec(name=name, width=0.25), train=TrainSpec(steps=4, evaluate_every=2),
        prune=PruneSpec(structure="channels", fraction=0.5), levels=1,
    )  # fmt: skip
    level = list(find_tickets(spec, trainer))[1]
    (record,) = (row for row in level.records if row["branch"] == "ticket")
    model, smaller, x = level.ticket.model(), level.ticket.compact(), torch.rand(4, 1, 8, 8)
    assert sum(p.numel() for p in smaller.parameters()) == record["kept_parameters"]
    assert record["kept_parameters"] < 0.6 * record["parameters"]
    with torch.no_grad():
        assert torch.allclose(smaller.eval()(x), model.eval()(x), atol=1e-5)


def test_apply_mask_puts_the_zeros_back(ticket: Ticket) -> None:
    model = ticket.model()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 2.0)
    ticket.apply_mask(model)
    for name, parameter in model.named_parameters():
        kept = ticket.mask.get(name, torch.tensor(True))
        assert torch.equal(parameter.detach(), torch.where(kept, 2.0, 0.0).expand(parameter.shape))


def test_dense_run_and_controls_are_tickets_too(search: list[LevelResult], tmp_path: Path) -> None:
    for level, branch in ((0, "dense"), (1, "reinit"), (1, "shuffled_mask")):
        ticket = search[level].ticket_of(branch)
        ticket.save(tmp_path / "t")
        assert load_ticket(tmp_path / "t").digest == ticket.digest
    assert search[0].ticket.density == 1.0
    assert search[0].ticket.rewind_step == 0


# Files that are no tickets


def rewrite(
    change: Callable[[dict[str, torch.Tensor], dict[str, str]], None],
) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        tensors, fields = load(file.read_bytes()), header(file)
        change(tensors, fields)
        file.write_bytes(save(tensors, metadata=fields))

    return damage


def alter(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return rewrite(lambda t, h: t.update({name: change(t[name]).contiguous()}))


def write(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.write_bytes(change(file.read_bytes()))

    return damage


def swap(tensors: dict[str, torch.Tensor], one: str, other: str) -> None:
    tensors[one], tensors[other] = tensors[other], tensors[one]


def drop(held: dict[str, Any], key: str) -> None:
    del held[key]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": write(lambda content: b""),
    "cut short": write(lambda content: content[:-1]),
    "half": write(lambda content: content[:900]),
    "longer": write(lambda content: content + b"\0"),
    "a picture": write(lambda content: b"\x89PNG" + bytes(500)),
    "absent": lambda file: file.unlink(),
    "no header": write(lambda content: save({"a": torch.ones(1)})),
    "other format": rewrite(lambda t, h: h.update(format="lth-ticket/2")),
    "swapped values": alter("kept/fc1.weight", lambda v: v.flip(0)),
    "swapped layers": rewrite(lambda t, h: swap(t, "kept/fc1.weight", "kept/fc2.weight")),
    "swapped biases": rewrite(lambda t, h: swap(t, "dense/fc1.bias", "dense/fc2.bias")),
    "other mask": alter("mask/fc1.weight", lambda v: v.flip(0)),
    "one too few": alter("kept/fc1.weight", lambda v: v[1:]),
    "a byte too many": alter("mask/fc1.weight", lambda v: torch.cat([v, v[:1]])),
    "bits as floats": alter("mask/fc1.weight", lambda v: v.float()),
    "values as halves": alter("kept/fc1.weight", lambda v: v.half()),
    "no mask": rewrite(lambda t, h: drop(t, "mask/fc1.weight")),
    "no values": rewrite(lambda t, h: drop(t, "kept/fc1.weight")),
    "no bias": rewrite(lambda t, h: drop(t, "dense/fc1.bias")),
    "one more": rewrite(lambda t, h: t.update({"dense/x": torch.ones(1)})),
    "stray": rewrite(lambda t, h: t.update({"stray": torch.ones(1)})),
    "other shape": rewrite(lambda t, h: h.update(shapes=h["shapes"].replace("32,64", "64,32"))),
    "other level": rewrite(lambda t, h: h.update(level="3")),
    "other branch": rewrite(lambda t, h: h.update(branch="reinit")),
    "other rewind step": rewrite(lambda t, h: h.update(rewind_step="0")),
    "other classes": rewrite(lambda t, h: h.update(classes="11")),
    "other example shape": rewrite(lambda t, h: h.update(example_shape="[64]")),
    "other density": rewrite(lambda t, h: h.update(density="0.5")),
    "other spec": rewrite(lambda t, h: h.update(spec=h["spec"].replace('"seed":0', '"seed":1'))),
    "deep spec": rewrite(lambda t, h: h.update(spec="[" * 20_000)),
    "deep shapes": rewrite(lambda t, h: h.update(shapes="[" * 20_000)),
    "deep example shape": rewrite(lambda t, h: h.update(example_shape="[" * 20_000)),
    "boundless example shape": rewrite(lambda t, h: h.update(example_shape="[1e999]")),
    "example shape of half": rewrite(lambda t, h: h.update(example_shape="[1, 8.5, 8]")),
    "values of uint16": alter("kept/fc1.weight", lambda v: v.to(torch.uint16)),
    "bias of uint16": alter("dense/fc1.bias", lambda v: v.to(torch.uint16)),
    "broken spec": rewrite(lambda t, h: h.update(spec="{")),
    "empty spec": rewrite(lambda t, h: h.update(spec="[]")),
    "unknown field": rewrite(lambda t, h: h.update(spec='{"sead":0}')),
    "no level": rewrite(lambda t, h: drop(h, "level")),
    "wrong digest": rewrite(lambda t, h: h.update(ticket_digest="0" * 64)),
    "wrong mask digest": rewrite(lambda t, h: h.update(mask_digest="0" * 64)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow
def test_damaged_file_is_refused_by_its_name(damage: str, file: Path) -> None:
    DAMAGES[damage](file)
    with pytest.raises(TicketFileError) as refused:
        load_ticket(file)
    assert str(file) in str(refused.value)


@given(st.data())
def test_any_flipped_bit_is_noticed(
    search: list[LevelResult], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    content = bytearray(search[2].ticket.to_bytes())
    start = int.from_bytes(content[:8], "little") + 8  # as often in the header as behind it
    place = data.draw(st.integers(0, start - 1) | st.integers(start, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.raises(TicketFileError):
        load_ticket(file)


def test_ticket_of_another_network_is_refused_when_built(ticket: Ticket) -> None:
    wider = replace(
        ticket, spec=replace(ticket.spec, model=replace(ticket.spec.model, widths=(64, 16)))
    )
    with pytest.raises(TicketFileError, match="does not fit mlp"):
        wider.model()


def test_ticket_that_cannot_be_written_says_so_and_leaves_nothing(
    ticket: Ticket, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir()
    with pytest.raises(TicketFileError, match=rf"{tmp_path}/t: cannot be written"):
        ticket.save(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


shapes = st.tuples(st.integers(1, 4), st.integers(1, 9))


@given(
    st.dictionaries(st.sampled_from(["a.weight", "b.weight", "c.bias"]), shapes, min_size=1),
    st.data(),
)
def test_packed_state_comes_back(sizes: dict[str, tuple[int, int]], drawn: st.DataObject) -> None:
    stream = torch.Generator().manual_seed(drawn.draw(st.integers(0, 99)))
    start = {name: torch.randn(shape, generator=stream) for name, shape in sizes.items()}
    mask = {
        name: torch.rand(shape, generator=stream) < drawn.draw(st.sampled_from([0.0, 0.5, 1.0]))
        for name, shape in sizes.items()
        if name.endswith("weight")
    }
    start = masked(start, mask)
    state, found = unpack(pack(start, mask), {name: list(m.shape) for name, m in mask.items()})
    assert same(state, start)
    assert same(found, mask)
    assert digest(found, state) == digest(mask, start)
    other = {**start, next(iter(start)): next(iter(start.values())) + 1}
    kept_all = all(bool(m.any()) for m in mask.values())
    assert not kept_all or digest(mask, other) != digest(mask, start)


@pytest.mark.parametrize("shape", ["[1e999]", "[]", "[0]", "[8.0]", "8"])
def test_example_shape_of_another_program_is_refused(shape: str, file: Path) -> None:
    """Its header's digest is right."""

    def forge(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        header["example_shape"] = shape
        del header["header_digest"]
        header["header_digest"] = sha256(header)

    rewrite(forge)(file)
    with pytest.raises(TicketFileError, match=r"example_shape|header"):
        load_ticket(file)


def test_ticket_is_shown_in_a_line_or_a_table_of_its_layers(ticket: Ticket) -> None:
    assert repr(ticket).startswith("<Ticket: mlp on digits, seed 0, level 2, ticket, density 0.")
    shown = ticket._repr_html_()
    assert ticket.digest[:12] in shown
    for name, mask in ticket.mask.items():
        layer, shape = name.removesuffix(".weight"), " x ".join(map(str, mask.shape))
        assert f"<td>{layer}</td><td>{shape}</td><td>{int(mask.sum()):,}</td>" in shown
