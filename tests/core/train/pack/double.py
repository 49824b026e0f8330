"""A trainer in float64, where rounding is out of the way."""

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from lth_core import Trainer
from lth_core.data import Dataset
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, State
from lth_core.models.layers import load_state
from lth_core.train.builder import PreparedJob
from lth_core.train.loop import Outcome
from lth_core.train.pack.forward import Way
from lth_core.train.training import Training


class Double(Trainer):
    """Trains in float64, and notes the sizes of its packs. A store's states are float32, so those
    of this trainer are kept here."""

    def __init__(self, pack: int, way: Way | None = None) -> None:
        super().__init__(device="cpu", pack=pack)
        self.way = way
        self.packs, self.ended = list[int](), dict[str, Outcome]()

    def network(self, job: Job, state: State) -> nn.Module:
        model = copy.deepcopy(self.model(job)).double()
        load_state(model, state)
        return self.in_layout(job, model.train())

    def data(self, job: Job) -> Dataset:
        dataset = super().data(job)
        return replace(dataset, mean=dataset.mean.double(), std=dataset.std.double())

    def final(self, job: Job) -> tuple[State, Mask]:
        if job.digest not in self.ended:
            self._train(job)
        return self.ended[job.digest].state, self.ended[job.digest].mask

    def _way(self, jobs: Sequence[PreparedJob]) -> Way:
        return self.way or super()._way(jobs)

    def _train_pack(self, jobs: list[Job]) -> None:  # type: ignore[override]
        self.packs.append(len(jobs))
        super()._train_pack(jobs)

    def _put(
        self, prepared: PreparedJob, outcome: Outcome, pack: int = 1
    ) -> tuple[Training, tuple[State, Mask]]:
        self.ended[prepared.job.digest] = outcome
        return super()._put(prepared, outcome, pack)
