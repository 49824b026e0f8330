"""The mask criteria of "Deconstructing lottery tickets" (Zhou et al. 2019), besides magnitude.

Each compares a weight's final value with its initial one, and looks at that weight alone, or at
most at its rank in its layer: a layer of one survivor, or of none, is scored as any other.
"""

import torch

from lth_core.prune.candidate import plain

EXAMPLE = plain(
    {"fc.weight": torch.tensor([-2.0, 0.5])}, initial={"fc.weight": torch.tensor([1.0, 1.0])}
)
"""Two weights that began at 1: one crossed 0 and grew, one shrank."""
