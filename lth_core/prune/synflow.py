"""SynFlow: keep synaptic flow, without data (Tanaka et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn

from lth_core.errors import SpecError
from lth_core.models.derivatives import differentiable
from lth_core.models.layers import prunable_layers
from lth_core.prune.network import PrunableNetwork, Scores

ROUNDS = 100
"""Rounds of scoring and pruning, as in the paper; fewer rounds prune whole layers."""


def synflow(network: PrunableNetwork) -> Scores:
    """|w dR/dw| of R = 1'(product of |w|)1: the flow through a weight (Tanaka et al. 2020).

    No data are used: all weights are made positive, biases and shifts are set to 0, and the input
    is all ones. The network is in evaluation mode and double precision, because deep networks
    overflow single precision. In a chain of layers (without skip connections or constant inputs)
    every layer's scores have the same sum, because flow is conserved in each unit. In a network
    with an empty layer all scores are 0, and a seeded draw decides. The only weight of a layer
    scores the whole sum. Layer norm subtracts a mean: behind it, flow has either sign and is not
    conserved; features that differ pass, equal ones do not. Ones as token ids are one row of an
    embedding, so embeddings are not scored. Scores are (out, in, ...) float64 of each layer.

    Raises:
        SpecError: an embedding is to be pruned.

    >>> from lth_core.prune.network import from_model
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> scores = synflow(from_model(net, torch.ones(1, 2), torch.tensor([0])))
    >>> bool((scores["0.weight"].sum() - scores["2.weight"].sum()).abs() < 1e-12)
    True
    """
    model = network.model().eval()
    if next(model.parameters()).device.type == "mps":
        model = model.cpu()  # mps has no float64
    model = model.double()
    _refuse_embeddings(model, network)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            own_name = name.rpartition(".")[2]
            if "bias" in own_name or own_name == "running_mean":  # an LSTM's are named bias_ih_l0
                tensor.zero_()
            elif tensor.is_floating_point():
                tensor.abs_()
    _without_ceilings(model)
    weights = [dict(model.named_parameters())[name] for name in network.mask]
    shape = network.batch()[0].shape[1:]
    ones = torch.ones(1, *shape, dtype=torch.float64, device=weights[0].device)
    with differentiable(model):
        gradients = torch.autograd.grad(model(ones).sum(), weights)
    return {
        name: (w * g).detach().abs().cpu()
        for name, w, g in zip(network.mask, weights, gradients, strict=True)
    }


def _refuse_embeddings(model: nn.Module, network: PrunableNetwork) -> None:
    embeddings = [
        name
        for name, layer in prunable_layers(model, network.spec.include).items()
        if isinstance(layer.module, nn.Embedding | nn.EmbeddingBag)
    ]
    if embeddings:
        rule = "must name no embedding where synflow scores: its input is all ones, so one row each"
        raise SpecError("prune.include", rule, ", ".join(embeddings))


def _without_ceilings(model: nn.Module) -> None:
    """Replace ReLU6 by ReLU in place: above 6 its gradient is 0."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU())
