"""Order of the training examples, with random access by step so that a run can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lth_core.data.augment import draws
from lth_core.seeds import generator
from lth_core.spec import Augment


@dataclass(frozen=True, slots=True)
class Order:
    """Batches of every epoch, drawn from (seed, run, epoch); each example once an epoch.

    examples: number of training examples.
    run: level and data order, as `Job.run`.
    """

    examples: int
    batch_size: int
    seed: int
    run: str
    augment: Augment = "none"

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.examples // self.batch_size)

    def batches(
        self, first: int, last: int, device: torch.device
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, indices (b,) int64, augmentation draws (b, 3) int64) of steps first..last-1."""
        step = first
        while step < last:
            epoch, position = divmod(step, self.steps_per_epoch)
            order, drawn = (t.to(device) for t in self.epoch(epoch))
            batches = list(
                zip(order.split(self.batch_size), drawn.split(self.batch_size), strict=True)
            )
            for index, draw in batches[position : position + last - step]:
                yield step, index, draw
                step += 1

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order of the examples in one epoch, (n,) int64, and augmentation draws, (n, 3) int64."""
        order = torch.randperm(
            self.examples, generator=generator(self.seed, "order", self.run, epoch)
        )
        stream = generator(self.seed, "augment", self.run, epoch)
        return order, draws(self.augment, self.examples, stream)


def examples_seen(steps: int, batch_size: int, examples: int) -> int:
    """Number of examples in the first steps; an epoch's last batch may be smaller.

    >>> examples_seen(3, 4, 10), examples_seen(4, 4, 10)
    (10, 14)
    """
    epochs, rest = divmod(steps, -(-examples // batch_size))
    return epochs * examples + rest * batch_size
