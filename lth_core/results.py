"""Results of a search's levels, and a flat record of each branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from lth_core.columns import Record, in_order
from lth_core.display import table_html
from lth_core.jobs.branches import RETRAINED
from lth_core.jobs.methods import method
from lth_core.jobs.recipes import Job, Measure, Pruned
from lth_core.masks import Mask
from lth_core.measures.predictors import AtRewind, MaskStability
from lth_core.measures.search import TrainingCost
from lth_core.measures.stability import Barrier
from lth_core.measures.weights import MaskAndTravel
from lth_core.models.layers import Layer
from lth_core.prune import at_level, compounded, groups, requested_density
from lth_core.spec import TicketSpec
from lth_core.spec.fields import steps_in
from lth_core.spec.prune_base import CHANNELS
from lth_core.ticket import Ticket
from lth_core.train import Trainer
from lth_core.train.training import Result


@dataclass(frozen=True, slots=True, repr=False)
class LevelResult:
    """Results of a level's branches; the first is the dense run or the ticket.

    Args:
        spec: the resolved spec.
    """

    spec: TicketSpec
    level: int
    results: dict[str, Result]
    trainer: Trainer = field(repr=False)

    @property
    def branch(self) -> str:
        """Name of the first branch: ``ticket``, or ``dense`` at level 0."""
        return "ticket" if "ticket" in self.results else "dense"

    @property
    def ticket(self) -> Ticket:
        """The level's ticket: its mask and its starting weights."""
        return self.ticket_of(self.branch)

    def ticket_of(self, branch: str) -> Ticket:
        """Mask and starting weights of a branch."""
        return self.trainer.ticket(self.spec, self.level, branch, self.results[branch].job)

    @property
    def mask(self) -> Mask:
        """The ticket's mask."""
        return self.trainer.mask_of(self.results[self.branch].job)

    @property
    def records(self) -> list[Record]:
        """Flat records of the branches, with the columns of `lth_core.columns`.

        Measures that the store lacks are taken, which may take seconds.
        """
        return [in_order(row | self._measured(row["branch"])) for row in self._unmeasured()]

    def _unmeasured(self) -> list[Record]:
        return [
            record(self.spec, self.level, branch, result, self._whole(result.job))
            for branch, result in self.results.items()
        ]

    def _whole(self, job: Job) -> Whole | None:
        """The spec's network, where the job's is a wider one."""
        if replace(job.model, gates=False) == self.spec.model:
            return None
        narrower = replace(job, model=self.spec.model)
        return Whole(self.trainer.layers(narrower), self.trainer.parameters(narrower))

    def _measured(self, branch: str) -> Record:
        numbers: Record = {}
        jobs = {name: result.job for name, result in self.results.items()}
        for measure in measures(self.spec, branch, jobs):
            numbers |= self.trainer.measured(measure)
        return numbers

    def __str__(self) -> str:
        rows = self._unmeasured()
        accuracies = "  ".join(f"{r['branch']} {r['final_test_accuracy']:.3f}" for r in rows)
        return f"level {self.level:2d}  density {rows[0]['density']:.3f}  {accuracies}"

    def __repr__(self) -> str:
        return f"<LevelResult: {' '.join(str(self).split())}>"

    def _repr_html_(self) -> str:
        rows = self._unmeasured()
        return table_html(
            f"level {self.level}, seed {self.spec.seed}",
            ["branch", "density", "weights kept", "steps", "test accuracy"],
            [
                [row["branch"], f"{row['density']:.4f}", f"{row['weights_kept']:,}",
                 f"{row['steps']:,}", f"{row['final_test_accuracy']:.4f}"]
                for row in rows
            ],
        )  # fmt: skip


def measures(spec: TicketSpec, branch: str, jobs: Mapping[str, Job]) -> Iterator[Measure]:
    """Measures of a branch.

    Args:
        jobs: jobs of the level, by branch.
    """
    job = jobs[branch]
    if branch == "twin":
        original = jobs.get("ticket") or jobs.get("rewound") or jobs["dense"]
        yield Barrier(one=original, other=job, stability=spec.stability)
    # A retrained branch prunes its own weights; its mask is compared with the ticket's.
    like = jobs["ticket"].mask if branch in RETRAINED else job.mask.like
    yield MaskAndTravel(job=job, like=like, dense=job.dense, ignore=spec.prune.ignore)
    if spec.prune.structure in CHANNELS:
        yield TrainingCost(job=job)
    if spec.predictors and branch == "dense":
        yield AtRewind(dense=job, step=steps_in(spec.rewind))
    if spec.predictors and branch == "ticket" and job.dense:
        prune = replace(compounded(spec.prune, job.level), score="magnitude", fingerprint="")
        early, late = (
            Pruned(of=job.dense.at(step), prune=prune, seed=job.seed)
            for step in (steps_in(spec.rewind), job.dense.last)
        )
        yield MaskStability(early=early, late=late, job=job)


class Whole(NamedTuple):
    """The network of which densities and costs are shares."""

    layers: dict[str, Layer]
    parameters: int


def record(
    spec: TicketSpec, level: int, branch: str, result: Result, whole: Whole | None = None
) -> Record:
    """Record of one branch at one level, without its measures.

    Args:
        whole: the spec's network, where the branch's is a wider one with the same layers.
    """
    training, curves = result.training, result.training.curves
    early = curves.early_stop(result.job.final_density_from)
    layers = training.layers
    dense = whole or Whole(layers, training.parameters)
    shapes = {name: layer.shape for name, layer in dense.layers.items()}
    counted = {name for names, _ in groups(shapes, spec.prune) for name in names}
    kept = sum(layers[name].kept for name in counted)
    prunable = sum(dense.layers[name].weights for name in counted)
    by_share = not (spec.prune.budget or spec.ticket)
    return {
        "seed": spec.seed,
        "method": method(spec),
        "when": spec.prune.when,
        "branch": branch,
        "level": level,
        "prune_fraction": at_level(spec.prune, max(1, level)).fraction if by_share else None,
        "rewind_step": steps_in(spec.rewind),
        "requested_density": requested_density(shapes, spec.prune, level) if by_share else None,
        "density": kept / prunable,
        "weights_kept": kept,
        "weights_prunable": prunable,
        "parameters": dense.parameters,
        "kept_parameters": training.kept_parameters,
        "flops": sum(layer.flops for layer in layers.values()),
        "dense_flops": sum(layer.dense_flops for layer in dense.layers.values()),
        "steps": result.job.last - result.job.first,
        "final_test_accuracy": curves.test_accuracy[-1],
        "final_validation_accuracy": None if early is None else curves.validation_accuracy[-1],
        "early_stop_step": None if early is None else curves.step[early],
        "early_stop_test_accuracy": None if early is None else curves.test_accuracy[early],
        "early_stop_validation_loss": None if early is None else curves.validation_loss[early],
        "collapsed_layers": sum(layer.kept == 0 for layer in layers.values()),
        "layer_density": {
            name: layer.kept / dense.layers[name].weights for name, layer in layers.items()
        },
        "layer_outputs": {name: layer.kept_outputs for name, layer in layers.items()},
        "spec_digest": spec.digest(),
        "mask_digest": training.mask_digest,
        "ticket_digest": training.ticket_digest,
        "training_digest": result.job.digest,
        "reused": result.reused,
        "train_seconds": training.seconds,
    }
