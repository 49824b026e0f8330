"""Latency of a record's network beside that of the dense one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lth_core import ModelSpec, models
from lth_core.errors import SpecError
from lth_core.measures import latency as measured
from lth_core.measures.latency import Structure, structure_latency
from lth_core.models.latency import BATCH_SIZE, THREADS, device_name
from lth_core.models.layers import prunable_layers

CPU = torch.device("cpu")
SPEC = ModelSpec(widths=(12, 8))
DENSE = Structure(
    model=SPEC, dense=SPEC, shape=(1, 4, 4), classes=5,
    outputs=(("fc1", 12), ("fc2", 8), ("output", 5)),
)  # fmt: skip
SMALL = replace(DENSE, outputs=(("fc1", 3), ("fc2", 2), ("output", 5)))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Numbers of parameters of the networks of each measurement; they are their milliseconds too."""
    calls = list[list[int]]()

    def fake(networks: list[nn.Module], shape: tuple[int, ...], **options: Any) -> list[float]:
        calls.append([sum(p.numel() for p in network.parameters()) for network in networks])
        return [float(number) for number in calls[-1]]

    monkeypatch.setattr(measured, "latency", fake)
    return calls


def size(inputs: int, *outputs: int) -> int:
    return sum((i + 1) * o for i, o in zip((inputs, *outputs), outputs, strict=False))


def test_network_has_the_outputs_that_are_left(timed: list[list[int]]) -> None:
    found = structure_latency(SMALL, CPU)
    assert timed == [[size(16, 12, 8, 5), size(16, 3, 2, 5)]]
    assert (found["latency_ms"], found["dense_latency_ms"]) == (timed[0][1], timed[0][0])
    assert (found["batch_size"], found["threads"]) == (BATCH_SIZE, THREADS) == (64, 1)
    assert found["device"] == device_name(CPU)


def test_dense_network_is_measured_once_and_equals_itself(timed: list[list[int]]) -> None:
    found = structure_latency(DENSE, CPU)
    assert timed == [[size(16, 12, 8, 5)]]
    assert found["latency_ms"] == found["dense_latency_ms"] == timed[0][0]


def test_widened_network_is_compared_with_the_one_that_is_not(timed: list[list[int]]) -> None:
    wide = replace(DENSE, model=ModelSpec(widths=(24, 16)))
    structure_latency(replace(wide, outputs=(("fc1", 24), ("fc2", 16), ("output", 5))), CPU)
    structure_latency(wide, CPU)
    dense, whole = size(16, 12, 8, 5), size(16, 24, 16, 5)
    assert timed == [[dense, whole], [dense, dense]]


def test_channels_that_go_together_are_as_many_as_their_layers_have(
    timed: list[list[int]],
) -> None:
    """ResNet-8's stem and the outputs of its first block are one group."""
    model, shape = ModelSpec(name="resnet-8", width=0.25), (3, 8, 8)
    layers = prunable_layers(models.template(model, shape, 5))
    outputs = {name: layer.weight.shape[0] for name, layer in layers.items()}
    outputs |= {"stem": 2, "stages.1_1.conv2": 2, "stages.1_1.conv1": 3}
    structure = Structure(model=model, dense=model, shape=shape, classes=5,
                          outputs=tuple(outputs.items()))  # fmt: skip
    structure_latency(structure, CPU)
    ((dense, smaller),) = timed
    gone = 2 * 3 * 9 + (4 * 4 - 3 * 2) * 9 + (4 * 4 - 2 * 3) * 9 + 8 * 2 * 9 + 8 * 2
    norms = 2 * (2 + 1 + 2)
    assert dense - smaller == gone + norms


def test_network_whose_own_code_fails_is_an_error() -> None:
    model = ModelSpec(name="toys:fails_on_many")
    structure = Structure(model=model, dense=model, shape=(1, 4, 4), classes=5,
                          outputs=(("1", 5),))  # fmt: skip
    with pytest.raises(SpecError, match=r"model\.name: has no latency, because it fails on 64"):
        structure_latency(structure, CPU)


def test_network_with_much_less_work_takes_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "SECONDS", 0.0)
    wide = ModelSpec(widths=(20_000, 8))
    found = structure_latency(replace(SMALL, model=wide, dense=wide), CPU)
    assert found["dense_latency_ms"] > 2 * found["latency_ms"] > 0
