"""Scores of a user's own, as a study file names them."""

import torch
from torch import Tensor

from lth_core.prune import PrunableNetwork, Scores


def of_the_copy(network: PrunableNetwork) -> Scores:
    """Magnitude, of the network that the prunable network makes a copy of."""
    parameters = dict(network.model().named_parameters())
    return {name: parameters[name].detach().abs() for name in network.mask}


def attached(network: PrunableNetwork) -> Scores:
    """Magnitude again, with an unneeded gradient."""
    parameters = dict(network.model().named_parameters())
    return {name: parameters[name].abs() for name in network.mask}


def of_the_start(network: PrunableNetwork) -> Scores:
    """Magnitude, at the start of the training."""
    return {name: w.abs() for name, w in network.initial.items()}


def distance(network: PrunableNetwork) -> Scores:
    """Distance from the start."""
    return {name: (w - network.initial[name]).abs() for name, w in network.weights.items()}


def distance_in_place(network: PrunableNetwork) -> Scores:
    """The same, in the tensors that it was given."""
    for name, w in network.weights.items():
        network.initial[name].sub_(w).abs_()
        w.zero_()
    return dict(network.initial)


def undefined(network: PrunableNetwork) -> Scores:
    return {name: torch.full_like(w, float("nan")) for name, w in network.weights.items()}


def undefined_where_dead(network: PrunableNetwork) -> Scores:
    return {name: w.abs() / network.mask[name] for name, w in network.weights.items()}


def forgetful(network: PrunableNetwork) -> Scores:
    return dict(list(network.weights.items())[:-1])


def flattened(network: PrunableNetwork) -> Scores:
    return {name: w.flatten() for name, w in network.weights.items()}


def whole(network: PrunableNetwork) -> Scores:
    return {name: w.sign().long() for name, w in network.weights.items()}


def lists(network: PrunableNetwork) -> dict[str, list[float]]:
    return {name: w.tolist() for name, w in network.weights.items()}


def a_tensor(network: PrunableNetwork) -> Tensor:
    return torch.ones(3)
