"""Named initializations, drawn from a passed generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from lth_core.errors import SpecError
from lth_core.models.channels import narrow_shape, places
from lth_core.models.layers import norm_scales, parameter_of, prunable_layers
from lth_core.spec import Initialization, ModelSpec


def _signed_constant(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The weight (out, in, ...), set in place to sqrt(2/fan in) with random signs.

    Ramanujan et al. 2020, section 4.1.
    """
    signs = torch.randint(0, 2, weight.shape, generator=generator) * 2 - 1
    with torch.no_grad():
        return weight.copy_(signs * sqrt(2 / weight[0].numel()))


_DRAW: dict[str, Callable[..., Tensor]] = {
    "kaiming_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "kaiming_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "xavier_normal": nn.init.xavier_normal_,
    "xavier_uniform": nn.init.xavier_uniform_,
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "signed_constant": _signed_constant,
}


def initialize(model: nn.Module, init: Initialization, generator: torch.Generator) -> None:
    """Draw linear and convolution weights in the model's order; set their biases to 0.

    kaiming: fan in, gain of ReLU (He et al. 2015); xavier: Glorot & Bengio 2010, gain 1, where as
    in torch the fan out of a grouped or depthwise convolution is that of all its groups;
    lecun: fan in, gain 1 (LeCun et al. 1998, TensorFlow's variance scaling, there truncated);
    signed_constant: kaiming's standard deviation with a random sign; as_built: no change. All
    other layers stay as they were built.
    """
    if init == "as_built":
        return
    for module, weight in prunable_layers(model).values():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            _DRAW[init](weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def narrow_weights(
    model: nn.Module,
    init: Initialization,
    entries: Mapping[str, Mapping[int, Tensor]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Weights of a network with fewer channels, drawn for its widths; 0 where it has none.

    Args:
        entries: (entries,) bool of the dimensions of each tensor that loses some, by name.

    Returns:
        (out, in, ...) of the layers that `initialize` draws, by parameter name; none of `as_built`.
    """
    drawn: dict[str, Tensor] = {}
    if init == "as_built":
        return drawn
    for layer, (module, weight) in prunable_layers(model).items():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            name = parameter_of(layer)
            dims = entries.get(name, {})
            shape = narrow_shape(dims, weight.shape)
            drawn[name] = torch.zeros(weight.shape)
            if 0 not in shape:
                narrow = _DRAW[init](torch.empty(shape), generator=generator)
                drawn[name][places(dims, weight.shape)] = narrow.reshape(-1)
    return drawn


def initialize_norms(model: nn.Module, spec: ModelSpec, generator: torch.Generator) -> None:
    """Draw or set the scales of batch norm where the spec asks for it, in the model's order.

    Raises:
        SpecError: the model has no batch norm with scales.
    """
    if spec.norm_init == "ones":
        return
    scales = norm_scales(model)
    if not scales:
        rule = f"needs batch norm with scales, which {spec.name} lacks, so it must be 'ones'"
        raise SpecError("model.norm_init", rule, spec.norm_init)
    for scale in scales:
        if spec.norm_init == "half":
            nn.init.constant_(scale, 0.5)
        else:
            nn.init.uniform_(scale, generator=generator)
