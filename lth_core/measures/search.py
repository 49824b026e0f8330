"""Cost of finding a mask, and of training under it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lth_core.jobs.recipes import Context, FinalMask, Job, MaskRecipe, Measure, Pruned, WithGates
from lth_core.prune import ROUNDS
from lth_core.spec import PruneBefore

WITH_EXAMPLES = ("snip", "grasp", "taylor")
"""Scores that differentiate the loss of `prune.examples` training examples of each class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingCost(Measure):
    """FLOPs of a branch's training, and FLOPs and seconds of all that found its mask.

    A mask is found by the trainings whose weights, gates or masks it comes from, with those that
    made their starting weights or found their masks in turn, and by the passes of a score over
    examples. A control's mask costs what the ticket's does. A backward pass counts as two forward
    passes.
    """

    kind = "TrainingCost.2"  # that of older stores finds shrinking masks at no cost
    columns = ("train_flops", "search_flops", "search_seconds")

    job: Job

    def take(self, context: Context) -> dict[str, float | None]:
        searches, found = dict[str, Job](), list(_searches(self.job.mask))
        if self.job.shrinks:  # the training finds its own mask
            found += _with_start(self.job)
        for job in sorted(found, key=lambda job: job.last):
            # A run and the same run as far as the rewind point are one training.
            searches[replace(job, last=job.first).digest] = job
        costs = [context.training_cost(job) for job in searches.values()]
        scored = [_score_flops(context, mask, self.job) for mask in _prunings(self.job.mask)]
        return {
            "train_flops": context.training_cost(self.job)[0],
            "search_flops": sum(flops for flops, _ in costs) + sum(scored),
            "search_seconds": sum(seconds for _, seconds in costs),
        }


def _searches(mask: MaskRecipe) -> Iterator[Job]:
    """The trainings that a mask comes from, some of them twice."""
    for pruning in _prunings(mask):
        if isinstance(pruning.of, Job):
            yield from _with_start(pruning.of)
    while mask.like:
        mask = mask.like
    if isinstance(mask, FinalMask):
        yield from _with_start(mask.by)
        yield from _searches(mask.by.mask)


def _with_start(job: Job) -> Iterator[Job]:
    """A training, and the one that made its starting weights."""
    yield job
    start = job.start.of if isinstance(job.start, WithGates) else job.start
    if isinstance(start, Job):
        yield start


def _prunings(mask: MaskRecipe | None) -> Iterator[Pruned]:
    """The prunings that a mask comes from, last first."""
    while mask is not None:
        if isinstance(mask, Pruned):
            yield mask
            mask = mask.of.mask if isinstance(mask.of, Job) else None
        elif isinstance(mask, FinalMask):
            mask = mask.by.mask
        else:
            mask = mask.like


def _score_flops(context: Context, mask: Pruned, job: Job) -> float:
    """FLOPs of a pruning's passes over examples, 0 for scores of weights alone."""
    prune, scored = mask.prune, mask.of if isinstance(mask.of, Job) else job
    rounds = prune.rounds or 1 if isinstance(prune, PruneBefore) else 1
    like = prune.scope.removeprefix("like:")  # the score that decides the layers' densities
    examples = 0
    for score, times in ((prune.score, rounds), (like, rounds * ROUNDS.get(like, 1))):
        if score == "synflow":
            examples += times
        elif score in WITH_EXAMPLES:
            examples += times * prune.examples * context.data(scored).classes
    return 3.0 * examples * context.costs(scored).flops({}) if examples else 0.0
