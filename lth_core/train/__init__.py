"""Training: ``train(jobs) -> results`` is the only entry point."""

from lth_core.train.checkpoint import CHECKPOINT_EVERY
from lth_core.train.trainer import Trainer

__all__ = ["CHECKPOINT_EVERY", "Trainer"]
