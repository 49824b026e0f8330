"""Budget: the channels of lowest score are removed until a network costs no more than a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil, floor, log10

import torch
from torch import Tensor

from lth_core.errors import SpecError
from lth_core.masks import Mask
from lth_core.models.channels import Channels, Kept
from lth_core.models.costs import Costs
from lth_core.prune.network import PrunableNetwork, Scores
from lth_core.prune.scores import SUMMED
from lth_core.prune.structure import ChannelUnits
from lth_core.spec import PruneBase
from lth_core.spec.prune_base import LATENCIES

Removals = list[tuple[str, int]]
"""Channels (group, number) in the order in which they are removed."""


def kept_within_budget(
    network: PrunableNetwork,
    units: ChannelUnits,
    scores: Scores,
    progress: float,
    generator: torch.Generator,
) -> Mask:
    """The mask of the network's highest-scored channels that together cost what the budget allows.

    The cost is at most the limit, and would be above it with one channel more. A latency is
    measured, and varies; this holds for the one measurement of each network.

    Args:
        progress: in (0, 1]; before 1 the limit lies between the dense network and the budget.

    Raises:
        SpecError: the smallest network costs more than the budget.
    """
    spec, mask = network.spec, network.mask
    alive = {name: units.alive(mask, name) for name in units.channels}
    summed = spec.score in SUMMED
    values = {name: units.scores(scores, mask, name, summed) for name in units.channels}
    order = removal_order(values, alive, spec.scope, generator)
    costs = network.costs()
    limit, cost = limit_and_cost(costs, spec, progress)
    count = fewest_removals(len(order), lambda n: cost(without(alive, order[:n])), limit)
    if count is None:
        raise _too_small(costs, spec, cost(without(alive, order)), 1)
    return units.mask(without(alive, order[:count]), mask)


def limit_and_cost(
    costs: Costs, spec: PruneBase, progress: float = 1.0
) -> tuple[float, Callable[[Kept], float]]:
    """The limit of a spec's budget, and the cost that it limits.

    Returns:
        FLOPs per example, parameters, or milliseconds, and a function from the kept channels to
        their cost.
    """
    ((kind, budget),) = spec.budget.items()
    if kind in LATENCIES:
        # Of the dense network, only a limit between its cost and the budget needs the latency.
        whole, target = costs.of(kind, {}) if progress < 1 else budget, budget
    else:
        whole = (costs.whole or costs).of(kind, {})
        target = budget * whole
    limit = target if progress == 1 else whole * (target / whole) ** progress
    return limit, lambda kept: costs.of(kind, kept)


def check_budget(costs: Costs, spec: PruneBase, channels: Channels, levels: int = 1) -> None:
    """Check that a network with one channel in each group is within the budget of the last level.

    Args:
        levels: number of levels, which multiply the spec's budget.

    Raises:
        SpecError: it costs more; the error says the smallest possible budget.
    """
    limit, cost = limit_and_cost(costs, replace(spec, budget=budget_at(spec, levels)))
    smallest = cost({name: torch.arange(group.size) == 0 for name, group in channels.items()})
    if smallest > limit:
        raise _too_small(costs, spec, smallest, levels)


def _too_small(costs: Costs, spec: PruneBase, smallest: float, levels: int) -> SpecError:
    """The error of a budget below the cost of the smallest network; it says the least budget."""
    ((kind, budget),) = spec.budget.items()
    least = smallest
    if kind not in LATENCIES:
        least = (smallest / (costs.whole or costs).of(kind, {})) ** (1 / levels)
    digits = 3 - floor(log10(least))  # four in all, rounded up: what the error says is enough
    least = ceil(least * 10**digits) / 10**digits
    rule = f"must be at least {least:.4g}, the cost with one channel in each pruned layer"
    if levels > 1:
        rule = f"{rule} after {levels} levels"
    return SpecError(f"prune.budget.{kind}", rule, budget)


def budget_at(spec: PruneBase, level: int) -> dict[str, float]:
    """The budget after ``level`` prunings: levels multiply a share of the dense network."""
    return {
        cost: limit if cost in LATENCIES else limit**level for cost, limit in spec.budget.items()
    }


def removal_order(
    scores: Mapping[str, Tensor],
    alive: Kept,
    scope: str,
    generator: torch.Generator,
) -> Removals:
    """Channels from the first that is removed to the last; the highest of each group never is.

    Globally, channels of all groups are removed by score. Layerwise, every group loses the same
    share at any time. Ties are broken by a draw.

    >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([0.0, 9.0])}
    >>> alive = {name: torch.ones(len(s)).bool() for name, s in scores.items()}
    >>> removal_order(scores, alive, "global", torch.Generator())
    [('b', 0), ('a', 1), ('a', 2)]

    Args:
        scores: (channels,) float of each group.
        alive: channels that are not pruned yet.
        scope: global or layerwise.
    """
    ranked = list[tuple[float, float, str, int]]()
    for name, values in scores.items():
        draws = torch.rand(len(values), generator=generator, dtype=torch.float64).tolist()
        left = [i for i, stays in enumerate(alive[name].tolist()) if stays]
        left.sort(key=lambda i: (float(values[i]), draws[i]))
        for place, channel in enumerate(left[:-1], start=1):
            priority = float(values[channel]) if scope == "global" else place / len(left)
            ranked.append((priority, draws[channel], name, channel))
    return [(name, channel) for *_, name, channel in sorted(ranked)]


def fewest_removals(most: int, cost: Callable[[int], float], limit: float) -> int | None:
    """The least number of removals after which the cost is within a limit, by bisection.

    Args:
        most: largest number of removals.
        cost: from a number of removals to the cost, which falls.

    Returns:
        None where the cost exceeds the limit after all removals.

    >>> fewest_removals(10, lambda n: 100 - 7 * n, 60)
    6
    """
    if cost(most) > limit:
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= limit else (middle + 1, high)
    return low


def without(alive: Kept, removals: Removals) -> Kept:
    """The channels that are left after removals."""
    kept = {name: stays.clone() for name, stays in alive.items()}
    for name, channel in removals:
        kept[name][channel] = False
    return kept
