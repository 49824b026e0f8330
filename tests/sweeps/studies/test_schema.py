import json
from datetime import date
from math import inf
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from jsonschema.protocols import Validator
from tiny import StudyFile, StudyOf, tiny_fields

from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.errors import SpecError
from lth_core.spec import TicketSpec
from sweeps.plan.plan import make_plan
from sweeps.studies.find import find_study, presets, save_swept
from sweeps.studies.reader import (
    parse_spec,
    parse_study,
    read_study,
    read_values,
    spec_fields,
    spec_values,
)
from sweeps.studies.schema import Study, study_schema


def error_of(text: str | bytes, *overrides: str) -> SpecError:
    """The error of reading and planning a study file."""
    path = Path("study.yaml")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        make_plan(read_study(path, overrides))
    return caught.value


def study_of(text: str, *overrides: str) -> Study:
    path = Path("study.yaml")
    path.write_text("name: x\n" + text)
    return read_study(path, overrides)


UNKNOWN = [
    # text, field, got, one of those that are known
    ("bogus: 1", "bogus", 1, "axes"),
    ("base: {bogus: 1}", "base.bogus", 1, "rewind"),
    ("base: {data: {bogus: 1}}", "base.data.bogus", 1, "fraction"),
    ("base: {model: {bogus: 1}}", "base.model.bogus", 1, "widths"),
    ("base: {train: {bogus: 1}}", "base.train.bogus", 1, "momentum"),
    ("base: {prune: {bogus: 1}}", "base.prune.bogus", 1, "scope"),
    ("search: {bogus: 1}", "search.bogus", 1, "objective"),
    ("resources: {ram: 1}", "resources.ram", 1, "gpu"),
    ("stop: {when: 1}", "stop.when", 1, "below_matching_for"),
    ("verdict: {tolerance: 1}", "verdict.tolerance", 1, "margin"),
    ("tracking: {url: x}", "tracking.url", "x", "uri"),
    ("axes: {seed: {low: 0, high: 3, by: 1}}", "axes.seed.by", 1, "step"),
    ("axes: {prune.rate: [0.1]}", "axes.prune.rate", "prune.rate", "prune.fraction"),
    ("axes: {pace: [{x: 1}]}", "axes.pace", "x", "seed"),
    ("search: {algorithm: random, space: {x: [1]}}", "search.space.x", "x", "seed"),
    ("search: {algorithm: random}", "search.space", {}, "seed"),
    ("base: {model: {name: vgg}}", "base.model.name", "vgg", "conv-2"),
    ("base: {data: {name: imagenet}}", "base.data.name", "imagenet", "cifar10"),
    ("axes: {data.name: [digits, imagenet]}", "axes.data.name", "imagenet", "cifar10"),
    ("base: {branches: [ticket, x]}", "base.branches", "x", "reinit"),
    ("base: {prune: {score: luck}}", "base.prune.score", "luck", "magnitude"),
    ("base: {prune: {ignore: [fc9]}}", "base.prune.ignore", "fc9", "output"),
    ("base: {prune: {include: [words]}}", "base.prune.include", "words", "output"),
    ("search: {objective: x}", "search.objective", "x", "density"),
]


@pytest.mark.parametrize(("text", "field", "got", "known"), UNKNOWN)
def test_unknown_name_is_refused_with_the_known_names(
    text: str, field: str, got: Any, known: str
) -> None:
    error = error_of("name: x\n" + text)
    assert (error.field, error.got) == (field, got)
    assert known in error.known
    assert str(error).startswith(f"{field}: ")
    assert f"but got {got!r}; known: " in str(error)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("base: {sed: 1}", "`seed`"),
        ("base: {lr: 0.1}", "`train.lr` or `prune.lr`"),
        ("base: {train: {btch_size: 60}}", "`batch_size`"),
        ("axes: {fraction: [0.1]}", "`data.fraction` or `prune.fraction`"),
        ("base: {model: {name: lenet5}}", "`lenet-5`"),
        ("base: {branches: [ticket, renit]}", "`reinit`"),
        ("base: {branches: [tickt]}", "`ticket`"),
        ("search: {objective: final_test_acuracy}", "`final_test_accuracy`"),
        ("bse: {}", "`base`"),
        ("base: {xyz: 1}", ""),
    ],
)
def test_misspelled_name_is_answered_with_the_nearest_known_one(text: str, meant: str) -> None:
    error = error_of("name: x\n" + text)
    assert error.meant == meant
    assert str(error).endswith(f"; did you mean {meant}?") == bool(meant)


WRONG = [
    # text, field, rule, got
    ("search: {algorithm: x}", "search.algorithm", "must be 'grid', 'random' or 'optuna'", "x"),
    ("search: x", "search.algorithm", "must be 'grid', 'random' or 'optuna'", "x"),
    ("search: {objective: 3}", "search.objective", "must name one record field, or two", 3),
    ("search: {objective: []}", "search.objective", "must name one record field, or two", []),
    ("search: {objective: {flops: up}}", "search.objective.flops", "must be 'max' or 'min'", "up"),
    ("search: {trials: 0}", "search.trials", "must be greater than or equal to 1", 0),
    ("base: {train: {optimizer: x}}", "base.train.optimizer", "must be 'sgd', 'adam' or 'adamw'", "x"),
    # another type
    ("base: {levels: many}", "base.levels", "must be a valid integer", "many"),
    ("base: {levels: 1.5}", "base.levels", "must be a valid integer", 1.5),
    ("base: {model: {widths: 16}}", "base.model.widths", "must be a valid tuple", 16),
    ("base: {prune: 3}", "base.prune", "must be a dictionary", 3),
    ("base:", "base", "must be a dictionary", None),
    ("base: {1: 2}", "base.1", "keys should be strings", 1),
    ("axes:", "axes", "must be a valid dictionary", None),
    ("axes: {seed: 3}", "axes.seed", "must be a valid list", 3),
    ("axes: {1: [2]}", "axes.1", "must be a valid string", 1),
    ("store: 3", "store", "must be a valid string", 3),
    # out of range
    ("base: {prune: {fraction: 1}}", "base.prune.fraction", "must be a fraction in [0, 1)", 1),
    ("axes: {prune.fraction: [0.2, -1]}", "axes.prune.fraction", "must be a fraction", -1),
    ("axes: {pace: [{prune.fraction: 2}]}", "axes.prune.fraction", "must be a fraction", 2),
    ("base: {prune: {layer_fractions: {fc1: 2}}}", "base.prune.layer_fractions.fc1",
     "must be a fraction", 2),
    ("base: {data: {fraction: 0}}", "base.data.fraction", "must be in (0, 1]", 0),
    ("base: {train: {steps: -5}}", "base.train.steps", "must be steps such as", "-5it"),
    ("base: {train: {steps: -5it}}", "base.train.steps", "must be steps such as", "-5it"),
    ("base: {train: {steps: 0it}}", "base.train.steps", "must be more than 0", "0it"),
    ("base: {train: {steps: 5 km}}", "base.train.steps", "must be steps such as", "5 km"),
    ("base: {train: {warmup: soon}}", "base.train.warmup", "must be steps such as", "soon"),
    ("base: {rewind: 601it}", "base.rewind", "must not lie past the end of training, step 600",
     "601it"),
    ("axes: {rewind: [0it, 601it]}", "axes.rewind", "must not lie past the end", "601it"),
    ("base: {levels: -1}", "base.levels", "must be at least 0", -1),
    ("base: {seed: -1}", "base.seed", "must be at least 0", -1),
    ("resources: {cpu: 0}", "resources.cpu", "must be greater than 0", 0),
    ("stop: {below_matching_for: 0}", "stop.below_matching_for", "must be greater than", 0),
    ("verdict: {margin: 0}", "verdict.margin", "must be greater than 0", 0),
    ("verdict: {margin: -0.01}", "verdict.margin", "must be greater than 0", -0.01),
    ("verdict: {margin: 1.01}", "verdict.margin", "must be less than or equal to 1", 1.01),
    ("verdict: {margin: .inf}", "verdict.margin", "must be less than or equal to 1", inf),
    ("verdict: {margin: 0 points}", "verdict.margin", "must be greater than 0", "0 points"),
    ("verdict: {margin: 101 points}", "verdict.margin", "must be less than or equal to 1",
     "101 points"),
    ("verdict: {margin: half a point}", "verdict.margin", "must be a valid number", "half a point"),
    ("verdict: {margin: 0.5%}", "verdict.margin", "must be a valid number", "0.5%"),
    ("verdict: {margin: -1 points}", "verdict.margin", "must be a valid number", "-1 points"),
    ("verdict: {margin: null}", "verdict.margin", "must be a valid number", None),
    ("verdict: {confidence: 0.5}", "verdict.confidence", "must be greater than 0.5", 0.5),
    ("verdict: {confidence: 1}", "verdict.confidence", "must be less than 1", 1),
    ("verdict: {for_all: bonferroni}", "verdict.for_all", "must be 'holm' or 'none'", "bonferroni"),
    ("verdict: 0.01", "verdict", "must be a valid dictionary", 0.01),
    ("tolerance: -1", "verdict.margin", "must be greater than 0", -1),
    ("tolerance: 1.5", "verdict.margin", "must be less than or equal to 1", 1.5),
    # too few seeds for the verdict that is asked for
    ("verdict: {}", "axes.seed", "must have at least 3 values for a verdict", [0]),
    ("verdict: {margin: 0.01}\nbase: {seed: 7}", "axes.seed", "must have at least 3 values", [7]),
    ("verdict: {margin: 0.01}\naxes: {seed: [4, 2, 4]}", "axes.seed",
     "must have at least 3 values", [2, 4]),
    # what makes no values
    ("axes: {seed: []}", "axes.seed", "must have at least one value", []),
    ("axes: {seed: {low: 0, high: 3, step: 0}}", "axes.seed.step", "must be greater than 0", 0),
    ("axes: {seed: {low: 3, high: 0, step: 1}}", "axes.seed.high", "must not be below low, 3", 0),
    ("axes: {seed: {low: 0, high: .inf, step: 1}}", "axes.seed.high", "must be a finite", inf),
    ("axes: {seed: {low: 0, high: 1.0e+9, step: 1}}", "axes.seed.step",
     "must give at most 100000 values", 1),
    ("axes: {seed: {low: 0, high: 4, count: 3, step: 1}}", "axes.seed.step",
     "must not be given beside count", 1),
    ("axes: {train.lr: {low: 0.1, high: 1, step: 0.2, log: true}}", "axes.train.lr.step",
     "must not be given beside log", 0.2),
    ("axes: {train.lr: {low: 0, high: 1, count: 3, log: true}}", "axes.train.lr.low",
     "must be above 0 on a logarithmic scale", 0),
    ("search: {algorithm: random, space: {train.lr: {low: 0, high: 1, log: true}}}",
     "search.space.train.lr.low", "must be above 0 on a logarithmic scale", 0),
    ("search: {algorithm: optuna, space: {seed: []}}", "search.space.seed", "must have a value", []),
    # nested where dots are needed, and the reverse
    ("axes: {train: {lr: [0.1, 0.2]}}", "axes.train",
     "must be written with dots: `train.lr: [0.1, 0.2]`", {"lr": [0.1, 0.2]}),
    ("axes: {train: {lr: {low: 0.1, high: 1}, steps: 9it}}", "axes.train",
     'must be written with dots: `train.lr: {"low": 0.1, "high": 1}`, `train.steps: ["9it"]`',
     {"lr": {"low": 0.1, "high": 1}, "steps": "9it"}),
    ("axes: {prune: {layer_fractions: {fc1: [0.1]}}}", "axes.prune",
     "must be written with dots: `prune.layer_fractions.fc1: [0.1]`", {"layer_fractions": {"fc1": [0.1]}}),
    ("search: {algorithm: random, space: {train: {lr: [0.1]}}}", "search.space.train",
     "must be written with dots: `train.lr: [0.1]`", {"lr": [0.1]}),
    (f"axes: {{train: {{lr: {[0.125] * 20}, 2001-01-01: 1}}}}", "axes.train",
     "must be written with dots: `train.lr: ...`, `train.2001-01-01: [1]`",
     {"lr": [0.125] * 20, date(2001, 1, 1): 1}),
    ("axes: {train: {}}", "axes.train.low", "must be given", None),
    ("base: {train.lr: 0.1}", "base.train.lr", "must be written without a dot: `train: {lr: 0.1}`", 0.1),
    # what no file needs, and a number or a name can break
    ("axes: {seed: {low: -1e308, high: 1e308, count: 3}}", "axes.seed.high",
     "must be at a finite distance from low, -1e+308", 1e308),
    ("axes: {train.lr: {low: 1e-308, high: 1e308, count: 3, log: true}}", "axes.train.lr.high",
     "must be at a finite distance from low", 1e308),
    ("axes: {seed: {low: 0, high: 1, step: .inf}}", "axes.seed.step", "must be a finite", inf),
    ("axes: {train.lr: [.inf]}", "axes.train.lr.0", "must be text, finite numbers", inf),
    ("axes: {seed: [0, {1: 2, a: 3}]}", "axes.seed.1", "must be text, finite", {1: 2, "a": 3}),
    ("axes: {x: [{1: 2}]}", "axes.x", "is not a field of the spec", 1),
    (f"axes: {{seed: {list(range(1001))}, levels: {list(range(1000))}}}", "axes",
     "must have at most 1,000,000 combinations", 1_001_000),
    ("resources: {cpu: .inf}", "resources.cpu", "must be a finite number", inf),
    ("checkpoint_minutes: .inf", "checkpoint_minutes", "must be a finite number", inf),
    (f"base: {{train: {{steps: {'9' * 400}ep}}}}", "base.train.steps",
     "must be at most 1,000,000,000,000 steps or epochs", f"{'9' * 400}ep"),
    ("base: {train: {warmup: 100000000000ep}}", "base.train.warmup", "must be at most",
     "2100000000000it"),
    ("base: {prune: {when: during, end: 100000000000ep}}", "base.prune.end", "must be at most",
     "2100000000000it"),
    (f"base: {{model: {{widths: [{10**30}]}}}}", "base.model.widths",
     "must be at most 1,000,000 each", (10**30,)),
    ("base: {levels: 100000000}", "base.levels", "must be at most 1,000", 100_000_000),
    ("base: {data: {root: ~nobody-here/x}}", "base.data.root", "must begin in an existing home",
     "~nobody-here/x"),
    ("base: {data: {name: 'sys:exit'}}", "base.data.name", "fails when it is called (System",
     "sys:exit"),
    ("base: {data: {name: '..:x'}}", "base.data.name", "must be package.module:factory", "..:x"),
    ("base: {model: {name: 'os:system'}}", "base.model.name", "fails when it is called (Type",
     "os:system"),
    ("base: {model: {name: 'builtins:print'}}", "base.model.name",
     "must return a torch.nn.Module, not NoneType", "builtins:print"),
    ("base: {prune: {score: '..:x'}}", "base.prune.score", "must be package.module:factory", "..:x"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "field", "rule", "got"), WRONG)
def test_wrong_value_is_refused_with_path_rule_and_value(
    text: str, field: str, rule: str, got: Any
) -> None:
    error = error_of("name: x\n" + text)
    assert (error.field, error.got) == (field, got)
    assert error.rule.startswith(rule)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/b",
        "..",
        ".hidden",
        "-x",
        "a b",
        "x\n",
        "a" * 101,
        "é",
        "",
        "x;ls",
        "a'b",
    ],
)
def test_study_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    error = error_of(yaml.safe_dump({"name": name}))
    assert (error.field, error.got) == ("name", name)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "must be a mapping"),
        ("- name: x", "must be a mapping"),
        ("3", "must be a mapping"),
        ("{", "must be YAML"),
        ("name: a: b", "must be YAML"),
        ("name: x\n? [a]\n: b", "must be YAML"),
        ("name: 2020-13-45", "must be YAML"),
        ("name: !!int many", "must be YAML"),
        ("name: " + "1" * 5000, "must be YAML"),
        ("name: !unknown x", "must be YAML"),
        ("[" * 2_000, "must nest at most 16"),
        ("{a: " * 2_000, "must nest at most 16"),
        (b"name: \xff", "must be a readable study file"),
        (b"name: \x00", "must be YAML"),
    ],
)
def test_file_that_is_no_yaml_mapping_is_named(content: str | bytes, rule: str) -> None:
    error = error_of(content)
    assert error.field == "study.yaml"
    assert error.rule.startswith(rule)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [touch pwned]",
        "!!python/object/new:os.system [touch pwned]",
        "!!python/name:os.system",
        "!!python/module:os",
    ],
)
def test_python_tags_are_never_executed(tag: str, here: Path) -> None:
    assert error_of(f"name: {tag}").rule == "must be YAML"
    assert error_of("name: x", f"seed={tag}").rule == "must have a YAML value"
    assert not (here / "pwned").exists()


def test_missing_name_must_be_given() -> None:
    assert str(error_of("base: {}")) == "name: must be given, but got None"


# Overrides


def test_scalar_override_replaces_an_axis() -> None:
    study = study_of("axes: {seed: [0, 1, 2], rewind: [0it, 5it]}", "seed=7")
    assert study.base.seed == 7
    assert study.axes == {"rewind": ["0it", "5it"]}


def test_scalar_override_of_the_base_and_of_a_searched_field_replaces_it_too() -> None:
    study = study_of("axes: {seed: [0, 1]}", "base.seed=7")
    assert (study.axes, study.base.seed) == ({}, 7)
    space = "search: {algorithm: random, space: {train.lr: [0.1, 0.2], seed: [0, 1]}}"
    study = study_of(space, "train.lr=0.5")
    assert (list(study.search.space), study.base.train.lr) == (["seed"], 0.5)


def test_list_override_replaces_an_axis() -> None:
    study = study_of("axes: {seed: [0, 1, 2]}", "seed=[5, 6]")
    assert study.axes == {"seed": [5, 6]}
    assert study.base.seed == 0


def test_range_override_replaces_an_axis() -> None:
    study = study_of("axes: {seed: [0, 1]}", "seed={low: 3, high: 5, step: 1}")
    assert [trial.spec.seed for trial in make_plan(study).trials] == [3, 4, 5]


def test_scalar_override_of_a_bundled_field_counts() -> None:
    bundled = "axes: {pace: [{prune.fraction: 0.2, levels: 15}, {prune.fraction: 0.5, levels: 5}]}"
    trials = make_plan(study_of(bundled, "levels=1")).trials
    assert [(t.spec.prune.fraction, t.spec.levels) for t in trials] == [(0.2, 1), (0.5, 1)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("2e-4", 0.0002), (".5", 0.5), ("1_000", 1000), ("-3", -3), ("0xff", 255), (".inf", inf)],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: float) -> None:
    assert read_values("axis", text) == [value]


@pytest.mark.parametrize("text", ["2:4", "190:20:30", "500it", "5%"])
def test_what_is_no_number_stays_text(text: str) -> None:
    assert study_of(f"axes: {{prune.structure: [{text}]}}").axes == {"prune.structure": [text]}


def test_axis_is_added_by_override() -> None:
    study = study_of("", "axes.prune.fraction=[0.1, 0.4]", "axes.seed={low: 0, high: 2, step: 1}")
    assert list(study.axes) == ["prune.fraction", "seed"]
    assert len(make_plan(study).trials) == 6


def test_nested_and_study_level_fields_are_overridden() -> None:
    study = study_of(
        "base: {prune: {fraction: 0.2}}", "prune.fraction=0.5", "train.steps=2ep", "base.levels=3",
        "model.widths=[8, 4]", "name=other", "store=/elsewhere", "tracking.uri=null",
        "resources.cpu=0.5", "search.trials=4", "verdict.margin=1 point",
    )  # fmt: skip
    assert (study.base.prune.fraction, study.base.levels) == (0.5, 3)
    assert (study.base.train.steps, study.base.model.widths) == ("2ep", (8, 4))
    assert (study.name, study.store, study.tracking.uri) == ("other", "/elsewhere", None)
    assert (study.resources.cpu, study.search.trials, study.verdict.margin) == (0.5, 4, 0.01)


# What a verdict needs


def test_verdict_needs_half_a_point_and_95_percent_over_all_where_nothing_is_said() -> None:
    rule = study_of("").verdict.rule()
    assert rule == VerdictRule(margin=0.005, confidence=0.95, for_all="holm")


def test_fields_of_a_verdict_make_its_rule() -> None:
    said = "verdict: {margin: 0.02, confidence: 0.9, for_all: none}"
    assert study_of(said).verdict.rule() == VerdictRule(0.02, 0.9, "none")


@pytest.mark.parametrize(
    ("said", "margin"),
    [
        ("0.5 points", 0.005),
        ("0.005", 0.005),
        ("'0.005'", 0.005),
        ("1 point", 0.01),
        ("' 2points '", 0.02),
        ("100 points", 1),
        ("1", 1),
    ],
)
def test_margin_is_a_fraction_or_points(said: str, margin: float) -> None:
    assert study_of(f"verdict: {{margin: {said}}}").verdict.margin == margin


@pytest.mark.parametrize(
    ("said", "margin"),
    [("0.02", 0.02), ("1 point", 0.01), ("null", 0.005), ("0", 0.005), ("0.0", 0.005)],
)
def test_tolerance_of_an_older_study_is_its_margin(said: str, margin: float) -> None:
    """Null and 0, which had other meanings, give the default."""
    study = study_of(f"tolerance: {said}")
    assert study.verdict.rule() == VerdictRule(margin)
    assert study.digest() == study_of("").digest()


def test_older_studys_tolerance_counts_where_the_verdict_has_no_margin() -> None:
    rule = study_of("tolerance: 0.02", "verdict.confidence=0.9").verdict.rule()
    assert rule == VerdictRule(margin=0.02, confidence=0.9)
    assert study_of("tolerance: 0.02", "verdict.margin=0.01").verdict.margin == 0.01


def test_older_swept_study_keeps_its_margin(tiny: StudyOf) -> None:
    save_swept(tiny())
    file = Path("lth-studies/tiny/study.yaml")
    file.write_text(file.read_text() + "tolerance: 0.02\n")
    older = find_study("tiny", swept=True)
    assert older.verdict.margin == 0.02
    save_swept(older)
    assert find_study("tiny", swept=True) == older


def test_study_knows_the_command_that_goes_on_with_it(tiny: StudyOf, here: Path) -> None:
    assert tiny().command() == "lth sweep tiny"
    typed = find_study("digits", ["axes.seed=[0, 1]", "levels=1"])
    assert typed.command() == "lth sweep digits 'axes.seed=[0, 1]' levels=1"
    assert find_study("digits", swept=True).command() == "lth sweep digits"
    save_swept(typed.called(f"{typed.arguments} --serial"))
    again = find_study("digits", swept=True)
    assert again.command("rewind") == "lth rewind digits 'axes.seed=[0, 1]' levels=1 --serial"
    # `lth sweep digits` is the preset: a study of the last sweep is named by its file.
    file = Path("lth-studies/digits/study.yaml")
    changed = find_study("digits", ["levels=2"], swept=True)
    assert changed.command() == f"lth sweep {file} levels=2"
    assert find_study(str(file), ["levels=2"]) == changed
    file.write_text(file.read_text().partition("\n")[2])  # as an older version wrote it
    assert find_study("digits", swept=True).command() == f"lth sweep {file}"


def test_file_that_is_not_what_was_swept_is_said_to_differ(
    tiny_file: StudyFile, caplog: pytest.LogCaptureFixture
) -> None:
    file = tiny_file()
    save_swept(find_study(str(file)))
    assert find_study(str(file), swept=True) == find_study("tiny", swept=True)
    assert not caplog.messages
    save_swept(find_study(str(file), ["train.lr=0.1"]))
    assert find_study(str(file), swept=True).base.train.lr == 0.1
    assert caplog.messages == [
        f"{file} is not the study as last swept; that is: lth sweep {file} train.lr=0.1"
    ]
    assert find_study("tiny", swept=True) == find_study(str(file), ["train.lr=0.1"])
    assert len(caplog.messages) == 1, "the name means the last sweep"


def test_verdict_decides_nothing_of_what_is_trained() -> None:
    three = "axes: {seed: [0, 1, 2]}"
    loose, strict = study_of(f"{three}\nverdict: {{margin: 0.1}}"), study_of(three)
    assert loose.digest() == strict.digest()
    assert make_plan(loose).trials == make_plan(strict).trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "field", "rule"),
    [
        ("seed", "seed", "an override must read field=value"),
        ("=1", "=1", "an override must read field=value"),
        ("seed=[", "seed", "must have a YAML value"),
        ("seed=" + "[" * 2_000, "seed", "must nest at most 16 values in each other"),
        ("seed=[" + "1," * 20_000 + "]", "seed", "must have at most 20,000 values"),
        ("seed=2020-13-45", "seed", "must have a YAML value"),
        *(
            (f"seed={text}", "seed", "must have a YAML value")
            for text in ("!!bool maybe", '!!int ""', '!!float ""', "!!timestamp foo")
        ),
        ("seed=", "base.seed", "must be a valid integer"),
        ("bogus=1", "base.bogus", "is not a known field"),
        ("train.bogus=1", "base.train.bogus", "is not a known field"),
        ("prune.fraction.x=1", "prune.fraction.x", "cannot be set: fraction is no mapping"),
        ("prune.fraction=1.5", "base.prune.fraction", "must be a fraction"),
        ("axes.bogus=[1]", "axes.bogus", "is not a field of the spec"),
        ("axes=[1]", "axes", "must be a valid dictionary"),
        ("name=../x", "name", "must be letters"),
    ],
)
def test_malformed_override_is_named(override: str, field: str, rule: str) -> None:
    error = error_of("name: x\nbase: {prune: {fraction: 0.2}}", override)
    assert error.field == field
    assert error.rule.startswith(rule)


@pytest.mark.parametrize("text", ["axes:", "axes: []", "base:", "base: 3"])
def test_override_of_a_broken_study_shows_the_studys_own_error(text: str) -> None:
    assert error_of(f"name: x\n{text}", "seed=1").field == text.partition(":")[0]


# Values out and in


def test_spec_survives_the_way_through_plain_values() -> None:
    study = study_of("base: {data: {root: /d, download: true}, prune: {layer_fractions: {a: 0.1}}}")
    back = parse_spec(json.loads(json.dumps(spec_values(study.base))))
    assert back == study.base
    assert (back.data.root, back.data.download) == ("/d", True)


def test_every_dotted_field_can_be_an_axis() -> None:
    defaults = spec_values(TicketSpec())
    for field in spec_fields():
        value: Any = defaults
        for part in field.split("."):
            value = value[part]
        study = study_of(yaml.safe_dump({"axes": {field: [value]}}))
        assert len(make_plan(study).trials) == 1, field


@pytest.mark.parametrize(
    ("said", "directed"),
    [
        ("density", {"density": "min"}),
        ("[final_test_accuracy, flops]", {"final_test_accuracy": "max", "flops": "min"}),
        ("{train_seconds: max}", {"train_seconds": "max"}),
    ],
)
def test_objective_knows_which_way_is_better(said: str, directed: dict[str, str]) -> None:
    assert study_of(f"search: {{objective: {said}}}").search.objective == directed


def test_remembered_study_is_the_study(tiny: StudyOf) -> None:
    study = tiny(
        {
            "axes.pace": [
                {"prune.fraction": 0.2, "levels": 1},
                {"prune.fraction": 0.5, "levels": 2},
            ],
            "axes.train.lr": {"low": 0.001, "high": 0.1, "count": 3, "log": True},
            "search": {"algorithm": "random", "space": {"model.width": {"low": 0.5, "high": 2}}},
            "stop": {"below_matching_for": 2},
        }
    )
    save_swept(study)
    again = find_study("tiny", swept=True)
    assert again == study
    assert again.digest() == study.digest()
    assert make_plan(again).trials == make_plan(study).trials


def test_digest_tells_searches_apart_but_not_their_lengths_and_places(tiny: StudyOf) -> None:
    """A search that is given more trials goes on from its journal."""
    same = [
        {},
        {"store": "/s"},
        {"resources": {"cpu": 2}},
        {"base.data.root": "/d"},
        {"search.trials": 9},
    ]
    others = [{"name": "b"}, {"base.levels": 3}, {"axes.seed": [1]}, {"search.seed": 9}]
    assert len({tiny(changes).digest() for changes in same}) == 1
    assert len({tiny(changes).digest() for changes in [{}, *others]}) == 5


# JSON Schema


@pytest.fixture(scope="module")
def validator() -> Validator:
    schema = study_schema()
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.slow
@pytest.mark.parametrize("name", presets())
def test_schema_accepts_every_preset_and_rejects_a_typo_anywhere(
    name: str, validator: Validator
) -> None:
    fields = yaml.safe_load(presets()[name].read_text())
    base = fields["base"]
    validator.validate(fields)
    for part in (fields, base, *(value for value in base.values() if isinstance(value, dict))):
        part["learnign_rate"] = 1
        with pytest.raises(jsonschema.ValidationError, match="learnign_rate"):
            validator.validate(fields)
        del part["learnign_rate"]


@pytest.mark.parametrize(
    ("verdict", "fits"),
    [
        ({}, True),
        ({"margin": 0.005}, True),
        ({"margin": 1}, True),
        ({"margin": "0.5 points"}, True),
        ({"margin": 0.02, "confidence": 0.9, "for_all": "none"}, True),
        ({"margin": True}, False),
        ({"margin": None}, False),
        ({"margin": [0.005]}, False),
        ({"confidence": 0.5}, False),
        ({"confidence": 1}, False),
        ({"for_all": "bonferroni"}, False),
        ({"tolerance": 0.01}, False),
    ],
)
def test_schema_accepts_a_margin_as_a_fraction_or_as_points(
    verdict: dict[str, Any], fits: bool, validator: Validator
) -> None:
    assert validator.is_valid(tiny_fields({"verdict": verdict})) == fits


ROW = {"method": "snip", "density": 0.1, "accuracy": 92.26}


def with_reference(**row: object) -> dict[str, Any]:
    return tiny_fields({"reference": {"source": "them", "within": 1.0, "rows": [{**ROW, **row}]}})


def test_published_figures_decide_nothing_of_what_is_trained() -> None:
    with_one, without = parse_study(with_reference()), parse_study(tiny_fields())
    assert with_one.reference is not None
    assert with_one.reference.rows[0].branch == "ticket"
    assert with_one.digest() == without.digest()
    trials = [[trial.digest for trial in make_plan(study).trials] for study in (with_one, without)]
    assert trials[0] == trials[1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"density": 0}, r"reference\.rows\.0\.density: must be greater than 0"),
        ({"density": 10}, r"reference\.rows\.0\.density: must be less than or equal to 1"),
        ({"accuracy": 101}, r"reference\.rows\.0\.accuracy: must be less than"),
        (
            {"acuracy": 92},
            r"reference\.rows\.0\.acuracy: is not a known field.*known: method, density",
        ),
    ],
)
def test_published_figures_are_checked(row: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_study(with_reference(**row))


def test_published_figures_without_a_row_are_refused() -> None:
    with pytest.raises(SpecError, match=r"reference\.rows: "):
        parse_study(tiny_fields({"reference": {"source": "them", "within": 1, "rows": []}}))


def test_number_that_python_cannot_print_is_text() -> None:
    assert error_of(f"name: x\nbase: {{levels: 0x{'f' * 5000}}}").field == "base.levels"


def test_grids_keep_the_digest_that_they_had_before_searches_had_another_objective() -> None:
    grid = parse_study({"name": "a", "axes": {"seed": [0, 1]}})
    assert grid.search.objective == {"final_test_accuracy": "max"}
    assert grid.digest().startswith("7ccad8e2cf652b149afe936c7685e4d5")
    space = {"train.lr": [0.1, 0.2]}
    searched = parse_study({"name": "a", "search": {"algorithm": "optuna", "space": space}})
    assert searched.search.objective == {"final_validation_accuracy": "max"}


def test_swept_file_without_an_objective_has_that_of_its_version(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: a\nsearch: {algorithm: optuna, space: {train.lr: [0.1, 0.2]}}\n")
    assert read_study(file, swept=True).search.objective == {"final_test_accuracy": "max"}
    assert read_study(file).search.objective == {"final_validation_accuracy": "max"}
