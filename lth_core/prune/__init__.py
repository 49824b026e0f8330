"""Pruning = score, scope, keep exactly k."""

from lth_core.prune.candidate import Candidate, Scores
from lth_core.prune.exact import lowest
from lth_core.prune.schedules import SCHEDULES
from lth_core.prune.scope import SCOPES, groups
from lth_core.prune.scores import ROUNDS, SCORES
from lth_core.prune.select import at_level, compounded, prune, requested_density, shapes_of
from lth_core.prune.structure import STRUCTURES

__all__ = [
    "ROUNDS",
    "SCHEDULES",
    "SCOPES",
    "SCORES",
    "STRUCTURES",
    "Candidate",
    "Scores",
    "at_level",
    "compounded",
    "groups",
    "lowest",
    "prune",
    "requested_density",
    "shapes_of",
]
