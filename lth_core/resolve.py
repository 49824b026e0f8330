"""Resolution of specs: names checked, durations in steps, content pinned by fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache

import torch
from torch import nn

from lth_core import data, models
from lth_core.data import DATASETS, Outline
from lth_core.errors import DivergedError, SpecError
from lth_core.jobs.branches import BRANCHES, RETRAINED, SCRATCH
from lth_core.models.channels import Channels
from lth_core.models.check import (
    check_draws,
    check_ids,
    check_last_batch,
    check_network,
    check_second_derivatives,
)
from lth_core.models.costs import Costs, costs_of
from lth_core.models.gates import gated
from lth_core.models.latency import ChannelLatency
from lth_core.models.layers import (
    layer_of,
    layers_without_units,
    made_up_examples,
    norm_scales,
    parameter_of,
    prunable_layers,
    takes_ids,
)
from lth_core.plugins import errors_as_spec_errors, source_fingerprint
from lth_core.prune import ROUNDS, SCHEDULES, groups, scores
from lth_core.prune.budget import check_budget
from lth_core.prune.network import from_model
from lth_core.prune.structure import ChannelUnits
from lth_core.seeds import derive, generator, seeded_draws
from lth_core.spec import (
    DataSpec,
    ModelSpec,
    PruneBase,
    PruneBefore,
    PruneDuring,
    PruneGates,
    Pruning,
    TicketSpec,
    TrainSpec,
)
from lth_core.spec.fields import steps_in
from lth_core.spec.learning_rate import learning_rate
from lth_core.spec.prune import CHANNELS, GATES, LATENCIES


@dataclass(frozen=True, slots=True)
class Pins:
    """Fingerprints of code and data outside of this package: a user's own data, models and
    scores, and folders of images. With them a spec resolves to the same on another machine."""

    data: dict[DataSpec, tuple[str, int]] = field(default_factory=dict)
    """Fingerprint of the content and number of training examples, by spec."""
    sources: dict[str, str] = field(default_factory=dict)
    """Fingerprint of the source, by ``package.module:name``."""

    def of_data(self, spec: DataSpec) -> tuple[DataSpec, int]:
        """The pinned spec, and its number of training examples.

        Raises:
            SpecError: the data have no pin.
        """
        if spec.name in DATASETS:
            pinned, (examples, _, _) = _pin_data(spec)
            return pinned, examples
        if spec not in self.data:
            raise SpecError("data.name", _NO_PIN, spec.name)
        fingerprint, examples = self.data[spec]
        return replace(data.absolute(spec), fingerprint=fingerprint), examples

    def of_model(self, spec: ModelSpec) -> ModelSpec:
        """The pinned spec.

        Raises:
            SpecError: the model has no pin.
        """
        custom = ":" in spec.name
        source = self._source("model.name", spec.name) if custom else models.fingerprint(spec)
        return replace(spec, fingerprint=source)

    def of_score(self, spec: PruneBase) -> str:
        """Fingerprint of the spec's score.

        Raises:
            SpecError: the score has no pin.
        """
        custom = ":" in spec.score
        return self._source("prune.score", spec.score) if custom else scores.fingerprint(spec)

    def _source(self, field: str, name: str) -> str:
        if name not in self.sources:
            raise SpecError(field, _NO_PIN, name)
        return self.sources[name]


_NO_PIN = "must have a stored fingerprint, because it is neither imported nor read here"


def find_pins(
    datasets: Iterable[DataSpec], networks: Iterable[str], criteria: Iterable[str]
) -> Pins:
    """Pins of the data, models and scores outside of this package, all imported or read for it.

    Args:
        networks, criteria: names of models and of scores.

    Raises:
        SpecError: a model or score cannot be imported, or fails.
        DataError: data are missing or broken.
    """
    pins = Pins()
    for spec in datasets:
        if spec.name not in DATASETS:
            pinned, (examples, _, _) = _pin_data(spec)
            pins.data[spec] = pinned.fingerprint, examples
    for path, names in (("model.name", networks), ("prune.score", criteria)):
        custom = {name for name in names if ":" in name}
        pins.sources.update((name, source_fingerprint(path, name)) for name in custom)
    return pins


def resolve(spec: TicketSpec, pins: Pins | None = None) -> TicketSpec:
    """The spec with fingerprints filled in and every duration in steps.

    No named dataset is read. A folder or a user's own data is read (and cached) to be pinned.

    Args:
        pins: fingerprints of data, models and scores outside of this package. With them nothing is
            imported or read and no network is built, so patterns of layers are not checked.

    Raises:
        SpecError: a name is not known or has no pin, or the rewind point lies past the end of
            training.
        DataError: data that must be read are missing or broken.
    """
    _check_branches(spec)
    if pins is None:
        fingerprint = scores.fingerprint(spec.prune)
        pinned_data, (examples, shape, classes) = _pin_data(spec.data)
        pinned_model, _ = _pin_model(spec.model, shape, classes, spec.prune.include)
        _check_network(spec.model, shape, classes, spec.prune.include)
        _check_ids(spec.model, spec.data, pinned_data.fingerprint)
        _check_layers(spec.model, shape, classes, spec.prune)
        _check_scores(spec.model, shape, classes, spec.prune, spec.predictors)
        _check_norms(spec.model, shape, classes, spec.train.norm_penalty)
        if spec.prune.structure in CHANNELS:
            _check_channels(spec.model, shape, classes, spec.prune, spec.levels)
    else:
        fingerprint = pins.of_score(spec.prune)
        pinned_data, examples = pins.of_data(spec.data)
        pinned_model = pins.of_model(spec.model)
    steps_per_epoch = -(-examples // spec.train.batch_size)
    train = _train_in_steps(spec.train, steps_per_epoch)
    steps = steps_in(train.steps)
    if pins is None and steps >= steps_per_epoch:
        size = spec.train.batch_size
        _check_last_batch(spec.model, shape, classes, examples, size, "train.batch_size")
    if "finetune" in spec.branches and not learning_rate(train, steps - 1) > 0:
        rule = "must not end training at rate 0: branch finetune trains at the last rate"
        raise SpecError("train.gamma", rule, train.gamma)
    rewind = steps_in(spec.rewind, steps_per_epoch, steps)
    if rewind > steps:
        rule = f"must not lie past the end of training, step {steps}"
        raise SpecError("rewind", rule, spec.rewind)
    if isinstance(spec.prune, PruneGates):
        examples += _released(spec, pins)
        if spec.prune.expand != 1 and rewind:
            rule = "must be 0 where prune.expand widens the network, which is trained from there"
            raise SpecError("rewind", rule, spec.rewind)
    restart = spec.restart_schedule and rewind > 0  # at rewind point 0 it changes nothing
    first = 0 if restart else rewind
    if first == steps and spec.levels and spec.prune.when in ("during", "never"):
        rule = f"must come before the end of training, step {steps}"
        raise SpecError("rewind", rule, spec.rewind)
    with _within("prune"):
        prune = _resolve_prune(spec.prune, examples, steps_per_epoch, steps, first, fingerprint)
    if pins is None and isinstance(prune, PruneGates):
        size = prune.gate_batch_size
        if steps_in(prune.gate_steps) >= -(-examples // size):
            _check_last_batch(spec.model, shape, classes, examples, size, "prune.gate_batch_size")
    return replace(spec, data=pinned_data, model=pinned_model, train=train, prune=prune,
                   rewind=f"{rewind}it", restart_schedule=restart)  # fmt: skip


def _check_branches(spec: TicketSpec) -> None:
    if spec.model.gates:
        rule = "must be false: prune.when: gates sets it for the training of the gates"
        raise SpecError("model.gates", rule, spec.model.gates)
    for branch in spec.branches:
        if branch not in BRANCHES:
            raise SpecError("branches", "is not a known branch", branch, BRANCHES)
        if branch in RETRAINED and spec.prune.when != "after":
            rule = "continues from trained weights, so it needs prune.when: after"
            raise SpecError("branches", rule, branch)
    for branch in set(SCRATCH) & set(spec.branches):
        if spec.prune.structure not in CHANNELS:
            rule = "trains the channels that are left, so it needs prune.structure: channels or "
            raise SpecError("branches", rule + "neurons", branch)
        if branch == "scratch_b" and "flops" not in spec.prune.budget:
            rule = "trains for the dense run's FLOPs, so it needs prune.budget: {flops: ...}"
            raise SpecError("branches", rule, branch)
    if is_measured(spec.prune) and spec.levels > 1:
        rule = "must be at most 1 beside a budget of milliseconds, which levels do not multiply"
        raise SpecError("levels", rule, spec.levels)
    if "twin" in spec.branches and spec.prune.when in ("during", "never"):
        rule = "compares runs under one mask, so it needs prune.when: before or after"
        raise SpecError("branches", rule, "twin")
    if spec.predictors and spec.prune.when != "after":
        raise SpecError("predictors", "needs prune.when: after", spec.predictors)


def _released(spec: TicketSpec, pins: Pins | None) -> int:
    """Number of validation examples of the data that gates are trained on.

    Args:
        pins: as in `resolve`; with them no data are read.

    Raises:
        SpecError: none are held out, or too many.
    """
    assert isinstance(spec.prune, PruneGates)
    held_out, validation = spec.prune.gate_validation, spec.data.validation
    if held_out is None:
        if pins is None and not data.has_validation(spec.data):
            rule = "must be given where data.validation is 0: it chooses among evaluations"
            raise SpecError("prune.gate_validation", rule, held_out)
        return 0
    if spec.data.name not in DATASETS or validation != int(validation):
        rule = "needs a named dataset, and a whole number of data.validation"
        raise SpecError("prune.gate_validation", rule, held_out)
    data.outline(replace(spec.data, validation=held_out))  # refuses too many
    return int(validation) - held_out


def _schedule(prune: PruneBefore | PruneDuring) -> str:
    if prune.when == "before":
        default = "exponential"
    else:
        default = "cubic" if prune.grow == "none" else "constant"
    name = prune.schedule or default
    if name not in SCHEDULES:
        raise SpecError("schedule", "is not a known schedule", name, SCHEDULES)
    if name == "constant" and prune.when == "during" and prune.grow == "none":
        rule = "must begin denser than it ends, because no weights grow back"
        raise SpecError("schedule", rule, name, sorted(SCHEDULES.keys() - {name}))
    return name


# Trials of a study share most parts of their specs, so each part is resolved once.


@lru_cache(maxsize=256)
def _pin_data(spec: DataSpec) -> tuple[DataSpec, Outline]:
    pinned = replace(data.absolute(spec), fingerprint=data.fingerprint(spec))
    return pinned, data.outline(spec)


@lru_cache(maxsize=256)
def _pin_model(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, include: tuple[str, ...]
) -> tuple[ModelSpec, dict[str, tuple[int, ...]]]:
    """The pinned spec and the prunable layers' shapes.

    Checks that the network can be built, and that it has the layers to include.
    """
    pinned = replace(spec, fingerprint=models.fingerprint(spec))
    model = models.build(spec, shape, classes, generator(0, "structure"))
    known, layers = prunable_layers(model, ("*",)), prunable_layers(model, include)
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in known):
            rule = "must match an embedding, or a layer that is prunable anyway"
            raise SpecError("prune.include", rule, pattern, known)
    return pinned, {name: tuple(layer.weight.shape) for name, layer in layers.items()}


@lru_cache(maxsize=1024)
def _check_layers(spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: PruneBase) -> None:
    """Check that every pattern names a layer, and that the pruned layers have such units."""
    _, shapes = _pin_model(spec, shape, classes, prune.include)
    pruned = {layer for layers, _ in groups(shapes, prune) for layer in layers}
    if prune.structure != "weights" and spec.name not in models.MODELS:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        without = [n for n in layers_without_units(model, prune.include) if n in pruned]
        if without:
            rule = f"must be weights, or prune.ignore must name {', '.join(without)}: units are of "
            rule += "linear layers and convolutions"
            raise SpecError("prune.structure", rule, prune.structure)


@lru_cache(maxsize=256)
def _check_network(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, include: tuple[str, ...]
) -> None:
    """Check that a user's network trains, and that its weights depend on the seed."""
    if spec.name not in models.MODELS:

        def build(seed: int) -> nn.Module:
            return models.build(spec, shape, classes, generator(seed, "structure"))

        check_network(build, spec.name, shape, classes, include)
        if spec.init == "as_built":
            check_draws(build, spec.name, include)


@lru_cache(maxsize=256)
def _check_ids(spec: ModelSpec, data_spec: DataSpec, fingerprint: str) -> None:
    """Check that a user's network on token ids has data with ids, and takes them.

    Args:
        fingerprint: of the data, for the cache.
    """
    if spec.name in models.MODELS:
        return
    _, shape, classes = data.outline(data_spec)
    model = models.build(spec, shape, classes, generator(0, "structure"))
    if takes_ids(model):
        if data_spec.normalize != "dataset":
            rule = f"must be 'dataset', because {spec.name} takes token ids"
            raise SpecError("data.normalize", rule, data_spec.normalize)
        check_ids(model, spec.name, data_spec.name, data.extreme_examples(data_spec))


@lru_cache(maxsize=256)
def _check_scores(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: Pruning, predictors: bool
) -> None:
    """Check that scores and predictors can be taken of a user's network."""
    # Gates are not in the network yet; `add_gates` checks their places.
    names = {prune.score, prune.scope.removeprefix("like:")} - {"magnitude", GATES}
    taken = [name for name in sorted(names) if name in scores.SCORES or ":" in name]
    if spec.name in models.MODELS or not (taken or predictors):
        return
    model = models.build(spec, shape, classes, generator(0, "structure"))
    if "grasp" in taken:
        check_second_derivatives(model, "prune.score", "grasp", shape, classes)
    if predictors:
        check_second_derivatives(model, "predictors", "true", shape, classes)
    with seeded_draws(derive(0, "examples")):
        x = made_up_examples(model, 2, shape)
    network = from_model(model, x, torch.arange(2) % classes, spec=prune)
    rule = f"must be a score that can be taken of {spec.name}"
    for name in taken:
        with suppress(DivergedError), errors_as_spec_errors("prune.score", rule, name):
            scores.scores_of(network, name)


@lru_cache(maxsize=256)
def _check_norms(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, norm_penalty: float
) -> None:
    """Check that a network has the batch norms that a penalty is on."""
    if norm_penalty:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        if not norm_scales(model):
            rule = f"needs batch norm with scales, which {spec.name} lacks, so it must be 0"
            raise SpecError("train.norm_penalty", rule, norm_penalty)


@lru_cache(maxsize=256)
def _check_channels(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, prune: Pruning, levels: int
) -> tuple[Costs, Channels]:
    """Check that a network has channels to remove and what a score needs, and that the smallest
    network is within a budget of the last level that is no latency.

    Returns:
        Costs of the network that loses channels, and those that it can lose.
    """
    costs = whole = _costs(spec, shape, classes)
    if isinstance(prune, PruneGates):
        if prune.expand != 1:
            _check_expansion(spec, shape, classes, prune.expand)
        widened = replace(spec, width=spec.width * prune.expand)
        costs = replace(_costs(widened, shape, classes), channels=_gated(widened, shape, classes))
    costs = replace(costs, whole=whole)
    _, shapes = _pin_model(spec, shape, classes, prune.include)
    pruned = [parameter_of(name) for names, _ in groups(shapes, prune) for name in names]
    units = ChannelUnits(costs.channels).within(pruned)
    if not units.channels:
        rule = f"must be the units of a layer of {spec.name} that can be removed"
        raise SpecError("prune.structure", rule, prune.structure, ("weights", "N:M"))
    if prune.score == "slimming":
        _check_scales(spec, shape, classes, units.channels)
    if prune.budget and not is_measured(prune):
        check_budget(costs, prune, units.channels, max(1, levels))
    return costs, units.channels


def _check_expansion(spec: ModelSpec, shape: tuple[int, ...], classes: int, expand: float) -> None:
    """Check that a network grows with its width."""
    try:
        wider = _costs(replace(spec, width=spec.width * expand), shape, classes)
    except SpecError as error:
        if error.field != "model.width":
            raise
        grows = False
    else:
        grows = wider.parameters({}) > _costs(spec, shape, classes).parameters({})
    if not grows:
        rule = f"must be 1, because {spec.name} is not wider with a larger model.width"
        raise SpecError("prune.expand", rule, expand)


def is_measured(prune: PruneBase) -> bool:
    """Whether a budget is a latency, which is measured."""
    return bool(prune.budget.keys() & LATENCIES.keys())


def check_latency(spec: TicketSpec) -> None:
    """Check, by measuring it here, that the smallest network is within a budget of milliseconds.

    Args:
        spec: a resolved spec; without such a budget nothing is measured.

    Raises:
        SpecError: it takes longer, or this machine lacks the device.
    """
    if is_measured(spec.prune):
        _, (_, shape, classes) = _pin_data(spec.data)
        costs, channels = _check_channels(spec.model, shape, classes, spec.prune, spec.levels)
        check_budget(costs, spec.prune, channels)


# Of large networks these take a second each, so all trials of a study share them.


@lru_cache(maxsize=32)
def _costs(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Costs:
    model = models.build(spec, shape, classes, generator(0, "structure"))
    costs = costs_of(model, shape)
    return replace(costs, latency=ChannelLatency(model, costs.channels, shape))


@lru_cache(maxsize=32)
def _gated(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> Channels:
    """Channels of a network that get gates."""
    with_gates = replace(spec, gates=True)
    model = models.build(with_gates, shape, classes, generator(0, "structure"))
    return gated(_costs(spec, shape, classes).channels, model)


def _check_scales(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, channels: Channels
) -> None:
    """Check that batch norm has a scale of every channel."""
    model = models.build(spec, shape, classes, generator(0, "structure"))
    scales = {id(scale) for scale in norm_scales(model)}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in scales}
    for name, group in channels.items():
        if not any(part.tensor in named for part in group.parts):
            rule = f"needs batch norm behind every pruned layer, which {layer_of(name)} lacks"
            raise SpecError("prune.score", rule, "slimming")


@lru_cache(maxsize=256)
def _check_last_batch(
    spec: ModelSpec,
    shape: tuple[int, ...],
    classes: int,
    examples: int,
    batch_size: int,
    field: str,
) -> None:
    if examples % batch_size == 1 or batch_size == 1:
        model = models.build(spec, shape, classes, generator(0, "structure"))
        check_last_batch(model, spec.name, shape, examples, batch_size, field)


@lru_cache(maxsize=1024)
def _train_in_steps(spec: TrainSpec, steps_per_epoch: int) -> TrainSpec:
    with _within("train"):  # a duration may round to 0 steps, or be too long
        return spec.in_steps(steps_per_epoch)


@lru_cache(maxsize=1024)
def _resolve_prune(
    spec: Pruning, examples: int, steps_per_epoch: int, steps: int, first: int, fingerprint: str
) -> Pruning:
    if isinstance(spec, PruneBefore):
        rounds = spec.rounds or ROUNDS.get(spec.score, 1)
        spec = replace(spec, rounds=rounds, schedule=_schedule(spec))
    elif isinstance(spec, PruneGates):
        spec = spec.in_steps(-(-examples // spec.gate_batch_size))
    elif isinstance(spec, PruneDuring):
        spec = replace(spec.in_steps(steps_per_epoch, steps, first), schedule=_schedule(spec))
        # The mask must reach the level's density before training ends.
        begin, end = steps_in(spec.begin), steps_in(spec.end)
        if not begin < end < steps:
            rule = f"must come after begin (and rewind) and before {steps}, the end of training"
            raise SpecError("end", rule, f"begin {begin}, end {end}")
    return replace(spec, fingerprint=fingerprint)


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Prefix the field of a SpecError with the part of the spec that has it."""
    try:
        yield
    except SpecError as error:
        raise error.under(part) from None
