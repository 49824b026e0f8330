"""Named initializations, drawn from a passed generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lth_core.errors import SpecError
from lth_core.models.layers import prunable_layers
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

    kaiming: fan in, gain of ReLU (He et al. 2015); xavier: Glorot & Bengio 2010, gain 1;
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


def initialize_norms(model: nn.Module, spec: ModelSpec, generator: torch.Generator) -> None:
    """Draw the scales of batch norm where the spec asks for it, in the model's order.

    Raises:
        SpecError: the model has no batch norm with scales.
    """
    if spec.norm_init == "ones":
        return
    scales = [
        module.weight
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.weight is not None
    ]
    if not scales:
        rule = f"needs batch norm with scales, which {spec.name} lacks, so it must be 'ones'"
        raise SpecError("model.norm_init", rule, spec.norm_init)
    for scale in scales:
        nn.init.uniform_(scale, generator=generator)
