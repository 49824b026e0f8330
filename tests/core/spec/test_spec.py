import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_core.errors import LthError, SpecError
from lth_core.resolve import Pins, check_unchanged, resolve
from lth_core.spec import (
    NOT_DECIDING,
    DataSpec,
    ModelSpec,
    PruneSpec,
    StabilitySpec,
    TicketSpec,
    TrainSpec,
    canonical_json,
    describe,
)
from lth_core.spec.fields import steps_in
from lth_core.spec.prune import PRUNING
from lth_core.ticket import spec_from

PARTS = {
    "data": DataSpec,
    "model": ModelSpec,
    "train": TrainSpec,
    "prune": PruneSpec,
    "stability": StabilitySpec,
}
GATES: dict[str, object] = {"when": "gates", "structure": "channels"}
MULTISTEP = {"schedule": "multistep", "milestones": ("5it",)}

# For every field that decides the result: what it is changed to, beside the other fields it needs.
CHANGES: dict[str, tuple[object, dict[str, object]]] = {
    "data.name": ("mnist", {}),
    "data.validation": (100, {}),
    "data.fraction": (0.5, {}),
    "data.alpha": ("white", {}),
    "data.normalize": ("per_image", {}),
    "data.augment": ("crop", {}),
    "data.split_seed": (1, {}),
    "data.label_noise": (0.2, {}),
    "data.fingerprint": ("ab", {}),
    "model.name": ("conv-2", {}),
    "model.widths": ((300,), {}),
    "model.width": (0.5, {}),
    "model.depth": (2, {"widths": (20,)}),
    "model.init": ("xavier_normal", {}),
    "model.norm_init": ("uniform", {}),
    "model.gates": (True, {}),
    "model.stem": ("imagenet", {}),
    "model.dropout": (0.5, {}),
    "model.fingerprint": ("ab", {}),
    "train.optimizer": ("sgd", {}),
    "train.lr": (0.1, {}),
    "train.momentum": (0.9, {}),
    "train.nesterov": (True, {"momentum": 0.9}),
    "train.weight_decay": (1e-4, {}),
    "train.norm_penalty": (1e-4, {}),
    "train.batch_size": (61, {}),
    "train.steps": (601, {}),
    "train.schedule": ("cosine", {}),
    "train.milestones": (("6it",), MULTISTEP),
    "train.gamma": (0.2, {}),
    "train.warmup": (5, {}),
    "train.evaluate_every": (21, {}),
    "train.evaluate_test": ("best", {}),
    "train.precision": ("bf16", {}),
    "train.replay_order": (True, {}),
    "prune.when": ("before", {}),
    "prune.score": ("other", {}),
    "prune.scope": ("global", {}),
    "prune.fraction": (0.3, {}),
    "prune.budget": ({"flops": 0.5}, {"structure": "channels"}),
    "prune.densities": (tuple(0.5**level for level in range(1, 16)), {}),
    "prune.output_fraction": (0.0, {}),
    "prune.layer_fractions": ({"fc1": 0.1}, {}),
    "prune.ignore": (("output",), {}),
    "prune.include": (("words",), {}),
    "prune.structure": ("channels", {}),
    "prune.one_shot": (True, {}),
    "prune.rounds": (2, {"when": "before"}),
    "prune.examples": (11, {}),
    "prune.statistics": ("running", {}),
    "prune.temperature": (1.0, {"score": "grasp"}),
    "prune.schedule": ("linear", {"when": "before"}),
    "prune.begin": ("1%", {"when": "during"}),
    "prune.end": ("70%", {"when": "during"}),
    "prune.every": ("2%", {"when": "during"}),
    "prune.grow": ("random", {"when": "during"}),
    "prune.swap": (0.5, {"when": "during", "grow": "random"}),
    "prune.lr": (0.1, {"when": "never", "score": "edge-popup"}),
    "prune.keep_share": (0.3, GATES),
    "prune.penalty": (1.0, GATES),
    "prune.gate_lr": (0.1, GATES),
    "prune.gate_batch_size": (64, GATES),
    "prune.gate_steps": ("5ep", GATES),
    "prune.gate_every": ("2ep", GATES),
    "prune.gate_validation": (100, GATES),
    "prune.expand": (1.25, GATES),
    "prune.fingerprint": ("ab", {}),
    "levels": (16, {}),
    "rewind": (1, {}),
    "restart_schedule": (True, {}),
    "branches": (("ticket",), {}),
    "ticket": ("t.safetensors", {}),
    "predictors": (True, {}),
    "stability.points": (31, {}),
    "stability.renormalize": (False, {}),
    "seed": (1, {}),
}


def make(path: str, **fields: object) -> TicketSpec:
    """A spec with fields set in the part that a dotted path names."""
    part = path.rpartition(".")[0]
    return TicketSpec(**({part: PARTS[part](**fields)} if part else fields))


def test_every_field_is_known_to_the_digest_test() -> None:
    specs = [("", TicketSpec), *(("prune.", kind) for kind in PRUNING.values())]
    specs += [(f"{name}.", spec) for name, spec in PARTS.items() if name != "prune"]
    decisive = {
        f"{prefix}{f.name}"
        for prefix, spec in specs
        for f in dataclasses.fields(spec)
        if f.metadata != NOT_DECIDING and (prefix or f.name not in PARTS)
    }
    assert decisive == CHANGES.keys()


@pytest.mark.parametrize("path", CHANGES)
def test_digest_changes_with_every_field_that_decides_the_result(path: str) -> None:
    value, needed = CHANGES[path]
    changed = make(path, **{**needed, path.rpartition(".")[2]: value})
    assert changed.digest() != make(path, **needed).digest()


def test_digest_does_not_depend_on_where_data_lie() -> None:
    elsewhere = DataSpec(root="/elsewhere", download=True)
    assert TicketSpec(data=elsewhere).digest() == TicketSpec().digest()


def test_spec_keeps_its_digest() -> None:
    """What a store remembers is lost when this changes. Raise SCHEMA if results change meaning."""
    spec = TicketSpec(train=TrainSpec(evaluate_every="20it"))
    assert spec.digest() == "3d2aa07a5b5c5d1dd151abaaf5837fcb2a57b5a500077d0f6be2ccc53241f40c"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (DataSpec(validation=100, fraction=1), DataSpec(validation=100.0, fraction=1.0)),
        (ModelSpec(width=2, widths=[20, 10]), ModelSpec(width=2.0, widths=(20, 10))),
        (TrainSpec(lr=1, batch_size=60.0), TrainSpec(lr=1.0, batch_size=60)),
        (TrainSpec(steps=500, warmup=0), TrainSpec(steps="500it", warmup="0it")),
        (
            TrainSpec(schedule="multistep", milestones=[5, "2ep"]),
            TrainSpec(schedule="multistep", milestones=("5it", "2ep")),
        ),
        (
            PruneSpec(output_fraction=0, ignore=["fc1"]),
            PruneSpec(output_fraction=0.0, ignore=("fc1",)),
        ),
        (PruneSpec(layer_fractions={"fc1": 0}), PruneSpec(layer_fractions={"fc1": 0.0})),
        (TicketSpec(rewind=5, seed=1.0), TicketSpec(rewind="5it", seed=1)),
        (TicketSpec(branches=["ticket"]), TicketSpec(branches=("ticket",))),
    ],
)
def test_two_spellings_of_a_value_make_equal_specs(one: object, other: object) -> None:
    assert one == other
    assert canonical_json(describe(one)) == canonical_json(describe(other))


def test_order_of_layer_fractions_neither_changes_digest_nor_meaning() -> None:
    one = PruneSpec(layer_fractions={"fc1": 0.5, "fc?": 0.2, "*": 0.1})
    other = PruneSpec(layer_fractions={"*": 0.1, "fc?": 0.2, "fc1": 0.5})
    assert list(one.layer_fractions) == list(other.layer_fractions) == ["*", "fc?", "fc1"]


NAN, INF, MANY = float("nan"), float("inf"), "9" * 400
BAD = [
    (DataSpec, "name", [5, None]),
    (DataSpec, "validation", [-1, -0.1, 1.5, NAN, INF, "10", True, None]),
    (DataSpec, "fraction", [0, -0.1, 1.01, NAN, True]),
    (DataSpec, "augment", ["rotate", None]),
    (DataSpec, "normalize", ["per_batch", None]),
    (DataSpec, "split_seed", [-1, 0.5, True]),
    (DataSpec, "download", [1, "yes"]),
    (DataSpec, "label_noise", [1, -0.1, NAN, "0.2", None]),
    (ModelSpec, "widths", [(), (0,), (2.5,), 5, "300", (True,), (4, 10**30)]),
    (ModelSpec, "width", [0, -1, INF, NAN, "1", 1e30, 10**400]),
    (ModelSpec, "depth", [0, 1.5, "2", 10**9]),
    (ModelSpec, "init", ["zeros"]),
    (ModelSpec, "norm_init", ["zeros", None]),
    (ModelSpec, "stem", ["resnet", None]),
    (ModelSpec, "dropout", [1, -0.5, INF, "0.5", True]),
    (TrainSpec, "optimizer", ["lion"]),
    (TrainSpec, "lr", [0, -1, INF, NAN, "1e-3"]),
    (TrainSpec, "momentum", [-0.1, 1, NAN]),
    (TrainSpec, "nesterov", [True, 1]),
    (TrainSpec, "weight_decay", [-1e-4, INF, NAN]),
    (TrainSpec, "batch_size", [0, 1.5, "60", 10**400]),
    (
        TrainSpec,
        "steps",
        [
            f"{MANY}ep",
            f"{MANY}it",
            f"{MANY}.5ep",
            10**400,
            0,
            -1,
            "0it",
            "0ep",
            "10",
            10.0,
            True,
            "1.5it",
            "50%",
        ],
    ),
    (TrainSpec, "schedule", ["linear"]),
    (TrainSpec, "milestones", [("5it",), 5, (f"{MANY}ep",)]),
    (TrainSpec, "gamma", [-0.1, 1.1]),
    (TrainSpec, "warmup", [-1, "soon", f"{MANY}it", f"{MANY}%"]),
    (TrainSpec, "evaluate_every", [0, "0ep", "0%", "101%", "-5%", "5 %", "%", "Auto", "", None]),
    (TrainSpec, "evaluate_test", ["never", "auto", None, True]),
    (TrainSpec, "precision", ["fp8"]),
    (PruneSpec, "scope", ["local"]),
    (PruneSpec, "fraction", [1, -0.1, NAN, "0.2", False]),
    (PruneSpec, "output_fraction", [1, -0.1]),
    (PruneSpec, "layer_fractions", [[], 0.5]),
    (PruneSpec, "ignore", ["output", None]),
    (TicketSpec, "levels", [-1, 2.5, None, 1001, 10**8]),
    (TicketSpec, "rewind", [-1, "5", None, f"{MANY}ep"]),
    (TicketSpec, "branches", [(), ("reinit",), ("ticket", "ticket"), "ticket"]),
    (TicketSpec, "ticket", [1, True, ["a"]]),
    (TicketSpec, "predictors", [1, "yes", None]),
    (TicketSpec, "seed", [-1, 0.5, "0"]),
    (StabilitySpec, "points", [2, 0, -3, 3.5, "30", True, None]),
    (StabilitySpec, "renormalize", [1, "no", None]),
]


@pytest.mark.parametrize(
    ("spec", "name", "value"), [(s, n, v) for s, n, values in BAD for v in values]
)
def test_bad_value_is_refused_by_its_field(spec: type, name: str, value: object) -> None:
    with pytest.raises(SpecError) as refused:
        spec(**{name: value})
    assert refused.value.field == name
    assert str(refused.value).startswith(f"{name}: ")


def test_bad_entries_are_refused_by_the_field_that_holds_them() -> None:
    with pytest.raises(SpecError, match=r"^layer_fractions\.fc1: must be a fraction"):
        PruneSpec(layer_fractions={"fc1": 1.0})
    with pytest.raises(SpecError, match=r"^milestones: .*'soon'"):
        TrainSpec(schedule="multistep", milestones=("soon",))
    with pytest.raises(SpecError, match=r"^milestones: must be given with schedule"):
        TrainSpec(schedule="multistep")
    with pytest.raises(SpecError, match=r"^depth: repeats a single width"):
        ModelSpec(widths=(20, 10), depth=3)


def test_spec_error_names_rule_value_and_known_values_and_survives_pickling() -> None:
    error = SpecError("scope", "is not known", "local", ["global", "layerwise"]).under("prune")
    message = (
        "prune.scope: is not known, but got 'local'; known: global, layerwise; "
        "did you mean `global`?"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert str(error) == str(copy) == message
    assert (copy.field, copy.got, copy.known) == ("prune.scope", "local", ("global", "layerwise"))
    assert isinstance(error, ValueError)
    assert isinstance(error, LthError)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("0it", 0), ("500it", 500), ("2ep", 42), ("0.5ep", 10), ("1.5ep", 32),
        ("0%", 0), ("5%", 30), ("12.5%", 75), ("0.1%", 1), ("100%", 600),
    ],
)  # fmt: skip
def test_durations_are_steps_epochs_or_shares_of_training_rounded(
    duration: str, steps: int
) -> None:
    assert steps_in(duration, steps_per_epoch=21, steps=600) == steps


def test_resolved_has_every_duration_in_steps() -> None:
    spec = TrainSpec(
        steps="2ep",
        warmup="0.5ep",
        evaluate_every="1ep",
        schedule="multistep",
        milestones=("1ep", 30, "85%"),
    ).in_steps(20)
    assert (spec.steps, spec.warmup, spec.evaluate_every) == ("40it", "10it", "20it")
    assert spec.milestones == ("20it", "30it", "34it")


@pytest.mark.parametrize("milestone", ["0it", "9it", "0.45ep", "22%"])
def test_milestone_within_the_warm_up_is_refused(milestone: str) -> None:
    spec = TrainSpec(
        steps="2ep", warmup="0.5ep", schedule="multistep", milestones=("1ep", milestone)
    )
    rule = "must not come before the end of the warm-up, step 10"
    with pytest.raises(SpecError, match=f"^milestones: {rule}, but got '{milestone}'$"):
        spec.in_steps(20)


def test_milestone_at_the_end_of_the_warm_up_is_allowed() -> None:
    spec = TrainSpec(steps="2ep", warmup="0.5ep", schedule="multistep", milestones=("25%",))
    assert spec.in_steps(20).milestones == ("10it",)


shares = st.floats(0, 0.99)
specs = st.builds(
    TicketSpec,
    data=st.builds(
        DataSpec,
        validation=st.integers(0, 500) | st.floats(0.01, 0.99),
        normalize=st.sampled_from(["dataset", "per_image"]),
        fraction=st.floats(0.01, 1),
        split_seed=st.integers(0, 2**63 - 1),
    ),
    model=st.builds(
        ModelSpec,
        widths=st.lists(st.integers(1, 9), min_size=1),
        width=st.integers(1, 3),
        norm_init=st.sampled_from(["ones", "uniform"]),
    ),
    train=st.builds(TrainSpec, lr=st.floats(1e-6, 10), steps=st.integers(1, 99)),
    prune=st.builds(
        PruneSpec,
        fraction=shares,
        output_fraction=st.none() | shares,
        layer_fractions=st.dictionaries(
            st.sampled_from(["fc*", "fc1", "*", "[ab]"]), shares | st.just(0)
        ),
    ),
    stability=st.builds(StabilitySpec, points=st.integers(3, 99), renormalize=st.booleans()),
    predictors=st.booleans(),
    restart_schedule=st.booleans(),
    levels=st.integers(0, 30),
    rewind=st.integers(0, 30) | st.just("1ep"),
    seed=st.integers(0, 2**63 - 1),
)


@given(specs)
def test_spec_read_back_from_json_is_equal_with_equal_digest(spec: TicketSpec) -> None:
    again = spec_from(json.loads(canonical_json(describe(spec))))
    assert again == spec
    assert again.digest() == spec.digest()


@given(specs, specs)
def test_different_specs_have_different_digests(one: TicketSpec, other: TicketSpec) -> None:
    assert (one == other) == (one.digest() == other.digest())


def test_levels_reach_to_a_thousand() -> None:
    assert TicketSpec(levels=1000).levels == 1000
    with pytest.raises(SpecError, match=r"^levels: must be at most 1,000, but got 100000000$"):
        TicketSpec(levels=100_000_000)


@pytest.mark.parametrize(("fields", "message"), [
    ({"optimizer": "adam", "momentum": 0.9}, r"train.momentum: needs train.optimizer: sgd, .* 0.9"),
    ({"optimizer": "adamw", "momentum": 0.9, "nesterov": True}, "train.momentum: needs"),
    ({"schedule": "cosine", "gamma": 0.5}, r"train.gamma: needs train.schedule: multistep"),
    ({"steps": 20, "warmup": 21}, r"train.warmup: must not last longer than training, 20 steps"),
    ({"steps": 20, "schedule": "multistep", "milestones": (10, 20)},
     r"train.milestones: must rise, and lie before the end of training, step 20, but got"),
    ({"steps": 20, "schedule": "multistep", "milestones": (10, 10)}, "train.milestones: must rise"),
])  # fmt: skip
def test_setting_that_has_no_effect_in_training_is_refused_before_it(
    fields: dict[str, Any], message: str
) -> None:
    """A stored spec with one is read: older versions took it."""
    spec = TicketSpec(train=TrainSpec(**fields))
    with pytest.raises(SpecError, match=f"^{message}"):
        resolve(spec)
    assert resolve(spec, Pins()).train.lr == spec.train.lr
    check_unchanged(resolve(spec, Pins()), "it was found")


@pytest.mark.parametrize(("part", "kind"), [("data", "DataSpec"), ("prune", "PruneSpec")])
def test_part_of_another_type_is_refused_by_its_field(part: str, kind: str) -> None:
    with pytest.raises(SpecError, match=rf"^{part}: must be a {kind}, but got 'digits'"):
        TicketSpec(**{part: "digits"})
