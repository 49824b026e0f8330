"""The smaller network of a finished training, for use: as safetensors, ONNX or torch.export.

The safetensors file holds ``weights/NAME`` of each weight and buffer, ``channels/NAME`` (uint8: one
bit a channel, little end first; 1 = kept) of each group of channels that the full network could
lose, and ``normalize/mean`` and ``normalize/std`` of the data; the rest is in the header.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lth_core import models
from lth_core.data.dataset import Dataset, standardized
from lth_core.errors import SpecError, TicketFileError, exception_text
from lth_core.files.limits import check_finite, check_sizes, check_weights, no_larger_than
from lth_core.files.weights import check_fields, digest_of_tensors, file_content, read_file
from lth_core.masks import Mask, State, pack_bits, unpack_bits
from lth_core.models.channels import Kept, channels_of, without_channels
from lth_core.models.compact import compact_and_kept
from lth_core.models.layers import evaluation_mode, load_state, made_up_examples, state_of
from lth_core.plugins import errors_as_spec_errors
from lth_core.seeds import generator
from lth_core.spec import ModelSpec, canonical_json, describe, with_implied

FORMAT = "lth-compact/1"

ONNX_PACKAGES = ("onnx", "onnxscript")


class CompactNetwork(nn.Module):
    """A network that takes examples as the dataset has them, such as pixels from 0 to 255.

    Args:
        network: it takes normalized examples.
        mean, std: as in `Dataset`.
        per_image: whether each example is scaled by its own mean and deviation instead.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, per_image: bool) -> None:
        super().__init__()
        self.network, self.per_image = network, per_image
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) from examples (b, ...), uint8 or float32."""
        x = x.float()
        x = standardized(x) if self.per_image else (x - self.mean) / self.std
        logits: Tensor = self.network(x)
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The smaller network of a finished training, and where it comes from."""

    network: CompactNetwork
    """In evaluation mode, on the CPU."""
    kept: Kept
    """Channels of the full network that it has."""
    model: ModelSpec
    """The full network."""
    parameters: int
    """All parameters of the full network."""
    example_shape: tuple[int, ...]
    classes: int
    test_accuracy: float
    """On record: that of the full network under its mask."""
    ticket_digest: str
    training_digest: str

    @classmethod
    def of(
        cls, full: nn.Module, mask: Mask, dataset: Dataset, model: ModelSpec, **recorded: Any
    ) -> Export:
        """Export of a trained network.

        Args:
            full: the network with its trained weights, on the CPU.
            recorded: `test_accuracy` and the digests.

        Raises:
            SpecError: the network cannot be made smaller.
        """
        smaller, kept = compact_and_kept(full, mask, dataset.shape)
        network = CompactNetwork(
            smaller, dataset.mean.cpu(), dataset.std.cpu(), dataset.per_image
        ).eval()
        return cls(
            network=network, kept=kept, model=model,
            parameters=sum(p.numel() for p in full.parameters()),
            example_shape=dataset.shape, classes=dataset.classes, **recorded,
        )  # fmt: skip

    def __str__(self) -> str:
        weights = sum(p.numel() for p in self.network.parameters())
        return (f"{weights:,} of {self.parameters:,} parameters, "
                f"test accuracy {self.test_accuracy:.4f} on record")  # fmt: skip

    def to_bytes(self) -> bytes:
        """Content of the safetensors file.

        Raises:
            TicketFileError: a weight is not finite, or `load_compact` would refuse the size.
        """
        tensors = {
            f"weights/{n}": v.contiguous() for n, v in state_of(self.network.network).items()
        }
        tensors |= {f"channels/{name}": pack_bits(kept) for name, kept in self.kept.items()}
        tensors |= {"normalize/mean": self.network.mean.contiguous(),
                    "normalize/std": self.network.std.contiguous()}  # fmt: skip
        check_finite(tensors)
        return file_content(tensors, {
            "format": FORMAT,
            "model": canonical_json(describe(self.model)),
            "channels": json.dumps({name: len(kept) for name, kept in self.kept.items()}),
            "parameters": str(self.parameters),
            "example_shape": canonical_json(list(self.example_shape)),
            "classes": str(self.classes),
            "per_image": json.dumps(self.network.per_image),
            "test_accuracy": repr(self.test_accuracy),
            "ticket_digest": self.ticket_digest,
            "training_digest": self.training_digest,
            "content_digest": digest_of_tensors(tensors),
        })  # fmt: skip

    def to_torch(self) -> bytes:
        """Content of a file of `torch.export.load`, for any number of examples.

        Raises:
            SpecError: torch.export cannot follow the network's code.
        """
        content = io.BytesIO()
        with _exporting("torch.export", self.model.name):
            x, shapes = self._example()
            torch.export.save(
                torch.export.export(self.network, (x,), dynamic_shapes=shapes), content
            )
        return content.getvalue()

    def to_onnx(self) -> bytes:
        """Content of an ONNX file: input ``x``, float32, and output ``logits``, for any number of
        examples.

        Raises:
            SpecError: a package is missing, or the network cannot be expressed in ONNX.
        """
        if missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]:
            rule = (
                "needs packages that are not installed: pip install 'lottery-ticket-sweeps[onnx]'"
            )
            raise SpecError("--onnx", rule, ", ".join(missing))
        with _exporting("ONNX", self.model.name):
            x, shapes = self._example()
            # torch.onnx falls back on a fixed number of examples where torch.export fails.
            torch.export.export(self.network, (x,), dynamic_shapes=shapes)
            program = torch.onnx.export(
                self.network, (x,), dynamo=True, verbose=False, dynamic_shapes=shapes,
                input_names=["x"], output_names=["logits"],
            )  # fmt: skip
            assert program is not None
            content: bytes = program.model_proto.SerializeToString()
        return content

    def _example(self) -> tuple[Tensor, dict[str, dict[int, Any]]]:
        """Two examples, and the name of the dimension that may have any size."""
        with evaluation_mode(self.network):
            x = made_up_examples(self.network.network, 2, self.example_shape)
        return x, {"x": {0: torch.export.Dim("batch")}}


@contextmanager
def _exporting(form: str, name: str) -> Iterator[None]:
    """Silence the exporter's warnings about its own parts, and turn its errors into a SpecError."""
    failing = f"cannot be exported to {form} for any number of examples"
    with errors_as_spec_errors("model.name", failing, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_compact(path: str | os.PathLike[str]) -> CompactNetwork:
    """Read a smaller network, in evaluation mode, checking sizes, shapes, digests and values.

    Raises:
        TicketFileError: the file is missing, truncated, altered, or of another format or network.
    """
    return read_file(path, FORMAT, _network)


def _network(header: Mapping[str, str], tensors: State) -> CompactNetwork:
    check_fields(header, {"content_digest": digest_of_tensors(tensors)})
    check_finite(tensors)
    shape, classes = json.loads(header["example_shape"]), int(header["classes"])
    check_sizes("example_shape", shape)
    check_sizes("classes", [classes])
    kept = _kept(json.loads(header["channels"]), tensors)
    weights = {
        name.removeprefix("weights/"): value
        for name, value in tensors.items()
        if name.startswith("weights/")
    }
    spec = ModelSpec(**with_implied(ModelSpec, json.loads(header["model"])))
    check_weights("its full network must have", int(header["parameters"]))
    models.warn_of_changed_code(spec)
    with no_larger_than(spec.name, len(weights), int(header["parameters"])):
        full = models.build(spec, tuple(shape), classes, generator(0, "ticket"))
    channels = channels_of(full, tuple(shape))
    if {name: group.size for name, group in channels.items()} != {
        name: len(bits) for name, bits in kept.items()
    }:
        raise TicketFileError(f"channels: must be those of {spec.name}")
    network = without_channels(full, channels, kept)
    _make_biases(network, weights)
    try:
        load_state(network, weights)
    except RuntimeError as error:
        raise TicketFileError(f"does not fit {spec.name}: {exception_text(error)}") from None
    mean, std = tensors["normalize/mean"], tensors["normalize/std"]
    return CompactNetwork(network, mean, std, header["per_image"] == "true").eval()


def _kept(sizes: Mapping[str, int], tensors: State) -> Kept:
    """Channels of each group, (channels,) bool, from the file's bits."""
    kept = {}
    for name, size in sizes.items():
        check_sizes(f"channels of {name}", [size])
        bits = tensors[f"channels/{name}"]
        if bits.dtype != torch.uint8 or bits.shape != (-(-size // 8),):
            raise TicketFileError(f"channels/{name}: must be {-(-size // 8)} bytes, but got "
                                  f"{tuple(bits.shape)} of {bits.dtype}")  # fmt: skip
        kept[name] = unpack_bits(bits, [size])
        if not kept[name].any():
            raise TicketFileError(f"channels/{name}: must keep a channel")
    return kept


def _make_biases(network: nn.Module, weights: State) -> None:
    """Make the biases that constants were folded into, in layers that have none in full."""
    for name, value in weights.items():
        layer, _, attribute = name.rpartition(".")
        module: Any = network.get_submodule(layer)
        if attribute == "bias" and getattr(module, "bias", value) is None:
            module.bias = nn.Parameter(torch.zeros_like(value))
