"""The ticket: a mask and the weights to start from, in memory and as one safetensors file.

The file holds ``mask/NAME`` (uint8: the mask's C-order bits, little end first) and ``kept/NAME``
(1-D: the starting values of the survivors, in C order) of each masked parameter, and ``dense/NAME``
of every other parameter and buffer; the rest is in the header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lth_core import masks, models
from lth_core.display import table_html
from lth_core.errors import TicketFileError, exception_text
from lth_core.files.limits import (
    check_finite,
    check_memory,
    check_patterns,
    check_sizes,
    no_larger_than,
)
from lth_core.files.weights import (
    check_fields,
    digest_of_tensors,
    file_content,
    read_file,
    write_file,
)
from lth_core.masks import Mask, State
from lth_core.models.channels import kept_channels, masks_of
from lth_core.models.compact import compact
from lth_core.models.layers import load_state
from lth_core.models.semi_structured import semi_structured
from lth_core.prune import groups, shapes_of
from lth_core.seeds import generator
from lth_core.spec import (
    DataSpec,
    ModelSpec,
    PruneSpec,
    StabilitySpec,
    TicketSpec,
    TrainSpec,
    canonical_json,
    describe,
    with_implied,
)
from lth_core.spec.prune_base import CHANNELS

FORMAT = "lth-ticket/1"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Ticket:
    """A subnetwork ready to train; tickets of one digest are equal.

    rewind_step: step of the dense run at which the starting weights are taken; 0: fresh weights.
        Training starts at this step of the schedule, or at 0 with `spec.restart_schedule`.
    mask: (out, in, ...) bool by parameter name; True = kept.
    start: all weights and buffers to start from, by name; pruned weights are exactly 0.
    example_shape: shape of one example, such as (1, 28, 28).
    classes: number of outputs of the network.
    """

    spec: TicketSpec
    level: int
    branch: str
    rewind_step: int
    mask: Mask
    start: State
    example_shape: tuple[int, ...]
    classes: int

    @property
    def digest(self) -> str:
        """sha256 of the mask's bits and the starting values."""
        return digest(self.mask, self.start)

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Ticket) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def density(self) -> float:
        """Share of the prunable weights kept, in [0, 1]; ignored layers are not counted."""
        return masks.density(self._counted())

    @property
    def weights_kept(self) -> int:
        """Number of prunable weights kept; ignored layers are not counted."""
        return sum(int(mask.sum()) for mask in self._counted().values())

    def _counted(self) -> Mask:
        """The mask without ignored layers."""
        compared = groups(shapes_of(self.mask), self.spec.prune)
        names = [masks.parameter_of(layer) for layers, _ in compared for layer in layers]
        return {name: self.mask[name] for name in names}

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"<Ticket: {spec.model.name} on {spec.data.name}, seed {spec.seed}, "
            f"level {self.level}, {self.branch}, density {self.density:.4f}>"
        )

    def _repr_html_(self) -> str:
        rows = [
            [masks.layer_of(name), " x ".join(map(str, mask.shape)), f"{int(mask.sum()):,}",
             f"{mask.float().mean():.4f}"]
            for name, mask in self.mask.items()
        ]  # fmt: skip
        title = f"{repr(self)[1:-1]}, digest {self.digest[:12]}"
        return table_html(title, ["layer", "shape", "weights kept", "density"], rows)

    def model(self) -> nn.Module:
        """The network in training mode, with the starting weights. Apply ``mask`` after each step.

        Raises:
            TicketFileError: the network of the spec has other parameters.
            SpecError: the network cannot be built.
        """
        models.warn_of_changed_code(self.spec.model)
        unused = generator(0, "ticket")
        weights = sum(value.numel() for value in self.start.values())
        with no_larger_than(self.spec.model.name, len(self.start), weights):
            model = models.build(self.spec.model, self.example_shape, self.classes, unused)
        try:
            load_state(model, self.start)
        except RuntimeError as error:
            raise TicketFileError(
                f"the ticket does not fit {self.spec.model.name}: {exception_text(error)}"
            ) from None
        return model.train()

    def compact(self) -> nn.Module:
        """The network without channels that do not matter, in training mode, with starting weights.

        In evaluation mode it computes what `model` computes. It needs no mask where whole channels
        are pruned; weights that are pruned in channels that stay are 0, and training changes them.

        Raises:
            TicketFileError: as `model`.
            SpecError: as `model`, or the network cannot be made smaller.
        """
        return compact(self.model(), self.mask, self.example_shape)

    def semi_structured(self) -> nn.Module:
        """The network on the GPU, in float16 and evaluation mode; its linear layers that are 2:4
        are in torch's semi-structured form.

        Raises:
            TicketFileError: as `model`.
            SpecError: as `model`; no GPU has the form, or no layer is 2:4.
        """
        return semi_structured(self.model(), self.mask)

    def apply_mask(self, model: nn.Module) -> None:
        """Set the pruned weights of a model to exactly 0, in place; call it after each step.

        Where whole channels are pruned, their biases and norms are set to 0 too.
        """
        parameters = dict(model.named_parameters())
        mask = self.mask
        if self.branch != "dense" and self.spec.prune.structure in CHANNELS:
            network = self.spec.model, self.example_shape, self.classes
            channels = models.removable_channels(*network)
            shapes = {name: p.shape for name, p in parameters.items() if name not in mask}
            removed = masks_of(channels, kept_channels(channels, mask), shapes)
            mask = {**mask, **removed}
        with torch.no_grad():
            for name, kept in mask.items():
                parameters[name].masked_fill_(~kept.to(parameters[name].device), 0)

    def to_bytes(self) -> bytes:
        """Content of the ticket file.

        Raises:
            TicketFileError: a weight is not finite, or `load_ticket` would refuse the size.
        """
        check_patterns(self.spec.prune, len(self.mask))
        tensors = pack(self.start, self.mask)
        check_finite(tensors)
        header = {
            "format": FORMAT,
            "spec": canonical_json(describe(self.spec)),
            # In the model's order: `prune` may name the last layer as `output`.
            "shapes": json.dumps(
                {name: list(m.shape) for name, m in self.mask.items()}, separators=(",", ":")
            ),
            "density": repr(self.density),
            "spec_digest": self.spec.digest(),
            "mask_digest": masks.digest(self.mask),
            "ticket_digest": self.digest,
            "level": str(self.level),
            "branch": self.branch,
            "rewind_step": str(self.rewind_step),
            "example_shape": canonical_json(list(self.example_shape)),
            "classes": str(self.classes),
        }
        return file_content(tensors, header)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ticket file, whole or not at all.

        Raises:
            TicketFileError: as `to_bytes`, or the file cannot be written.
        """
        write_file(path, self.to_bytes())


def load_ticket(path: str | os.PathLike[str]) -> Ticket:
    """Read a ticket file, checking sizes, shapes, counts, digests and that all values are finite.

    Raises:
        TicketFileError: the file is missing, truncated, altered, or no ticket.
    """
    return read_file(path, FORMAT, _from_parts)


def _from_parts(header: Mapping[str, str], tensors: State) -> Ticket:
    spec, shapes = spec_from(json.loads(header["spec"])), json.loads(header["shapes"])
    check_patterns(spec.prune, len(shapes))
    example_shape, classes = json.loads(header["example_shape"]), int(header["classes"])
    check_sizes("example_shape", example_shape)
    check_sizes("classes", [classes])
    check_memory(tensors)
    start, mask = unpack(tensors, shapes)
    check_finite(tensors)
    ticket = Ticket(
        spec=spec,
        level=int(header["level"]),
        branch=header["branch"],
        rewind_step=int(header["rewind_step"]),
        mask=mask,
        start=start,
        example_shape=tuple(example_shape),
        classes=classes,
    )
    expected = {
        "mask_digest": masks.digest(mask),
        "ticket_digest": ticket.digest,
        "spec_digest": ticket.spec.digest(),
        "density": repr(ticket.density),
    }
    check_fields(header, expected)
    return ticket


def spec_from(described: Mapping[str, Any]) -> TicketSpec:
    """A spec from the output of ``describe``, of this version or an older one."""
    parts: dict[str, Callable[..., Any]] = {
        "data": DataSpec, "model": ModelSpec, "train": TrainSpec, "prune": PruneSpec,
        "stability": StabilitySpec,
    }  # fmt: skip
    values = with_implied(TicketSpec, described)
    described_parts = {name: part for name, part in values.items() if isinstance(part, Mapping)}
    values |= {name: parts[name](**part) for name, part in described_parts.items()}
    return TicketSpec(**values)


def pack(state: State, mask: Mask) -> dict[str, Tensor]:
    """Tensors of a file from a masked state.

    Returns:
        ``mask/NAME`` (n/8 rounded up,) uint8, ``kept/NAME`` (survivors,), and ``dense/NAME`` in the
        shape of the parameter or buffer.
    """
    packed = {}
    for name, value in state.items():
        if name in mask:
            packed[f"mask/{name}"] = masks.pack_bits(mask[name])
            packed[f"kept/{name}"] = masks.survivors(value, mask[name])
        else:
            packed[f"dense/{name}"] = value.contiguous()
    return packed


def unpack(tensors: State, shapes: Mapping[str, list[int]]) -> tuple[State, Mask]:
    """State and mask from the tensors of ``pack``.

    Args:
        tensors: by key, in the shapes that ``pack`` returns.
        shapes: shape of each mask, by parameter name.

    Raises:
        TicketFileError: bits, values and shapes do not match.
    """
    state, mask, used = {}, {}, set()
    for name, shape in shapes.items():
        bits, values = tensors.get(f"mask/{name}"), tensors.get(f"kept/{name}")
        if bits is None or values is None:
            raise TicketFileError(f"{name}: mask/{name} and kept/{name} must both be present")
        check_sizes(f"{name}: shape", shape)
        size = prod(shape)
        if bits.dtype != torch.uint8 or bits.shape != (-(-size // 8),):
            raise TicketFileError(f"mask/{name}: must be {-(-size // 8)} bytes for shape {shape}, "
                                  f"but got {tuple(bits.shape)} of {bits.dtype}")  # fmt: skip
        mask[name] = masks.unpack_bits(bits, shape)
        count = int(mask[name].sum())
        if values.shape != (count,) or not torch.equal(masks.pack_bits(mask[name]), bits):
            raise TicketFileError(f"kept/{name}: must hold the {count} survivors of its mask, but "
                                  f"got shape {tuple(values.shape)}")  # fmt: skip
        state[name] = torch.zeros(shape, dtype=values.dtype)
        state[name][mask[name]] = values
        used |= {f"mask/{name}", f"kept/{name}"}
    for key in sorted(tensors.keys() - used):
        if not key.startswith("dense/"):
            raise TicketFileError(f"{key}: must be mask/, kept/ (with a shape) or dense/")
        state[key.removeprefix("dense/")] = tensors[key]
    return state, mask


def digest(mask: Mask, start: State) -> str:
    """sha256 of a mask's bits and the starting values, as a ticket file stores them."""
    return digest_of_tensors(pack(start, mask))
