import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.errors import SpecError
from lth_core.lottery import levels
from lth_core.resolve import DataPin, Pins, find_pins, resolve
from lth_core.spec import Pruning
from lth_core.spec import TicketSpec as Spec


def test_durations_become_steps_of_the_examples_that_are_trained_on() -> None:
    """1213 of the digits are trained on: 21 batches of 60 an epoch, the last one of 13."""
    spec = resolve(TicketSpec(train=TrainSpec(steps="2ep", evaluate_every="1ep"), rewind="0.5ep"))
    assert (spec.train.steps, spec.train.evaluate_every, spec.rewind) == ("42it", "21it", "10it")
    half = resolve(TicketSpec(data=DataSpec(fraction=0.5), train=TrainSpec(steps="2ep")))
    assert half.train.steps == "22it"


@pytest.mark.parametrize(
    ("steps", "every"),
    [
        ("600it", 36),  # 34,651 examples seen: 17 passes over the 584 cost less than a tenth
        ("4000it", 100),  # 40 points
        ("4001it", 101),  # no 41st
        ("20it", 20),  # not a single one is affordable
    ],
)
def test_open_interval_between_evaluations_is_a_share_of_training(steps: str, every: int) -> None:
    """135 validation and 449 test examples; a training step costs three forward passes."""
    train = resolve(TicketSpec(train=TrainSpec(steps=steps, evaluate_every="auto"))).train
    assert train.evaluate_every == f"{every}it"
    assert resolve(TicketSpec(train=TrainSpec(steps=steps))).train == train


def test_open_interval_is_that_of_the_dense_run_wherever_a_ticket_starts() -> None:
    late = TicketSpec(rewind="90%", branches=("ticket", "reinit", "finetune"), levels=1)
    jobs = [job for branches in levels(resolve(late)) for job in branches.values()]
    assert {job.last - job.first for job in jobs} == {60, 600}
    assert {job.train.evaluate_every for job in jobs} == {"36it"}


def test_open_interval_and_its_steps_are_one_result() -> None:
    given = TicketSpec(train=TrainSpec(evaluate_every="36it"))
    assert resolve(TicketSpec()).digest() == resolve(given).digest()


def test_given_interval_stays() -> None:
    assert resolve(TicketSpec(train=TrainSpec(evaluate_every="1it"))).train.evaluate_every == "1it"


def test_resolving_twice_changes_nothing() -> None:
    spec = resolve(TicketSpec(model=ModelSpec(name="toys:batch_norm_net"), rewind="1ep"))
    assert resolve(spec) == spec
    assert len(spec.model.fingerprint) == 64
    assert spec.data.fingerprint == ""


PINNED = TicketSpec(
    data=DataSpec(name="toys:colours"), model=ModelSpec(name="toys:batch_norm_net"),
    prune=PruneSpec(score="own_scores:of_the_copy"), rewind="1ep",
)  # fmt: skip


def test_resolving_by_pins_gives_what_importing_gives() -> None:
    names = [PINNED.model.name], [PINNED.prune.score, "magnitude", "supermask"]
    pins = find_pins([PINNED.data, DataSpec()], *names)
    assert resolve(PINNED, pins) == resolve(PINNED)
    assert resolve(TicketSpec(), pins) == resolve(TicketSpec())
    assert list(pins.data) == [PINNED.data]
    assert sorted(pins.sources) == ["own_scores:of_the_copy", "toys:batch_norm_net"]


@pytest.mark.parametrize("field", ["data.name", "model.name", "prune.score"])
def test_resolving_by_pins_refuses_what_has_none_and_does_not_import_it(field: str) -> None:
    part, _, name = field.partition(".")
    spec = replace(TicketSpec(), **{part: replace(getattr(PINNED, part), **{name: "nowhere:it"})})
    with pytest.raises(SpecError, match="must have a stored fingerprint") as found:
        resolve(spec, Pins({PINNED.data: DataPin("0", 9, 3)}, {PINNED.model.name: "0"}))
    assert (found.value.field, found.value.got) == (field, "nowhere:it")


@pytest.mark.parametrize("field", ["data.name", "model.name", "prune.score"])
def test_resolving_by_pins_refuses_unknown_names(field: str) -> None:
    part, _, name = field.partition(".")
    spec = replace(
        TicketSpec(), **{part: replace(getattr(TicketSpec(), part), **{name: "nobodys"})}
    )
    with pytest.raises(SpecError) as found:
        resolve(spec, Pins())
    assert found.value.field == field


BEFORE, DURING = PruneSpec(when="before"), PruneSpec(when="during")
NEVER = PruneSpec(when="never", score="supermask")
TWIN = ("ticket", "twin")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (TicketSpec(rewind="601it"), "rewind"),
        (TicketSpec(branches=("ticket", "tocket")), "branches"),
        (TicketSpec(data=DataSpec(name="digts")), "data.name"),
        (TicketSpec(model=ModelSpec(name="lenet")), "model.name"),
        (TicketSpec(train=TrainSpec(steps="0.01ep")), "train.steps"),
        (TicketSpec(train=TrainSpec(evaluate_every="0.01ep")), "train.evaluate_every"),
        (TicketSpec(train=TrainSpec(evaluate_every="0.01%")), "train.evaluate_every"),
        (
            TicketSpec(data=DataSpec(validation=0), train=TrainSpec(evaluate_test="best")),
            "train.evaluate_test",
        ),
        (
            TicketSpec(
                train=TrainSpec(warmup="1ep", schedule="multistep", milestones=("20it", "10ep"))
            ),
            "train.milestones",
        ),
        (TicketSpec(prune=PruneSpec(score="magnitud")), "prune.score"),
        (TicketSpec(prune=PruneSpec(score="nowhere:score")), "prune.score"),
        (TicketSpec(prune=PruneSpec(scope="like:magnitud")), "prune.scope"),
        (TicketSpec(prune=PruneSpec(ignore=("fc9",))), "prune.ignore"),
        (TicketSpec(prune=PruneSpec(layer_fractions={"fc9": 0.1})), "prune.layer_fractions"),
        (TicketSpec(prune=PruneSpec(structure="channels")), "prune.structure"),
        (TicketSpec(prune=BEFORE, branches=("ticket", "finetune")), "branches"),
        (TicketSpec(prune=BEFORE, branches=("ticket", "lr_rewind")), "branches"),
        (TicketSpec(prune=DURING, branches=("ticket", "finetune")), "branches"),
        (TicketSpec(prune=replace(BEFORE, schedule="lineal")), "prune.schedule"),
        (TicketSpec(prune=replace(DURING, schedule="lineal")), "prune.schedule"),
        (TicketSpec(prune=replace(DURING, begin="75%")), "prune.end"),
        (
            TicketSpec(
                branches=("ticket", "finetune"),
                train=TrainSpec(schedule="multistep", milestones=("5it",), gamma=0.0),
            ),
            "train.gamma",
        ),
        (TicketSpec(prune=replace(DURING, end="600it")), "prune.end"),
        (TicketSpec(prune=replace(DURING, end="100%")), "prune.end"),
        (TicketSpec(prune=DURING, rewind="460it"), "prune.end"),
        (TicketSpec(prune=DURING, rewind="600it"), "rewind"),
        (TicketSpec(prune=NEVER, rewind="100%"), "rewind"),
        (TicketSpec(prune=BEFORE, rewind="601it"), "rewind"),
        (TicketSpec(prune=DURING, branches=TWIN), "branches"),
        (TicketSpec(prune=NEVER, branches=TWIN), "branches"),
        (TicketSpec(prune=NEVER, levels=0, branches=TWIN), "branches"),
        (TicketSpec(prune=BEFORE, predictors=True), "predictors"),
        (TicketSpec(prune=DURING, predictors=True), "predictors"),
        (TicketSpec(prune=NEVER, predictors=True), "predictors"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_field(spec: Spec, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        resolve(spec)
    assert refused.value.field == field


def pruning(rewind: str = "0it", **fields: object) -> Pruning:
    """The resolved pruning of a search that trains for 600 steps, 21 an epoch."""
    prune = PruneSpec(**fields)  # type: ignore[arg-type]
    return resolve(TicketSpec(prune=prune, rewind=rewind, branches=("ticket",))).prune


@pytest.mark.parametrize(
    ("fields", "rounds", "schedule"),
    [
        ({}, None, None),
        ({"when": "never", "score": "edge-popup"}, None, None),
        ({"when": "before", "score": "snip"}, 1, "exponential"),
        ({"when": "before", "score": "synflow"}, 100, "exponential"),
        ({"when": "before", "score": "synflow", "rounds": 3}, 3, "exponential"),
        ({"when": "before", "score": "random", "schedule": "linear"}, 1, "linear"),
        ({"when": "during"}, None, "cubic"),
        ({"when": "during", "grow": "gradient"}, None, "constant"),
        ({"when": "during", "grow": "random", "schedule": "cubic"}, None, "cubic"),
    ],
)
def test_rounds_and_schedule_left_open_are_filled_in(
    fields: dict[str, object], rounds: int | None, schedule: str | None
) -> None:
    resolved = pruning(**fields)
    filled_in = getattr(resolved, "rounds", None), getattr(resolved, "schedule", None)
    assert filled_in == (rounds, schedule)
    assert resolve(TicketSpec(prune=resolved)).prune == resolved


def test_what_is_left_open_and_what_it_means_are_one_result() -> None:
    default, given = (PruneSpec(when="before", score="synflow", rounds=n) for n in (None, 100))
    assert resolve(TicketSpec(prune=default)).digest() == resolve(TicketSpec(prune=given)).digest()


def test_changes_during_training_are_resolved_to_steps() -> None:
    usual = pruning(when="during")
    assert (usual.begin, usual.end, usual.every) == ("0it", "450it", "6it")
    own = pruning("7it", when="during", begin="0.5ep", end=599, every="0.05%")
    assert (own.begin, own.end, own.every) == ("10it", "599it", "1it")
    assert pruning("10it", when="during", begin="10it").begin == "10it"


def test_source_of_an_own_score_enters_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # stale if edited within a second
    source, spec = tmp_path / "resolved_score.py", PruneSpec(score="resolved_score:score")
    digests = []
    for body in ("network.weights", "network.initial"):
        source.write_text(f"def score(network): return {body}\n")
        monkeypatch.delitem(sys.modules, "resolved_score", raising=False)  # as in a new process
        digests.append(resolve(TicketSpec(prune=spec)).digest())
    assert len(set(digests)) == 2


@pytest.mark.parametrize(
    "spec",
    [
        TicketSpec(),
        TicketSpec(prune=BEFORE),
        TicketSpec(branches=("ticket", "finetune", "twin"), predictors=True),
        TicketSpec(prune=NEVER, levels=0),
    ],
)
def test_one_may_rewind_to_the_end_where_no_mask_is_to_be_found_from_there_on(spec: Spec) -> None:
    for end in ("600it", "100%"):
        assert resolve(replace(spec, rewind=end)).rewind == "600it"
