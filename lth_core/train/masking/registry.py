"""The ways to find a mask while something trains, by what a study file calls them."""

from __future__ import annotations

from lth_core.train.masking.dynamic import SET, RigL
from lth_core.train.masking.edge_popup import EdgePopup
from lth_core.train.masking.gradual import GMP
from lth_core.train.masking.learned import Learned
from lth_core.train.masking.supermask import Supermask

GROW: dict[str, type[GMP]] = {"none": GMP, "random": SET, "gradient": RigL}
"""While weights train, by `prune.grow`."""

LEARN: dict[str, type[Learned]] = {"edge-popup": EdgePopup, "supermask": Supermask}
"""While nothing else trains, by `prune.score`."""
