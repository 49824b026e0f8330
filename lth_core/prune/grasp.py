"""GraSP: keep the gradient flowing (Wang et al. 2020)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from lth_core.models.derivatives import twice_differentiable
from lth_core.prune.network import PrunableNetwork, Scores


def grasp(network: PrunableNetwork) -> Scores:
    """w (H g): weights whose removal most raises, or least lowers, the gradient's norm are pruned
    (Wang et al. 2020).

    The paper's S is -w (H g), and the highest are pruned (equation 8). H is the Hessian and g the
    gradient of the loss in the surviving weights. Logits are divided by `prune.temperature`, as in
    the authors' code; batch norm uses `prune.statistics`. Scores have either sign. In a network
    without gradient, such as one with an empty layer, all scores are 0 and a seeded draw decides.
    The last weight of a layer may be pruned. Scores are (out, in, ...) float32 of each layer.

    >>> from lth_core.prune.network import from_model
    >>> layer = torch.nn.Linear(1, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[1.0], [0.5]]))
    >>> score = grasp(from_model(layer, torch.ones(1, 1), torch.tensor([0])))["weight"]
    >>> score.sign()  # g lowers the first logit's weight: keeping it keeps the gradient small
    tensor([[-1.],
            [ 1.]])
    """
    model, (x, y) = network.model(), network.batch()
    parameters = dict(model.named_parameters())
    weights = [parameters[name] for name in network.mask]
    alive = [network.mask[name].to(w.device) for name, w in zip(network.mask, weights, strict=True)]
    with twice_differentiable(model):
        loss = cross_entropy(model(x) / network.spec.temperature, y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        # d(g.stop(g))/dw = H g over the survivors: the gradient of a pruned weight does not count.
        flow = torch.stack(
            [(g * (g * a).detach()).sum() for g, a in zip(gradients, alive, strict=True)]
        ).sum()
        products = torch.autograd.grad(flow, weights)
    return {
        name: (w.detach() * p).cpu()
        for name, w, p in zip(network.mask, weights, products, strict=True)
    }
