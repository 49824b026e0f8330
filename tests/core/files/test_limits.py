"""A small file makes little work and takes little memory, whatever program wrote it."""

import multiprocessing
import os
import resource
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from toys import same

from lth_core import Ticket, load_ticket, masks, models
from lth_core.errors import LthError, TicketFileError
from lth_core.files.limits import MOST_HEADER, no_larger_than
from lth_core.results import LevelResult
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, PruneSpec, canonical_json, describe, sha256
from lth_core.ticket import pack


@pytest.fixture(scope="module")
def ticket(search: list[LevelResult]) -> Ticket:
    return search[2].ticket


def forge(file: Path, ticket: Ticket, **fields: str) -> Path:
    """A file of the ticket with other fields in its header, and the digests that belong to them."""
    header = {
        "format": "lth-ticket/1",
        "spec": canonical_json(describe(ticket.spec)),
        "shapes": canonical_json({name: list(m.shape) for name, m in ticket.mask.items()}),
        "density": repr(ticket.density),
        "spec_digest": ticket.spec.digest(),
        "mask_digest": masks.digest(ticket.mask),
        "ticket_digest": ticket.digest,
        "level": str(ticket.level),
        "branch": ticket.branch,
        "rewind_step": str(ticket.rewind_step),
        "example_shape": canonical_json(list(ticket.example_shape)),
        "classes": str(ticket.classes),
        **fields,
    }
    header["header_digest"] = sha256(header)
    file.write_bytes(save(pack(ticket.start, ticket.mask), metadata=header))
    return file


def complaint(file: Path) -> str:
    with pytest.raises(TicketFileError) as refused:
        load_ticket(file)
    message = str(refused.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    assert len(message) < 500 + len(str(file))
    return message.removeprefix(f"{file}: ")


def test_forged_file_is_read_where_nothing_is_wrong_with_it(ticket: Ticket, tmp_path: Path) -> None:
    assert load_ticket(forge(tmp_path / "t", ticket)).digest == ticket.digest


def in_a_fork(act: Callable[[], list[str]]) -> list[str]:
    """The result of `act` in a fork of this process, which is killed after two minutes.

    A fork has imported everything, where a new process would import torch for two seconds.
    """
    context = multiprocessing.get_context("fork")
    lines = context.SimpleQueue()
    child = context.Process(target=lambda: lines.put(act()), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child needs none
        child.start()
    child.join(120)
    if child.is_alive():
        child.kill()
        child.join()
    assert child.exitcode == 0
    return lines.get()


def test_what_is_no_regular_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    """In a process of its own, which can be ended where it waits for the pipe or for all zeros."""

    def complaints() -> list[str]:
        os.dup2(stdin, 0)
        messages = []
        for path in paths:
            with pytest.raises(TicketFileError) as refused:
                load_ticket(path)
            messages.append(str(refused.value))
        return messages

    pipe, folder, plug = tmp_path / "pipe", tmp_path / "folder", tmp_path / "socket"
    os.mkfifo(pipe)
    folder.mkdir()
    paths = [str(pipe), str(folder), str(plug), "/dev/zero", "/dev/stdin"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(plug))  # relative, for a socket's path must be short
        stdin, other_end = os.pipe()
        try:
            refusals = in_a_fork(complaints)
        finally:
            os.close(stdin)
            os.close(other_end)
    rule = "must be a regular file, but got a folder, pipe, socket or device"
    assert refusals == [f"{path}: {rule}" for path in paths]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["fc1.weight", "fc1.bias", "norm"])
def test_values_that_are_not_finite_are_neither_read_nor_written(
    value: float, name: str, ticket: Ticket, tmp_path: Path
) -> None:
    start = {name: tensor.clone() for name, tensor in ticket.start.items()}
    start["norm"] = torch.zeros(3, dtype=torch.float16)
    if name in ticket.mask:
        start[name][ticket.mask[name]] = start[name][ticket.mask[name]].index_fill(
            0, torch.tensor([5]), value
        )
    else:
        start[name][1] = value
    damaged, kind = replace(ticket, start=start), "kept" if name in ticket.mask else "dense"
    rule = f"{kind}/{name}: must hold finite values, but got 1 that are NaN or infinite"
    assert complaint(forge(tmp_path / "t", damaged)) == rule
    with pytest.raises(TicketFileError) as refused:
        damaged.save(tmp_path / "other")
    assert str(refused.value) == rule
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_header_larger_than_any_networks_is_refused_unread(tmp_path: Path) -> None:
    """Zeros in place of its JSON: a reader of the header would raise another error."""
    file = tmp_path / "t"
    for length, message in {
        MOST_HEADER: "is not a whole safetensors file",
        MOST_HEADER + 1: "its header must be at most 4,194,304 bytes, but got 4,194,305",
    }.items():
        file.write_bytes(length.to_bytes(8, "little"))
        os.truncate(file, 8 + length)
        assert complaint(file).startswith(message)
        os.truncate(file, 7 + length)
        assert f"must hold its header of {length:,} bytes, but got {7 + length:,}" in complaint(
            file
        )


@pytest.mark.slow
def test_ticket_that_load_ticket_would_not_read_is_not_written(
    ticket: Ticket, tmp_path: Path
) -> None:
    many = {f"{number:0200}": torch.zeros(1) for number in range(MOST_HEADER // 250)}
    with pytest.raises(TicketFileError, match="its header must be at most 4,194,304 bytes"):
        replace(ticket, start={**ticket.start, **many}).save(tmp_path / "t")
    with pytest.raises(TicketFileError, match=r"^prune: names of layers times layers must be"):
        named(ticket, [f"{'*' * number}" for number in range(1, 900)] * 600).save(tmp_path / "t")
    assert [*tmp_path.iterdir()] == []


def named(ticket: Ticket, patterns: list[str]) -> Ticket:
    """The ticket, of a spec that ignores layers by such names."""
    return replace(ticket, spec=replace(ticket.spec, prune=PruneSpec(ignore=tuple(patterns))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("example_shape", canonical_json([10**17] * 100_000)),
        ("example_shape", canonical_json([1] * 9)),
        ("example_shape", canonical_json([2**63])),
        ("shapes", canonical_json({"fc1.weight": [10**17] * 100_000})),
        ("shapes", canonical_json({"fc1.weight": [1] * 7 + [32, 64]})),
        ("shapes", canonical_json({"fc1.weight": [2**40, 2**40]})),
        ("classes", str(10**20)),
        ("classes", "0"),
        ("level", "9" * 5_000),
        ("format", "x\n" * 1_000_000),
        ("mask_digest", "x" * 1_000_000),
    ],
)
@pytest.mark.slow
def test_sizes_beyond_any_networks_are_refused_in_one_short_line(
    field: str, value: str, ticket: Ticket, tmp_path: Path
) -> None:
    refused = complaint(forge(tmp_path / "t", ticket, **{field: value}))
    assert field.removesuffix("s") in refused or "fc1.weight" in refused or "header" in refused


@pytest.mark.slow
def test_patterns_that_take_minutes_to_match_are_refused(ticket: Ticket, tmp_path: Path) -> None:
    spec = replace(ticket.spec, prune=PruneSpec(include=("?*" * 501,)))
    with pytest.raises(TicketFileError, match="must be at most 1000 characters"):
        replace(ticket, spec=spec).save(tmp_path / "t")
    spec = replace(ticket.spec, prune=PruneSpec(layer_fractions={"?*" * 501: 0.5}))
    content = canonical_json(describe(spec))
    refused = complaint(forge(tmp_path / "t", ticket, spec=content, spec_digest=spec.digest()))
    assert refused == "prune: a layer's name must be at most 1000 characters"
    many = {f"{'*' * (number % 900)}{number}": 0.5 for number in range(5_000)}
    spec = replace(ticket.spec, prune=PruneSpec(layer_fractions=many))
    content, shapes = (
        canonical_json(describe(spec)),
        canonical_json({str(n): [1] for n in range(201)}),
    )
    refused = complaint(
        forge(tmp_path / "t", ticket, spec=content, spec_digest=spec.digest(), shapes=shapes)
    )
    assert refused.endswith("must be at most 1,000,000, but got 5,000 x 201")


def test_masks_of_more_weights_than_memory_holds_are_refused_before_they_are_unpacked(
    ticket: Ticket, tmp_path: Path
) -> None:
    """A file with a hole: it takes no room on the disk."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 45
    file = forge(tmp_path / "t", ticket, shapes=canonical_json({"hole": [8 * size]}))
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    layout = {
        "__metadata__": metadata,
        "mask/hole": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
        "kept/hole": {"dtype": "F32", "shape": [0], "data_offsets": [size, size]},
    }
    header = canonical_json(layout).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + size)
    refused = complaint(file)
    assert refused.startswith("its masks must cover at most ")
    assert refused.endswith(f"the limit of this machine's memory, but got {8 * size:,}")


def most_memory() -> int:
    """Most memory that this process has had at a time, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.long
@pytest.mark.slow
def test_network_that_is_much_larger_than_its_ticket_is_not_built(
    ticket: Ticket, tmp_path: Path
) -> None:
    """Each would take from 2 GB to more than there is, or minutes."""
    large: dict[str, dict[str, Any]] = {
        "wide": {"model": ModelSpec(widths=(1_000_000, 1_000))},
        "wider": {"model": ModelSpec(widths=(1_000_000, 1_000_000))},
        "narrow": {"model": ModelSpec(widths=(1,) * 1_000_000)},
        "deep": {"model": ModelSpec(name="resnet-20", depth=9_998)},
        "example": {"example_shape": (1, 30_000, 30_000)},
        "classes": {"classes": 40_000_000},
    }
    fine, files = forge(tmp_path / "fine", ticket), []
    for name, changes in large.items():
        spec = replace(ticket.spec, model=changes.pop("model", ticket.spec.model))
        files.append(forge(tmp_path / name, replace(ticket, spec=spec, **changes)))

    def complaints_and_memory() -> list[str]:
        load_ticket(fine).model()
        before, complaints = most_memory(), []
        for file in files:
            with pytest.raises(LthError) as refused:
                load_ticket(file).model()
            complaints.append(str(refused.value))
        return [*complaints, str(most_memory() - before)]

    *complaints, mebibytes = in_a_fork(complaints_and_memory)
    assert len(complaints) == len(large)
    assert all("the ticket does not fit" in line or "model.name" in line for line in complaints)
    assert int(mebibytes) < 500


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["mlp-constant", "vgg-11", pytest.param("resnet-18", marks=pytest.mark.slow), "mobilenet-v2"],
)
def test_networks_that_make_a_layer_twice_are_built_for_their_tickets(name: str) -> None:
    spec, shape = ModelSpec(name=name), (3, 32, 32)
    start = dict(models.build(spec, shape, 10, generator(0, "x")).state_dict())
    with no_larger_than(name, len(start), sum(value.numel() for value in start.values())):
        model = models.build(spec, shape, 10, generator(0, "x"))
    assert same(dict(model.state_dict()), start)
