"""A trainer that lets tests look at every step of a run."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lth_core import Trainer
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, State
from lth_core.train.loop import state_of
from lth_core.train.masking.base import Masking
from lth_core.train.masking.dynamic import SET


class Watch:
    """A masking that notes, of each step, what was there before it, in it and after it."""

    def __init__(self, masking: Masking, model: nn.Module) -> None:
        self.masking, self.model = masking, model
        self.before: list[State] = []
        """The network as the step's loss saw it."""
        self.after: list[State] = []
        self.masks: list[Mask] = []
        """After the step, and the evaluation where there is one."""
        self.taken: list[bool] = []
        """Whether the optimizer stepped."""
        self.parameters: list[list[Tensor]] = []
        """What the optimizer trains, before the step; and their gradients."""
        self.gradients: list[list[Tensor]] = []
        self.moments_before: list[dict[str, list[Tensor]]] = []
        self.moments: list[dict[str, list[Tensor]]] = []
        """The optimizer's state of each weight before and after the mask changes, in its shape."""
        self.changing: list[State] = []
        """The network as the mask's change saw it: SET's comes after the optimizer's step."""

    @property
    def mask(self) -> Mask:
        return self.masking.mask

    def trained(self) -> Iterable[nn.Parameter]:
        return self.masking.trained()

    def after_evaluation(self, accuracy: float | None) -> None:
        self.masking.after_evaluation(accuracy)

    def finish(self) -> None:
        self.masking.finish()

    def before_forward(self, step: int) -> None:
        self.masking.before_forward(step)

    def before_step(self, step: int, optimizer: Optimizer) -> bool:
        self.before.append(state_of(self.model))
        self.changing.append(self.before[-1])
        self.moments_before.append(self._moments(optimizer))
        self._optimizer = optimizer
        self.taken.append(self.masking.before_step(step, optimizer))
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.parameters.append([p.detach().clone() for p in trained])
        self.gradients.append([p.grad.clone() for p in trained if p.grad is not None])
        self.moments.append(self._moments(optimizer))
        return self.taken[-1]

    def _moments(self, optimizer: Optimizer) -> dict[str, list[Tensor]]:
        return {
            name: [
                value.clone()
                for value in optimizer.state.get(p, {}).values()
                if isinstance(value, Tensor) and value.shape == p.shape
            ]
            for name, p in self.model.named_parameters()
        }

    def after_step(self) -> None:
        if isinstance(self.masking, SET):
            kept = {name: m.clone() for name, m in self.mask.items()}
            state = state_of(self.model)
            self.changing[-1] = {n: v * kept[n] if n in kept else v for n, v in state.items()}
            self.moments_before[-1] = self._moments(self._optimizer)
        self.masking.after_step()
        if isinstance(self.masking, SET):
            self.moments[-1] = self._moments(self._optimizer)
        self.masks.append({name: m.clone() for name, m in self.mask.items()})
        self.after.append(state_of(self.model))

    def apply_mask(self) -> None:
        self.masking.apply_mask()
        self.masks[-1] = {name: m.clone() for name, m in self.mask.items()}
        self.after[-1] = state_of(self.model)


class Watching(Trainer):
    """Watches the run it trains last."""

    seen: Watch

    def _masking(
        self, job: Job, model: nn.Module, mask: Mask, start: State, initial: Callable[[], State]
    ) -> Watch:
        self.seen = Watch(super()._masking(job, model, mask, start, initial), model)
        return self.seen


def watch(job: Job) -> Watch:
    """Train a job, by a trainer that knows nothing yet, and tell its steps."""
    trainer = Watching()
    trainer.start(job)  # what it hangs on is trained first
    trainer.mask(job.mask, job)
    if job.dense:
        trainer.final(job.dense)
    trainer([job])
    assert len(trainer.seen.masks) == job.last - job.first
    return trainer.seen


def counts(mask: Mask) -> dict[str, int]:
    return {name: int(m.sum()) for name, m in mask.items()}


def equal(a: Mask, b: Mask) -> bool:
    return all(torch.equal(m, b[name]) for name, m in a.items())
