"""Sizes of a plan's networks: the weights that can be pruned, and what lies beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lth_core import data
from lth_core.models import template
from lth_core.models.layers import layer_of, parameter_of, prunable_layers
from lth_core.spec import DataSpec, ModelSpec
from sweeps.plan.plan import Plan

MOST_NETWORKS, MOST_LAYERS = 3, 3
"""Largest numbers of networks, and of layers of each, that a text names."""
MOST_BUILT = 20
"""Largest number of networks that are built for their sizes."""


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """Parameters of a network on a dataset."""

    network: str
    """Name and size: ``mlp 300-100 (width 0.5) on digits``."""
    parameters: int
    prunable: int
    others: dict[str, int]
    """Parameters that are not prunable, by layer, most first; biases and norms as one."""

    def sentence(self) -> str:
        """Sizes in words: ``mlp 300-100 on digits: 50,200 of 50,610 parameters ...``."""
        named = [f"{layer} {count:,}" for layer, count in list(self.others.items())[:MOST_LAYERS]]
        named += ["..."] * (len(self.others) > MOST_LAYERS)
        beside = f" (not: {', '.join(named)})" if named else ""
        return (
            f"{self.network}: {self.prunable:,} of {self.parameters:,} parameters are "
            f"prunable{beside}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON object with the fields."""
        return asdict(self)


def size_lines(plan: Plan) -> list[str]:
    """A sentence for each network of a plan, and the number of networks that are left out.

    Networks that differ in other respects than size, such as the initialization, share a line.
    """
    lines = list(dict.fromkeys(size.sentence() for size in network_sizes(plan)))
    left_out = len(lines) - MOST_NETWORKS + max(len(_networks(plan)) - MOST_BUILT, 0)
    more = f"and {left_out:,} more network{'s' * (left_out != 1)}"
    return [*lines[:MOST_NETWORKS], more] if left_out > 0 else lines


def network_sizes(plan: Plan) -> Iterator[NetworkSize]:
    """Size of each network of a plan's trials on each dataset, at most `MOST_BUILT`."""
    for model, dataset, include in _networks(plan)[:MOST_BUILT]:
        _, shape, classes = data.outline(dataset)
        network = template(model, shape, classes)
        others = _beside(network, include)
        total = sum(parameter.numel() for parameter in network.parameters())
        yield NetworkSize(
            network=network_text(model, dataset), parameters=total,
            prunable=total - others.total(), others=dict(others.most_common()),
        )  # fmt: skip


def _networks(plan: Plan) -> list[tuple[ModelSpec, DataSpec, tuple[str, ...]]]:
    """Networks, their data, and the embeddings that are prunable."""
    specs = [trial.spec for trial in plan.trials]
    return list(dict.fromkeys((spec.model, spec.data, spec.prune.include) for spec in specs))


def _beside(network: nn.Module, include: tuple[str, ...]) -> Counter[str]:
    """Numbers of parameters that are not prunable, by layer."""
    prunable = {parameter_of(layer) for layer in prunable_layers(network, include)}
    others = Counter[str]()
    for name, parameter in network.named_parameters():
        if name not in prunable:
            small = parameter.dim() < 2
            others["biases and norms" if small else layer_of(name)] += parameter.numel()
    return others


def network_text(model: ModelSpec, dataset: DataSpec) -> str:
    """Network and dataset in words: ``mlp 300-100 (width 0.5) on digits``."""
    default = ModelSpec()
    name = model.name
    if model.name == "mlp":
        name += " " + "-".join(map(str, model.widths))
    sized = [f"{part} {getattr(model, part):g}" for part in ("width", "depth")
             if getattr(model, part) != getattr(default, part)]  # fmt: skip
    return " ".join([*([name] if not sized else [name, f"({', '.join(sized)})"]),
                     f"on {dataset.name}"])  # fmt: skip
