"""Resolution of specs: names checked, durations in steps, content pinned by fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import lru_cache

from lth_core import data
from lth_core.data import DATASETS
from lth_core.errors import SpecError
from lth_core.jobs.branches import BRANCHES, RETRAINED, SCRATCH
from lth_core.own_code import changed_since
from lth_core.prune import ROUNDS, SCHEDULES, scores
from lth_core.resolve.channels import check_channels, is_measured
from lth_core.resolve.evaluation import check_evaluation, evaluation_interval
from lth_core.resolve.networks import (
    check_layers,
    check_penalty,
    check_scores,
    check_smallest_batch,
    check_token_ids,
    check_training,
)
from lth_core.resolve.pins import Pins, evaluated_examples, pin_data, pin_model, prunable_shapes
from lth_core.resolve.transfer import check_transfer, with_ticket_digest
from lth_core.spec import (
    PruneBefore,
    PruneDuring,
    PruneGates,
    Pruning,
    TicketSpec,
    TrainSpec,
)
from lth_core.spec.fields import steps_in
from lth_core.spec.learning_rate import learning_rate
from lth_core.spec.prune_base import CHANNELS
from lth_core.spec.train import AUTO
from lth_core.ticket import Ticket


def resolve(
    spec: TicketSpec, pins: Pins | None = None, tickets: Mapping[str, Ticket] | None = None
) -> TicketSpec:
    """The spec with fingerprints filled in and every duration in steps.

    No named dataset is read. A folder or a user's own data is read (and cached) to be pinned.

    Args:
        pins: fingerprints of data, models and scores outside of this package. With them nothing is
            imported or read and no network is built, so patterns of layers are not checked.
        tickets: tickets by the name that `spec.ticket` may give; it may name a file too.

    Raises:
        SpecError: a name is not known or has no pin, or the rewind point lies past the end of
            training.
        DataError: data that must be read are missing or broken.
    """
    _check_branches(spec)
    if spec.ticket is not None:
        check_transfer(spec)
    if pins is None:
        pinned, examples, evaluated = _checked(spec, tickets or {})
    else:
        pinned, examples, evaluated = _pinned(spec, pins)
    steps_per_epoch = -(-examples // spec.train.batch_size)
    train = _train_in_steps(spec.train, examples, evaluated)
    steps = steps_in(train.steps)
    if "finetune" in spec.branches and not learning_rate(train, steps - 1) > 0:
        rule = "must not end training at rate 0: branch finetune trains at the last rate"
        raise SpecError("train.gamma", rule, train.gamma)
    rewind = steps_in(spec.rewind, steps_per_epoch, steps)
    _check_rewind(spec, rewind, steps)
    restart = spec.restart_schedule and rewind > 0  # at rewind point 0 it changes nothing
    first = 0 if restart else rewind
    gated = examples + (_released(spec, pins) if isinstance(spec.prune, PruneGates) else 0)
    with _within("prune"):
        prune = _resolve_prune(pinned.prune, gated, steps_per_epoch, steps, first)
    if pins is None:
        _check_unused(spec.train)
        _check_times(train)
        checked = replace(spec, model=pinned.model)
        _check_batch(checked, examples, "train.batch_size", train.batch_size, steps)
        if isinstance(prune, PruneGates):
            size, last = prune.gate_batch_size, steps_in(prune.gate_steps)
            _check_batch(checked, gated, "prune.gate_batch_size", size, last)
    return replace(pinned, train=train, prune=prune, rewind=f"{rewind}it", restart_schedule=restart)


def check_unchanged(spec: TicketSpec, since: str) -> None:
    """Check that this process has the data and code of a resolved spec.

    Args:
        since: what was done with them, for the error, such as "the sweep was planned".

    Raises:
        SpecError: some differ: they were edited since, or are others on this node.
    """
    here, _, _ = _checked(spec, {})
    for path in ("data.name", "model.name", "prune.score"):
        part, _, field = path.partition(".")
        before, now = getattr(spec, part).fingerprint, getattr(here, part).fingerprint
        if before != now:
            rule = f"must have the content that it had when {since}; its code or files have changed"
            if changed := changed_since(before, now):
                rule = f"must use what it used when {since}; {changed} is another now: "
                rule += "put the code into a file, mine.py, whose caches do not count"
            raise SpecError(path, rule, getattr(getattr(spec, part), field))


def _checked(spec: TicketSpec, tickets: Mapping[str, Ticket]) -> tuple[TicketSpec, int, int]:
    """The spec with fingerprints and its numbers of training and of evaluated examples, its network
    checked."""
    prune = replace(spec.prune, fingerprint=scores.fingerprint(spec.prune))
    pinned_data, (examples, shape, classes) = pin_data(spec.data)
    model = pin_model(spec.model)
    network = model, shape, classes
    shapes = prunable_shapes(*network, prune.include)
    if spec.ticket is not None:
        spec = with_ticket_digest(spec, tickets, shapes)
    check_training(*network, prune.include)
    check_token_ids(model, spec.data, pinned_data.fingerprint)
    check_layers(*network, prune)
    check_scores(*network, prune, spec.predictors)
    check_penalty(*network, spec.train.norm_penalty)
    check_evaluation(spec)
    if prune.structure in CHANNELS:
        check_channels(*network, prune, spec.levels)
    pinned = replace(spec, data=pinned_data, model=model, prune=prune)
    return pinned, examples, evaluated_examples(spec.data)


def _pinned(spec: TicketSpec, pins: Pins) -> tuple[TicketSpec, int, int]:
    """The spec with fingerprints and its numbers of training and of evaluated examples, all from
    pins."""
    prune = replace(spec.prune, fingerprint=pins.of_score(spec.prune))
    pinned_data, examples, evaluated = pins.of_data(spec.data)
    model, ticket = pins.of_model(spec.model), pins.tickets.get(spec.ticket or "", spec.ticket)
    pinned = replace(spec, data=pinned_data, model=model, prune=prune, ticket=ticket)
    return pinned, examples, evaluated


def _check_unused(train: TrainSpec) -> None:
    """Refuse settings that the optimizer or the schedule does not read: specs that differ in them
    would be one training."""
    defaults = {f.name: f.default for f in fields(TrainSpec)}
    unused = {"momentum": "sgd", "nesterov": "sgd"} if train.optimizer != "sgd" else {}
    unused |= {"gamma": "multistep"} if train.schedule != "multistep" else {}
    for name, user in unused.items():
        if getattr(train, name) != defaults[name]:
            rule = f"needs train.{'schedule' if name == 'gamma' else 'optimizer'}: {user}"
            raise SpecError(f"train.{name}", rule, getattr(train, name))


def _check_times(train: TrainSpec) -> None:
    """Check that the learning rate is reached, and falls, within training.

    Args:
        train: with every duration in steps.
    """
    steps, before = steps_in(train.steps), -1
    if steps_in(train.warmup) > steps:
        rule = f"must not last longer than training, {steps} steps"
        raise SpecError("train.warmup", rule, train.warmup)
    for milestone in map(steps_in, train.milestones):
        if not before < milestone < steps:
            rule = f"must rise, and lie before the end of training, step {steps}"
            raise SpecError("train.milestones", rule, train.milestones)
        before = milestone


def _check_rewind(spec: TicketSpec, rewind: int, steps: int) -> None:
    """Check that something is left to train after the rewind point where the method needs it.

    Args:
        rewind: step of the rewind point.
        steps: length of the dense run.
    """
    if rewind > steps:
        rule = f"must not lie past the end of training, step {steps}"
        raise SpecError("rewind", rule, spec.rewind)
    if isinstance(spec.prune, PruneGates) and spec.prune.expand != 1 and rewind:
        rule = "must be 0 where prune.expand widens the network, which is trained from there"
        raise SpecError("rewind", rule, spec.rewind)
    if spec.ticket is not None and rewind:
        rule = "must be 0 beside ticket, which has weights of its own"
        raise SpecError("rewind", rule, spec.rewind)
    first = 0 if spec.restart_schedule else rewind
    if first == steps and spec.levels and spec.prune.when in ("during", "never"):
        rule = f"must come before the end of training, step {steps}"
        raise SpecError("rewind", rule, spec.rewind)


def _check_batch(spec: TicketSpec, examples: int, field: str, size: int, steps: int) -> None:
    """Check a training's smallest batch, if it comes to the end of an epoch."""
    if steps >= -(-examples // size):
        _, (_, shape, classes) = pin_data(spec.data)
        check_smallest_batch(spec.model, shape, classes, examples, size, field)


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


@lru_cache(maxsize=1024)
def _train_in_steps(spec: TrainSpec, examples: int, evaluated: int) -> TrainSpec:
    """The spec with every duration in steps.

    Args:
        examples, evaluated: numbers of training examples, and of validation and test examples.
    """
    with _within("train"):  # a duration may round to 0 steps, or be too long
        spec = spec.in_steps(-(-examples // spec.batch_size))
    if spec.evaluate_every != AUTO:
        return spec
    every = evaluation_interval(steps_in(spec.steps), spec.batch_size, examples, evaluated)
    return replace(spec, evaluate_every=f"{every}it")


@lru_cache(maxsize=1024)
def _resolve_prune(
    spec: Pruning, gated: int, steps_per_epoch: int, steps: int, first: int
) -> Pruning:
    """The spec with every duration in steps.

    Args:
        gated: number of examples on which gates are trained.
        first: the step at which the ticket's run starts.
    """
    if isinstance(spec, PruneBefore):
        rounds = spec.rounds or ROUNDS.get(spec.score, 1)
        spec = replace(spec, rounds=rounds, schedule=_schedule(spec))
    elif isinstance(spec, PruneGates):
        spec = spec.in_steps(-(-gated // spec.gate_batch_size))
    elif isinstance(spec, PruneDuring):
        spec = replace(spec.in_steps(steps_per_epoch, steps, first), schedule=_schedule(spec))
        # The mask must reach the level's density before training ends.
        begin, end = steps_in(spec.begin), steps_in(spec.end)
        if not begin < end < steps:
            rule = f"must come after begin (and rewind) and before {steps}, the end of training"
            raise SpecError("end", rule, f"begin {begin}, end {end}")
    return spec


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Prefix the field of a SpecError with the part of the spec that has it."""
    try:
        yield
    except SpecError as error:
        raise error.under(part) from None
