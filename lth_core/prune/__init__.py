"""Pruning: score, scope, keep exactly k."""

from lth_core.prune.network import PrunableNetwork, Scores
from lth_core.prune.schedules import SCHEDULES
from lth_core.prune.scope import SCOPES, groups
from lth_core.prune.scores import ROUNDS, SCORES
from lth_core.prune.select import at_level, compounded, prune, requested_density, shapes_of
from lth_core.prune.structure import STRUCTURES
from lth_core.prune.top_k import lowest

__all__ = [
    "ROUNDS",
    "SCHEDULES",
    "SCOPES",
    "SCORES",
    "STRUCTURES",
    "PrunableNetwork",
    "Scores",
    "at_level",
    "compounded",
    "groups",
    "lowest",
    "prune",
    "requested_density",
    "shapes_of",
]
