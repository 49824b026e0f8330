"""Files of smaller networks: they compute the same, and damaged ones are refused."""

import io
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save
from torch import nn
from toys import same

from lth_core import load_compact, masks, models
from lth_core.data import Dataset, Split
from lth_core.errors import SpecError, TicketFileError
from lth_core.files import export
from lth_core.files.export import CompactNetwork, Export
from lth_core.files.weights import digest_of_tensors
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, sha256

RECORDED = {"test_accuracy": 0.75, "ticket_digest": "a" * 64, "training_digest": "b" * 64}


def dataset(shape: tuple[int, ...] = (1, 8, 8), per_image: bool = False) -> Dataset:
    x = torch.randint(0, 256, (6, *shape), dtype=torch.uint8, generator=generator(0, "x"))
    split = Split(x, torch.arange(6))
    mean = torch.full((shape[0], 1, 1), 120.0)
    return Dataset(split, split, split, mean, mean / 2, 10, per_image)


def exported(
    spec: ModelSpec, data: Dataset, gone: dict[str, list[int]]
) -> tuple[Export, nn.Module]:
    """Export of a network without the named rows, and the full network that it must equal."""
    full = models.build(spec, data.shape, 10, generator(1, "init"))
    for name, parameter in full.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.3, generator=generator(2, name))
    mask = masks.ones(full)
    for name, rows in gone.items():
        mask[name][rows] = False
        full.get_parameter(name).data[rows] = 0
    return Export.of(full, mask, data, spec, **RECORDED), full.eval()


def small() -> tuple[Export, nn.Module]:
    return exported(ModelSpec(widths=(12, 8)), dataset(), {"fc1.weight": [1, 5]})


def written(export: Export, folder: Path) -> Path:
    file = folder / "small.safetensors"
    file.write_bytes(export.to_bytes())
    return file


CASES = {
    "mlp": (ModelSpec(widths=(12, 8)), (1, 8, 8), {"fc1.weight": [1, 5]}),
    "mlp-constant": (ModelSpec(name="mlp-constant", widths=(12, 8)), (1, 8, 8),
                     {"fc1.weight": [1, 5]}),
    "a bias that was made": (ModelSpec(name="toys:biasless_net"), (1, 8, 8), {"hidden.weight": [2]}),
    "conv": (ModelSpec(name="conv-2", width=0.1), (3, 8, 8), {"conv1.weight": [0], "fc1.weight": [3]}),
    "lstm": (ModelSpec(name="lstm", width=0.1), (1, 8, 8), {}),
}  # fmt: skip


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_loaded_network_takes_pixels_and_computes_what_the_full_one_does(
    name: str, per_image: bool, tmp_path: Path
) -> None:
    spec, shape, gone = CASES[name]
    data = dataset(shape, per_image)
    export, full = exported(spec, data, gone)
    loaded = load_compact(written(export, tmp_path))
    assert not any(module.training for module in loaded.modules())
    assert same(dict(loaded.state_dict()), dict(export.network.state_dict()))
    with torch.no_grad():
        expected = full(data.normalize(data.test.x))
        assert torch.allclose(loaded(data.test.x), expected, atol=1e-5)
    fewer = sum(p.numel() for p in loaded.parameters()) < export.parameters
    assert fewer == bool(gone)


def test_header_names_accuracy_and_digests(tmp_path: Path) -> None:
    with safe_open(written(small()[0], tmp_path), framework="np") as file:
        header = file.metadata()
    assert header["format"] == "lth-compact/1"
    assert {name: header[name] for name in RECORDED} == {**RECORDED, "test_accuracy": "0.75"}
    assert (header["example_shape"], header["classes"]) == ("[1,8,8]", "10")


# Damaged files


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    """Change tensors and header; the digests are made right again, as a forger would."""
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    tensors = load(file.read_bytes())
    change(tensors, header)
    header["content_digest"] = digest_of_tensors(tensors)
    del header["header_digest"]
    file.write_bytes(save(tensors, metadata={**header, "header_digest": sha256(header)}))


FORGED: dict[str, tuple[Callable[[dict[str, torch.Tensor], dict[str, str]], object], str]] = {
    "another network": (
        lambda t, h: h.update(model=h["model"].replace("[12,8]", "[12,9]")),
        "channels: must be those of mlp",
    ),
    "another size": (
        lambda t, h: t.update({"weights/fc1.bias": torch.zeros(3)}), "does not fit mlp"),
    "a network that is too large": (
        lambda t, h: h.update(model=h["model"].replace("[12,8]", "[900000,8]")),
        "the ticket does not fit mlp: the network is larger",
    ),
    "too many weights": (lambda t, h: h.update(parameters="9" * 15), "its full network must have"),
    "no channel": (
        lambda t, h: t.update({"channels/fc1.weight": torch.zeros(2, dtype=torch.uint8)}),
        "channels/fc1.weight: must keep a channel",
    ),
    "too few bits": (
        lambda t, h: t.update({"channels/fc1.weight": torch.ones(1, dtype=torch.uint8)}),
        "channels/fc1.weight: must be 2 bytes",
    ),
    "no group": (
        lambda t, h: h.update(channels='{"fc1.weight":12}'), "channels: must be those of mlp"),
    "boundless group": (lambda t, h: h.update(channels='{"fc1.weight":1e999}'), "channels of fc1"),
    "no mean": (lambda t, h: t.pop("normalize/mean"), "normalize/mean"),
    "shape of nothing": (lambda t, h: h.update(example_shape="[]"), "example_shape: must be"),
    "not finite": (
        lambda t, h: t.update({"weights/fc1.bias": torch.full((10,), torch.nan)}),
        "weights/fc1.bias: must hold finite values",
    ),
    "no header field": (lambda t, h: h.pop("classes"), "KeyError: 'classes'"),
    "a ticket": (lambda t, h: h.update(format="lth-ticket/1"), "format must be 'lth-compact/1'"),
    "a layer that is not there": (
        lambda t, h: t.update({"weights/nosuch.bias": torch.zeros(3)}), "nosuch"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.slow
def test_file_that_does_not_fit_its_network_is_refused(name: str, tmp_path: Path) -> None:
    change, rule = FORGED[name]
    file = written(small()[0], tmp_path)
    rewrite(file, change)  # type: ignore[arg-type]
    with pytest.raises(TicketFileError) as refused:
        load_compact(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def whole() -> bytes:
    return small()[0].to_bytes()


@pytest.mark.slow
@given(st.data())
def test_any_flipped_bit_is_noticed(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(whole)
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    file.write_bytes(content)
    with pytest.raises(TicketFileError):
        load_compact(file)


def test_weight_that_is_not_finite_is_not_written() -> None:
    network = small()[0].network
    network.network.get_parameter("fc1.bias").data[0] = torch.inf
    with pytest.raises(TicketFileError, match=r"weights/fc1.bias: must hold finite values"):
        replace(small()[0], network=network).to_bytes()


# Other formats

EXPORTED = [
    pytest.param(n, marks=pytest.mark.slow if n == "conv" else pytest.mark.long) for n in CASES
]
"""An export takes seconds, so most are in `make long`."""


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_onnx_file_computes_the_same_for_any_number_of_examples(name: str) -> None:
    import onnxruntime

    spec, shape, gone = CASES[name]
    data = dataset(shape, per_image=name == "conv")
    export, full = exported(spec, data, gone)
    session = onnxruntime.InferenceSession(export.to_onnx())
    for count in (1, 5):
        x = data.test.x[:count]
        (logits,) = session.run(["logits"], {"x": x.float().numpy()})
        with torch.no_grad():
            expected = full(data.normalize(x))
        assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4)


@pytest.mark.parametrize("name", EXPORTED)
def test_torch_export_file_computes_the_same_for_any_number_of_examples(name: str) -> None:
    spec, shape, gone = CASES[name]
    data = dataset(shape)
    export, full = exported(spec, data, gone)
    program = torch.export.load(io.BytesIO(export.to_torch())).module()
    for count in (1, 5):
        x = data.test.x[:count]
        with torch.no_grad():
            assert torch.allclose(program(x.float()), full(data.normalize(x)), atol=1e-5)


class Counting(nn.Linear):
    """Its code depends on the number of examples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)) * len(x)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["to_onnx", "to_torch"])
def test_network_that_cannot_be_exported_is_refused_in_one_line(form: str) -> None:
    network = CompactNetwork(Counting(64, 10), torch.zeros(1), torch.ones(1), False).eval()
    broken = replace(small()[0], network=network)
    with pytest.raises(SpecError, match="for any number of examples") as refused:
        getattr(broken, form)()
    assert "\n" not in str(refused.value)


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"lottery-ticket-sweeps\[onnx\].*onnx, onnxscript"):
        small()[0].to_onnx()


def test_network_of_other_code_than_the_files_is_loaded_with_a_warning(tmp_path: Path) -> None:
    own = ModelSpec(name="odd_nets:tied")
    now = replace(own, fingerprint=models.fingerprint(own))
    flat = dataset((1, 8, 8))
    file = written(exported(now, flat, {})[0], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_compact(file)
    other = replace(now, fingerprint="0" * 64)
    file = written(exported(other, flat, {})[0], tmp_path)
    with pytest.warns(UserWarning, match="the code of odd_nets:tied has changed since this file"):
        load_compact(file)
