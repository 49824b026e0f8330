"""Estimate of the share of a plan's training time that evaluations take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from lth_core.data import part_sizes
from lth_core.spec import PruneGates
from lth_core.spec.fields import steps_in
from lth_core.train.timings import passes_per_step
from sweeps.plan.plan import Plan

MOST_UNSAID = 0.2
"""Largest share that a plan does not mention."""


@dataclass(frozen=True, slots=True)
class EvaluationShare:
    """Share of training time that evaluations take, in [0, 1], and what it depends on."""

    share: float
    fields: tuple[str, ...]
    """Fields with the interval between evaluations, of those trainings whose share is too large."""
    only_last: bool = False
    """Whether some training is evaluated after its last step alone, and so has no early stop."""

    def sentence(self) -> str:
        """The share in words where it is large: ``evaluation: about 40% of training time; ...``.

        Where it is not, the missing early stop, if there is a training without.
        """
        if self.share <= MOST_UNSAID and self.only_last:
            return (
                "evaluation: after the last step alone; a shorter train.evaluate_every gives "
                "curves and an early stop"
            )
        if self.share <= MOST_UNSAID:
            return ""
        advice = f"; a longer {' or '.join(self.fields)} takes less" if self.fields else ""
        return f"evaluation: about {self.share:.0%} of training time{advice}"


def evaluation_share(plan: Plan) -> EvaluationShare:
    """Share of a plan's training time that evaluations take.

    It is estimated from numbers of examples, as if a forward pass took equally long in all
    networks.
    """
    sizes = cache(part_sizes)
    evaluation, training, fields, only_last = 0.0, 0.0, set[str](), False
    for factors, steps in plan.counts.work.items():
        evaluated, trained = passes_per_step(factors.train, sizes(factors.data))
        evaluation += evaluated * steps
        training += trained * steps
        too_large = evaluated > MOST_UNSAID * (evaluated + trained)
        length = steps_in(factors.train.steps)
        is_last = steps_in(factors.train.evaluate_every) >= length
        gates = isinstance(factors.finds, PruneGates)
        only_last |= is_last and length > 1 and not gates
        if too_large and not is_last:
            fields.add("prune.gate_every" if gates else "train.evaluate_every")
    share = evaluation / (evaluation + training) if training else 0.0
    return EvaluationShare(share, tuple(sorted(fields)), only_last)
