"""Tickets of searches on the device: files, masks on networks there, smaller networks."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from semi_structured_nets import two_of_four
from small import DIGITS, PIXELS
from torch.nn.functional import cross_entropy

from lth_core import PruneSpec, TicketSpec, Trainer, find_tickets, load_ticket, models
from lth_core.errors import SpecError
from lth_core.files.export import Export, load_compact
from lth_core.models.layers import load_state
from lth_core.models.semi_structured import semi_structured
from lth_core.results import LevelResult
from lth_core.seeds import generator
from lth_core.train.precision import arithmetic


def found(spec: TicketSpec, trainer: Trainer) -> LevelResult:
    *_, level = find_tickets(spec, trainer)
    return level


@pytest.mark.parametrize("spec", [DIGITS, PIXELS], ids=["mlp", "resnet-8"])
def test_ticket_is_written_and_read(device: str, spec: TicketSpec, tmp_path: Path) -> None:
    ticket = found(spec, Trainer(device=device)).ticket
    ticket.save(tmp_path / "ticket.safetensors")
    assert load_ticket(tmp_path / "ticket.safetensors").digest == ticket.digest


def test_ticket_is_trained_on_the_device_by_hand(device: str) -> None:
    trainer = Trainer(device=device)
    level = found(DIGITS, trainer)
    ticket, dataset = level.ticket, trainer.data(level.results["ticket"].job)
    model = ticket.model().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for start in range(0, 300, 60):
        x, y = dataset.train.x[start : start + 60], dataset.train.y[start : start + 60]
        optimizer.zero_grad()
        cross_entropy(model(dataset.normalize(x)), y).backward()
        optimizer.step()
        ticket.apply_mask(model)
    for name, mask in ticket.mask.items():
        assert not bool(model.get_parameter(name).detach().cpu()[~mask].any())


@pytest.mark.long
@pytest.mark.skipif(not find_spec("torch_pruning"), reason="torch-pruning is not installed")
def test_smaller_network_computes_the_same_on_the_device(device: str, tmp_path: Path) -> None:
    trainer = Trainer(device=device)
    spec = replace(PIXELS, prune=PruneSpec(structure="channels", scope="layerwise", fraction=0.5))
    level = found(spec, trainer)
    job = level.results["ticket"].job
    (state, mask), dataset = trainer.final(job), trainer.data(job)
    full = models.build(job.model, dataset.shape, dataset.classes, generator(0, "x"))
    load_state(full, trainer.masked(job, state, mask))
    export = Export.of(full, mask, dataset, job.model, test_accuracy=0.5, ticket_digest="",
                       training_digest="")  # fmt: skip
    (tmp_path / "small.safetensors").write_bytes(export.to_bytes())
    small = load_compact(tmp_path / "small.safetensors").to(device)
    full = full.eval().to(device)
    with torch.no_grad(), arithmetic("fp32", torch.device(device)):
        x = dataset.test.x[:20]
        assert torch.allclose(small(x), full(dataset.normalize(x)), atol=1e-3)
    compact = level.ticket.compact().to(device)
    assert sum(p.numel() for p in compact.parameters()) < sum(p.numel() for p in full.parameters())


# 2:4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_network_in_semi_structured_form_computes_the_same(gpu: str, dtype: torch.dtype) -> None:
    model, mask = two_of_four((64, 128))
    converted = semi_structured(model, mask, dtype)
    x = torch.randn(64, 1, 8, 8, generator=generator(1, "x"))
    with torch.no_grad():
        expected = model.eval()(x)
        logits = converted(x.to(gpu, dtype)).float().cpu()
    assert torch.allclose(logits, expected, atol=0.02 if dtype == torch.float16 else 0.1)
    weight = converted.get_parameter("fc1.weight")
    assert isinstance(weight.data, torch.sparse.SparseSemiStructuredTensor)


def test_network_without_such_a_layer_is_refused(gpu: str) -> None:
    model, mask = two_of_four((33,))
    with pytest.raises(SpecError, match=r"prune.structure: must be 2:4 in a linear layer"):
        semi_structured(model, mask)
