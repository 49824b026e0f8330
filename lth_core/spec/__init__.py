"""Specs: frozen values of everything that decides a result, with a digest.

A result is a pure function of its spec. ``digest`` is sha256 over canonical JSON of all fields
(defaults too) and the schema version. It leaves out fields marked ``NOT_DECIDING``, and fields
that were ``added_later`` and have the value that older code implied.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lth_core.errors import SpecError, nearest
from lth_core.spec.data import Augment, DataSpec
from lth_core.spec.digest import (
    NOT_DECIDING,
    SCHEMA,
    added_later,
    canonical_json,
    deciding,
    describe,
    digest_of,
    sha256,
    spec_json,
    with_implied,
)
from lth_core.spec.fields import STRICT, Checks
from lth_core.spec.model import Initialization, ModelSpec
from lth_core.spec.prune import (
    PruneAfter,
    PruneBefore,
    PruneDuring,
    PruneGates,
    PruneNever,
    PruneSpec,
    Pruning,
)
from lth_core.spec.prune_base import PruneBase
from lth_core.spec.stability import StabilitySpec
from lth_core.spec.train import Optimizer, Precision, Schedule, TrainSpec

__all__ = [
    "NOT_DECIDING",
    "SCHEMA",
    "Augment",
    "DataSpec",
    "Initialization",
    "ModelSpec",
    "Optimizer",
    "Precision",
    "PruneAfter",
    "PruneBase",
    "PruneBefore",
    "PruneDuring",
    "PruneGates",
    "PruneNever",
    "PruneSpec",
    "Pruning",
    "Schedule",
    "StabilitySpec",
    "TicketSpec",
    "TrainSpec",
    "added_later",
    "canonical_json",
    "deciding",
    "describe",
    "digest_of",
    "sha256",
    "spec_json",
    "with_implied",
]

MOST_LEVELS = 1000
"""Largest number of levels of a search: far fewer levels prune every weight."""

_PARTS = {"data": DataSpec, "model": ModelSpec, "train": TrainSpec, "prune": PruneBase,
          "stability": StabilitySpec}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TicketSpec(Checks):
    """One search for tickets: a dense run, then `levels` prunings with their branches."""

    __pydantic_config__ = STRICT

    data: DataSpec = field(default_factory=DataSpec)
    """Training, validation and test examples."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """Network and initialization."""
    train: TrainSpec = field(default_factory=TrainSpec)
    """Training of the network."""
    prune: Pruning = field(default_factory=PruneAfter)
    """Pruning of the network."""
    levels: int = 15
    """Number of successive prunings, at most 1,000; 0: the dense run alone."""
    rewind: int | str = "0it"
    """Rewind point: the step (`500it`), epoch (`2ep`) or share of training (`5%`) whose weights a
    ticket starts from."""
    restart_schedule: bool = field(default=False, metadata=added_later(implied=False))
    """Whether a rewound ticket trains on the whole schedule again: from the rewind point's weights,
    but from step 0 of learning rate, warm-up and data order. false: from the rewind point's step
    on. At rewind point 0 both are the same."""
    branches: tuple[str, ...] = ("ticket", "reinit", "random_mask")
    """Branches of each level: the ticket and its controls; see `lth list branches`."""
    ticket: str | None = field(default=None, metadata=added_later(implied=None))
    """A ticket of another search, such as one with other data or another optimizer, whose mask and
    weights level 1 takes (Morcos et al. 2019): a ticket file, or the digest of a ticket in the
    study's store, or its start. The network must have its prunable layers; where the number of
    classes differs, the output layer is fresh and whole. `levels` must be 1, and `rewind` 0."""
    predictors: bool = False
    """Whether to record numbers of the dense run at the rewind point that may predict whether it is
    late enough: distance, cosine and signs against its end, loss, gradient, curvature, masks."""
    stability: StabilitySpec = field(default_factory=StabilitySpec)
    """Comparison of branch `twin` with its original."""
    seed: int = 0
    """Random seed of the replicate: initialization, data order, augmentation, control masks."""

    def __post_init__(self) -> None:
        self._normalize()
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise SpecError(name, f"must be a {name.capitalize()}Spec", getattr(self, name))
        self._number("levels", 0)
        if self.levels > MOST_LEVELS:
            raise SpecError("levels", f"must be at most {MOST_LEVELS:,}", self.levels)
        self._number("seed", 0)
        self._duration("rewind")
        if self.prune.densities and self.levels != len(self.prune.densities):
            rule = f"must be {len(self.prune.densities)}, the number of prune.densities"
            raise SpecError("levels", rule, self.levels)
        if self.prune.pattern and self.levels > 1:
            rule = f"must be 1: structure {self.prune.structure} has one density"
            raise SpecError("levels", rule, self.levels)
        if "ticket" not in self.branches or len(set(self.branches)) < len(self.branches):
            rule, misspelled = "must name 'ticket', and each branch once", ""
            if "ticket" not in self.branches and nearest("ticket", map(str, self.branches)):
                misspelled = "`ticket`"
            raise SpecError("branches", rule, self.branches, meant=misspelled)

    def digest(self) -> str:
        """sha256 of everything that decides the result."""
        parts = {name: spec_json(getattr(self, name)) for name in deciding(self)}
        return digest_of("ticket_spec", parts)
