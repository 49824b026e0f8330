"""Scope: which layers compete, and what fraction each group of them loses."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lth_core.errors import SpecError
from lth_core.spec import PruneSpec

Groups = list[tuple[list[str], float]]
"""Layers that compete with each other, and the fraction of their survivors that a level removes."""


def groups(layers: Sequence[str], spec: PruneSpec) -> Groups:
    """Divide the prunable layers (in the model's order; the last is the output) into groups.

    Layerwise, each layer is a group; globally, all are one. A layer with a fraction of its own is
    a group of its own under either scope. Ignored layers are in none.

    >>> groups(["fc1", "fc2", "output"], PruneSpec(scope="global", output_fraction=0.1))
    [(['fc1', 'fc2'], 0.2), (['output'], 0.1)]

    Raises:
        SpecError: a pattern matches no layer, or every layer is ignored.
    """
    output = layers[-1]
    named = _by_pattern("prune.layer_fractions", spec.layer_fractions, layers)
    own = {layer: spec.layer_fractions[pattern] for layer, pattern in named.items()}
    if spec.output_fraction is not None:
        own[output] = spec.output_fraction
    ignored = set(_by_pattern("prune.ignore", spec.ignore, layers))
    together = [layer for layer in layers if layer not in ignored and layer not in own]
    alone = [([layer], own[layer]) for layer in layers if layer in own and layer not in ignored]
    if not together and not alone:
        raise SpecError("prune.ignore", "must leave a layer to prune", spec.ignore, layers)
    if spec.scope == "layerwise":
        return [([layer], spec.fraction) for layer in together] + alone
    return [(together, spec.fraction), *alone] if together else alone


def _by_pattern(field: str, patterns: object, layers: Sequence[str]) -> dict[str, str]:
    """Layer -> the last pattern that names it; ``output`` names the last layer."""
    found = {}
    for pattern in patterns:  # type: ignore[attr-defined]
        hits = [layer for layer in layers if fnmatchcase(layer, pattern)]
        if not hits and pattern == "output":
            hits = [layers[-1]]
        if not hits:
            raise SpecError(field, "must match a prunable layer", pattern, layers)
        found.update(dict.fromkeys(hits, pattern))
    return found
