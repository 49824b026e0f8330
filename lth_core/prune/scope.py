"""Scope: groups of layers that compete, the share that each loses, and densities of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from math import prod

from lth_core.errors import SpecError
from lth_core.prune.structure import Shapes, layers_with_units
from lth_core.spec import PruneBase

Groups = list[tuple[list[str], float]]
"""Layers that compete with each other, and the fraction of survivors that a level removes."""

SCOPES = {
    "global": "all weights compete (Frankle & Carbin 2019, section 4)",
    "layerwise": "weights compete within their layer, each layer loses the same share "
    "(Frankle & Carbin 2019, section 2)",
    "erk": "larger layers get sparser: density follows (in + out + kernel) / (in x out x kernel) "
    "(Erdos-Renyi-Kernel, Evci et al. 2020)",
    "like:SCORE": "weights compete within their layer, each layer gets the density that another "
    "score would give it globally (Frankle et al. 2021)",
}


def groups(shapes: Shapes, spec: PruneBase) -> Groups:
    """Divide the prunable layers (in the model's order; the last is the output) into groups.

    Layerwise, each layer is a group; else all layers are one group. A layer with its own fraction
    is a group under any scope. Ignored layers, and layers without units of ``structure``, are in no
    group. A group of one weight loses it at fractions above a half; in a global group a layer may
    lose its last weight.

    >>> shapes = {"fc1": (30, 8), "fc2": (9, 30), "output": (10, 9)}
    >>> groups(shapes, PruneBase(scope="global", output_fraction=0.1))
    [(['fc1', 'fc2'], 0.2), (['output'], 0.1)]

    Raises:
        SpecError: a pattern matches no layer, or no layer is left.
    """
    layers = list(shapes)
    output = layers[-1]
    patterns = fraction_patterns(shapes, spec)
    own_fractions = {layer: spec.layer_fractions[name] for layer, name in patterns.items()}
    if spec.output_fraction is not None:
        own_fractions[output] = spec.output_fraction
    ignored = set(_pattern_by_layer("prune.ignore", spec.ignore, layers))
    structured = layers_with_units(shapes, spec)
    if not structured:
        rule = "must be units that a prunable layer of this network has: channels are those of "
        rule += "convolutions, neurons those of linear layers"
        raise SpecError("prune.structure", rule, spec.structure)
    pruned = [layer for layer in structured if layer not in ignored]
    if not pruned:
        raise SpecError("prune.ignore", "must leave a layer to prune", spec.ignore, layers)
    competing = [layer for layer in pruned if layer not in own_fractions]
    alone = [([layer], own_fractions[layer]) for layer in pruned if layer in own_fractions]
    if spec.scope == "layerwise":
        return [([layer], spec.fraction) for layer in competing] + alone
    return [(competing, spec.fraction), *alone] if competing else alone


def erk(shapes: Shapes, sizes: Sequence[int], total: int, structure: str = "weights") -> list[int]:
    """Number of units that each layer keeps, ``total`` in all, by Erdos-Renyi-Kernel.

    A layer's density is proportional to the sum of its weight's dimensions over their product. A
    layer whose share exceeds its units keeps all of them, and the others divide the rest (Evci et
    al. 2020). A layer whose share rounds to 0 keeps none.

    >>> erk({"a": (100, 10), "b": (10, 10)}, [1000, 100], 220)
    [186, 34]

    Args:
        sizes: number of units in each layer.
        structure: the kind of unit.
    """
    # A structured unit is a row of the first dimension: the density in rows is that in weights.
    shares = [
        sum(shape) / (1 if structure == "weights" else prod(shape[1:])) for shape in shapes.values()
    ]
    return in_proportion(shares, sizes, total)


def in_proportion(shares: Sequence[float], limits: Sequence[int], total: int) -> list[int]:
    """Whole numbers proportional to ``shares``, none above its limit, with sum ``total``.

    >>> in_proportion([3, 1, 1], [2, 9, 9], 7)
    [2, 3, 2]
    """
    assert 0 <= total <= sum(limits)
    unset, exact = list(range(len(shares))), [0.0] * len(shares)
    remaining = float(total)
    while unset:
        scale = remaining / sum(shares[i] for i in unset)
        full = [i for i in unset if shares[i] * scale >= limits[i]]
        for i in full or unset:
            exact[i] = float(limits[i]) if full else shares[i] * scale
        remaining -= sum(limits[i] for i in full)
        unset = [i for i in unset if i not in full] if full else []
    counts = [int(value) for value in exact]
    # Rounding down leaves a remainder; it goes to the numbers that lost most.
    by_loss = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    below_limit = [i for i in by_loss if counts[i] < limits[i]]
    for i in below_limit[: total - sum(counts)]:
        counts[i] += 1
    assert sum(counts) == total
    return counts


def fraction_patterns(shapes: Shapes, spec: PruneBase) -> dict[str, str]:
    """The pattern of `prune.layer_fractions` that counts for each layer that has one.

    Raises:
        SpecError: a pattern matches no layer.
    """
    return _pattern_by_layer("prune.layer_fractions", spec.layer_fractions, list(shapes))


def _pattern_by_layer(field: str, patterns: Iterable[str], layers: Sequence[str]) -> dict[str, str]:
    """The last pattern that matches each layer; ``output`` matches the last layer."""
    by_layer = dict[str, str]()
    for pattern in patterns:
        matches = [layer for layer in layers if fnmatchcase(layer, pattern)]
        if not matches and pattern == "output":
            matches = [layers[-1]]
        if not matches:
            raise SpecError(field, "must match a prunable layer", pattern, layers)
        by_layer.update(dict.fromkeys(matches, pattern))
    return by_layer
