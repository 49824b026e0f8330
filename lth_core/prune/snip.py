"""SNIP: sensitivity of the loss to each connection (Lee et al. 2019)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lth_core.models.derivatives import differentiable
from lth_core.prune.network import PrunableNetwork, Scores


def snip(network: PrunableNetwork) -> Scores:
    """|dL/dc| of a mask c on the weights, at c = mask: connection sensitivity (Lee et al. 2019).

    The loss is differentiated in the mask, not in the weight; at the mask that is |w dL/dw|. Batch
    norm uses `prune.statistics`. A weight of 0 scores 0, and so do all weights of a network with an
    empty layer. Ties are broken by a seeded draw. The last weight of a layer may be pruned: very
    sparse masks have layers without survivors. Scores are (out, in, ...) float32 of each layer.

    >>> from lth_core.prune.network import from_model
    >>> layer = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
    >>> snip(from_model(layer, torch.tensor([[1.0, 1.0]]), torch.tensor([0])))["weight"]
    tensor([[0.3775, 0.0000],
            [0.1888, 0.0000]])
    """
    model, (x, y) = network.model(), network.batch()
    parameters = dict(model.named_parameters())
    device = next(iter(parameters.values())).device
    c = {
        name: mask.to(device, torch.float32).requires_grad_() for name, mask in network.mask.items()
    }
    connected = {name: parameters[name].detach() * c[name] for name in c}
    with differentiable(model):
        logits = torch.func.functional_call(model, connected, (x,))
        gradients = torch.autograd.grad(cross_entropy(logits, y), list(c.values()))
    return {name: g.abs().cpu() for name, g in zip(c, gradients, strict=True)}
