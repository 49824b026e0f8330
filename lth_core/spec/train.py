"""Spec of the training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from lth_core.errors import SpecError
from lth_core.spec.digest import added_later
from lth_core.spec.fields import DURATION, STRICT, Checks, check_length, steps_in

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "multistep", "cosine"]
Precision = Literal["fp32", "tf32", "bf16"]
EvaluateTest = Literal["grid", "best"]

AUTO = "auto"
"""Value of `TrainSpec.evaluate_every` that `lth_core.resolve` replaces by a number of steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSpec(Checks):
    """Optimizer, schedule, batches and length of training."""

    __pydantic_config__ = STRICT

    optimizer: Optimizer = "adam"
    """torch.optim's SGD, Adam or AdamW."""
    lr: float = 1.2e-3
    """Learning rate before the schedule, above 0."""
    momentum: float = 0.0
    """SGD's momentum, in [0, 1)."""
    nesterov: bool = False
    """SGD's Nesterov momentum."""
    weight_decay: float = 0.0
    """L2 penalty on every parameter, at least 0: added to the gradient as torch.optim does it; with
    adamw weights shrink by lr x weight_decay a step instead (Loshchilov & Hutter 2019)."""
    norm_penalty: float = field(default=0.0, metadata=added_later(implied=0.0))
    """L1 penalty on the scales of batch norm in the dense run, at least 0 (network slimming, Liu et
    al. 2017); tickets and their controls train without it."""
    batch_size: int = 60
    """Number of examples in a step; an epoch's last batch may be smaller and is not dropped."""
    steps: int | str = "600it"
    """Length of the dense run: steps (`600it`) or epochs (`2ep`)."""
    schedule: Schedule = "constant"
    """Course of the learning rate over steps, after warm-up."""
    milestones: tuple[int | str, ...] = ()
    """multistep: times at which the rate is multiplied by gamma; none within the warm-up."""
    gamma: float = 0.1
    """multistep: factor of the rate at each milestone, in [0, 1]."""
    warmup: int | str = "0it"
    """Duration of the linear warm-up of the learning rate from 0."""
    evaluate_every: int | str = AUTO
    """Interval between evaluations on validation and test data; the last step is evaluated too.
    auto: 40 evaluations in the dense run, or fewer if they cost over a tenth of its training."""
    evaluate_test: EvaluateTest = field(default="grid", metadata=added_later(implied="grid"))
    """Evaluations that include the test data. grid: all. best: those with the lowest validation
    loss so far, and the last; early stop and end are the same, but the test curve has gaps."""
    precision: Precision = "fp32"
    """Arithmetic of the forward and backward pass; weights stay float32."""
    replay_order: bool = False
    """Whether every level trains on the dense run's batches, in the dense run's order."""

    def __post_init__(self) -> None:
        self._normalize()
        for name, literal in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("precision", Precision),
            ("evaluate_test", EvaluateTest),
        ):
            self._one_of(name, literal)
        if not isinstance(self.lr, float) or not 0 < self.lr < float("inf"):
            raise SpecError("lr", "must be a positive number", self.lr)
        self._share("momentum", self.momentum)
        self._number("weight_decay", 0)
        self._number("norm_penalty", 0)
        self._number("gamma", 0, 1)
        self._number("batch_size", 1)
        self._duration("steps", positive=True, share=False)
        if self.evaluate_every != AUTO:
            self._duration("evaluate_every", positive=True, alternative=AUTO)
        self._duration("warmup")
        self._milestones()
        if self.nesterov and not self.momentum:
            raise SpecError("nesterov", "needs train.momentum above 0", self.momentum)

    def _milestones(self) -> None:
        durations = tuple(f"{m}it" if type(m) is int else m for m in self.milestones)
        for milestone in durations:
            match = DURATION.fullmatch(milestone) if isinstance(milestone, str) else None
            if not match:
                raise SpecError("milestones", "must be durations such as '91ep'", milestone)
            check_length("milestones", match)
        self._set("milestones", durations)
        if (self.schedule == "multistep") != bool(durations):
            rule = "must be given with schedule: multistep, and only then"
            raise SpecError("milestones", rule, durations)

    def in_steps(self, steps_per_epoch: int) -> TrainSpec:
        """The spec with every duration in steps, except for an interval `AUTO`.

        Raises:
            SpecError: a duration rounds to 0 steps, or a milestone lies within the warm-up.
        """
        steps = steps_in(self.steps, steps_per_epoch)

        def as_steps(duration: int | str) -> str:
            return f"{steps_in(duration, steps_per_epoch, steps)}it"

        warmup = steps_in(self.warmup, steps_per_epoch, steps)
        for milestone in self.milestones:
            if steps_in(milestone, steps_per_epoch, steps) < warmup:
                rule = f"must not come before the end of the warm-up, step {warmup}"
                raise SpecError("milestones", rule, milestone)
        return dataclasses.replace(
            self,
            steps=f"{steps}it",
            warmup=as_steps(self.warmup),
            evaluate_every=AUTO if self.evaluate_every == AUTO else as_steps(self.evaluate_every),
            milestones=tuple(as_steps(m) for m in self.milestones),
        )
