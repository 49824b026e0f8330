"""Methods that find a mask during training, by their names in a study file."""

from __future__ import annotations

from lth_core.train.masking.dynamic import SET, RigL
from lth_core.train.masking.edge_popup import EdgePopup
from lth_core.train.masking.gradual import GMP
from lth_core.train.masking.learned import Learned
from lth_core.train.masking.supermask import Supermask

GROW: dict[str, type[GMP]] = {"none": GMP, "random": SET, "gradient": RigL}
"""Methods that train the weights, by `prune.grow`."""

LEARN: dict[str, type[Learned]] = {"edge-popup": EdgePopup, "supermask": Supermask}
"""Methods that train only the mask, by `prune.score`."""
