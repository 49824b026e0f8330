"""Networks and data, made from a job's specs."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from lth_core import data, masks, models, ticket
from lth_core.data import Dataset
from lth_core.errors import SpecError, exception_text
from lth_core.jobs.recipes import Init, Job
from lth_core.masks import Mask, State
from lth_core.models.channels import (
    Channels,
    kept_channels,
    kept_entries,
    masks_of,
    module_of,
    outputs_first,
)
from lth_core.models.costs import Costs, costs_of
from lth_core.models.gates import GATE
from lth_core.models.init import narrow_weights
from lth_core.models.latency import ChannelLatency
from lth_core.models.layers import Layer, load_state, state_of
from lth_core.prune.network import Batch, PrunableNetwork
from lth_core.seeds import generator
from lth_core.spec import PruneGates, PruneNever, Pruning, TrainSpec, describe, sha256
from lth_core.spec.prune_base import CHANNELS
from lth_core.train.archive import cached
from lth_core.train.batches import Order
from lth_core.train.evaluate import estimate_statistics
from lth_core.train.layers.sparsify import Sparse
from lth_core.train.loop import Outcome, Task
from lth_core.train.masking.base import Fixed, Masking
from lth_core.train.masking.gates import Gates
from lth_core.train.masking.registry import GROW, LEARN
from lth_core.train.narrow import Narrow, narrowed
from lth_core.train.precision import arithmetic
from lth_core.train.training import Training

KEPT_DRAWS = 4
"""Number of networks whose initial weights a trainer keeps."""


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job, and the task that trains it."""

    job: Job
    task: Task
    start: State
    """Weights and buffers before the mask, in the network's shapes."""
    smaller: Narrow | Sparse | None = None
    """The network without the mask's removed channels or weights, if the task trains that."""

    def whole(self, outcome: Outcome) -> Outcome:
        """An outcome of the task, in the shapes of the job's network."""
        return self.smaller.widened(outcome) if self.smaller else outcome


class Builder:
    """Makes the networks and loads the data of jobs, on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._drawn: OrderedDict[str, State] = OrderedDict()
        """Initial weights and buffers of the last networks: all levels of a trial start from them.
        """

    def data(self, job: Job) -> Dataset:
        """The job's data, on the device."""
        return data.load(job.data, self.device)

    def model(self, job: Job) -> nn.Module:
        """The job's network, for its structure; its weights belong to no seed."""
        return models.template(job.model, self.data(job).shape, self.data(job).classes)

    def network(self, job: Job, state: State) -> nn.Module:
        """The job's network on the device, in training mode.

        Args:
            state: weights and buffers, in the network's shapes.
        """
        model = copy.deepcopy(self.model(job))
        load_state(model, state)
        return self.in_layout(job, model.to(self.device).train())

    def with_statistics(self, job: Job, state: State, mask: Mask) -> State:
        """The state, with batch norm's statistics of the job's network under a mask.

        Args:
            state: weights and buffers, in the network's shapes.
            mask: (out, in, ...) bool of each prunable layer, by parameter name.
        """
        model = self.network(job, self.masked(job, state, mask))
        with arithmetic(job.train.precision, self.device):
            estimate_statistics(model, self.data(job))
        buffers = {name: buffer.cpu().clone() for name, buffer in model.named_buffers()}
        return {**state, **{name: buffers[name] for name in state.keys() & buffers.keys()}}

    def in_layout(self, job: Job, model: nn.Module) -> nn.Module:
        """The network of a job in the memory layout in which it is trained, in place."""
        if len(self.data(job).shape) == 3:
            model.to(memory_format=torch.channels_last)
        return model

    def drawn(self, init: Init, job: Job) -> State:
        """Initial weights and buffers of the job's network, in its shapes."""

        def make() -> State:
            dataset, draw = self.data(job), generator(init.seed, *init.draw)
            model = models.build(job.model, dataset.shape, dataset.classes, draw)
            return {name: value.clone() for name, value in state_of(model).items()}

        key = sha256([init.digest, describe(job.model), describe(job.data)])
        return cached(self._drawn, key, make, KEPT_DRAWS)

    def drawn_narrow(self, init: Init, job: Job, mask: Mask) -> State:
        """Initial weights and buffers of the job's network with the mask's channels alone.

        They are in the shapes of the whole network, 0 or as built where it has other channels.
        """
        state, model = self.drawn(init, job), self.model(job)
        channels = self.channels(job)
        entries = kept_entries(channels, kept_channels(channels, mask))
        draw = generator(init.seed, *init.draw, "narrow")
        return {**state, **narrow_weights(model, job.model.init, entries, draw)}

    def layers(self, job: Job, mask: Mask | None = None) -> dict[str, Layer]:
        """Prunable layers of the job's network, in its order, under a mask or with all weights."""
        dataset, include = self.data(job), job.mask.include
        counts = models.positions(job.model, dataset.shape, dataset.classes, include)
        model, found = self.model(job), dict[str, Layer]()
        mask = mask or masks.ones(model, include)
        for name, (weights, positions) in counts.items():
            parameter = masks.parameter_of(name)
            kept = mask[parameter]
            outputs = outputs_first(module_of(model, parameter), kept).flatten(1).any(1)
            found[name] = Layer(
                shape=weights, positions=positions, kept=int(kept.sum()),
                kept_outputs=int(outputs.sum()),
            )  # fmt: skip
        return found

    def parameters(self, job: Job) -> int:
        """Number of parameters of the job's network, the biases' and norms' too.

        Gates are not counted: they can be multiplied into the norms' scales and shifts.
        """
        named = self.model(job).named_parameters()
        return sum(p.numel() for name, p in named if not name.endswith(GATE))

    def channels(self, job: Job) -> Channels:
        """Removable channels of the job's network; where it has gates, those with a gate."""
        return models.removable_channels(job.model, self.data(job).shape, self.data(job).classes)

    def costs(self, job: Job) -> Costs:
        """Costs of the job's network, without gates, and without some of its channels."""
        costs = costs_of(self._ungated(job), self.data(job).shape, self.channels(job))
        return replace(costs, latency=self.channel_latency(job, {}))

    def channel_latency(self, job: Job, known: dict[str, float]) -> ChannelLatency:
        """Latency of the job's network, without gates, and without some of its channels.

        Args:
            known: as in `ChannelLatency`.
        """
        shape = self.data(job).shape
        return ChannelLatency(self._ungated(job), self.channels(job), shape, known)

    def _ungated(self, job: Job) -> nn.Module:
        dataset = self.data(job)
        return models.template(replace(job.model, gates=False), dataset.shape, dataset.classes)

    def masked(self, job: Job, state: State, mask: Mask) -> State:
        """A copy of a state whose pruned weights are 0, with the biases and norms of removed
        channels.

        Args:
            state: weights and buffers, in the network's shapes.
            mask: (out, in, ...) bool of each prunable layer, by parameter name.
        """
        return masks.masked(state, {**mask, **self.removed_with(job, mask)})

    def removed_with(self, job: Job, mask: Mask) -> Mask:
        """Masks of the biases and norms of removed channels, (channels,) bool by parameter name.

        There are none where single weights are pruned: a bias acts without them.
        """
        if job.structure not in CHANNELS:
            return {}
        channels = self.channels(job)
        shapes = {n: p.shape for n, p in self.model(job).named_parameters() if n not in mask}
        return masks_of(channels, kept_channels(channels, mask), shapes)

    def prunable_network(
        self, state: State, mask: Mask, initial: State, job: Job, prune: Pruning
    ) -> PrunableNetwork:
        """The job's network as a score needs it.

        Args:
            state: its weights and buffers, in its shapes.
            mask, initial: (out, in, ...) bool and float of each prunable layer, by parameter name.
        """
        dataset = self.data(job)

        def batch() -> Batch:
            draw = generator(job.seed, "mask", "examples")
            split = dataset.train.of_each_class(prune.examples, draw)
            return dataset.normalize(split.x), split.y

        return PrunableNetwork(  # of copies, in which a user's score may work
            weights=masks.masked({name: state[name] for name in mask}, mask),
            mask={name: m.clone() for name, m in mask.items()},
            initial={name: initial[name].clone() for name in mask},
            copy=lambda: self.network(job, state), batch=batch, seed=job.seed,
            channels=lambda: self.channels(job), costs=lambda: self.costs(job), spec=prune,
        )  # fmt: skip

    def prepare(
        self,
        job: Job,
        start: State,
        mask: Mask,
        initial: Callable[[], State],
        points: Sequence[int] = (),
    ) -> PreparedJob:
        """A job with its task.

        Args:
            start: weights and buffers before the mask, in the network's shapes.
            mask: (out, in, ...) bool of each prunable layer, by parameter name.
            initial: gives weights and buffers of the first training in the chain, for scores.
            points: steps of missing rewind points: the task ends at the last of them.
        """
        dataset, state = self.data(job), self.masked(job, start, mask)
        model, narrow = self.network(job, state), None
        if may_be_narrow(job):
            narrow = narrowed(model, self.channels(job), state, mask)
        masking: Masking
        if narrow:
            model = self.in_layout(job, narrow.model)
            masking = Fixed(model, narrow.mask)
        else:
            masking = self._masking(job, model, mask, start, initial)
        order = Order(
            examples=len(dataset.train), batch_size=job.train.batch_size, seed=job.seed,
            run=job.run, augment=job.data.augment,
        )  # fmt: skip
        task = Task(
            model=model, masking=masking, data=dataset, spec=_train_spec(job), order=order,
            first=job.first, last=max(points, default=job.last), keep=points or job.keep,
            draws=models.may_draw(job.model), early_stop_from=job.final_density_from,
        )  # fmt: skip
        return PreparedJob(job, task, start, narrow)

    def training(
        self, prepared: PreparedJob, outcome: Outcome, made_with: Mapping[str, str]
    ) -> Training:
        """The stored record of a training that has just ended.

        Args:
            made_with: entries beside the outcome's own.
        """
        job, mask = prepared.job, outcome.mask
        removed = {**mask, **self.removed_with(job, mask)}
        return Training(
            curves=outcome.curves,
            layers=self.layers(job, mask),
            parameters=self.parameters(job),
            kept_parameters=self.parameters(job) - sum(int((~m).sum()) for m in removed.values()),
            mask_digest=masks.digest(mask),
            ticket_digest=ticket.digest(mask, self.masked(job, prepared.start, mask)),
            seconds=outcome.seconds,
            finished_at=time.time(),
            made_with={**outcome.made_with, **made_with},
        )

    def _masking(
        self, job: Job, model: nn.Module, mask: Mask, start: State, initial: Callable[[], State]
    ) -> Masking:
        """The rule that keeps, changes or learns the job's mask."""
        removed_with = partial(self.removed_with, job)
        if job.finds is None:
            return Fixed(model, mask, removed_with)
        if isinstance(job.finds, PruneGates):
            return Gates(model, mask, job.finds)
        if isinstance(job.finds, PruneNever):
            return LEARN[job.finds.score](model, mask, job.finds, job.seed, job.level)
        network = self.prunable_network(start, mask, initial(), job, job.finds)
        return GROW[job.finds.grow](model, mask, network, job.level, removed_with)


def device_of(name: str | None) -> torch.device:
    """The device of a name; of None, the GPU where there is one.

    Raises:
        SpecError: torch cannot use it here.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SpecError("device", f"cannot be used ({exception_text(error)})", name) from None
    return torch.device(name)


def may_be_narrow(job: Job) -> bool:
    """Whether a job is trained without the channels that its mask removes.

    A user's network may not run with fewer channels, and is trained whole.
    """
    fixed = job.finds is None and not job.keep
    return fixed and job.structure in CHANNELS and job.model.name in models.MODELS


def _train_spec(job: Job) -> TrainSpec:
    """The job's training spec; a learned mask may have a learning rate of its own."""
    own_rate = job.finds.lr if isinstance(job.finds, PruneNever) else None
    return replace(job.train, lr=own_rate) if own_rate else job.train
