"""`lth` as a user calls it: exit codes, one line of complaint, nothing half written. No Ray here."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import jsonschema
import pytest
import yaml
from tiny import Called, Lth, Record, StudyFile, search, tiny_fields

from lth_core import Trainer, load_ticket, masks
from lth_core.columns import record_schema
from lth_core.errors import LaunchError, StoreError
from lth_core.jobs.branches import BRANCHES
from lth_core.store import open_store
from sweeps.cli import console
from sweeps.run.launch import SweepOutcome
from sweeps.run.signals import InterruptedSweepError
from sweeps.studies.catalogue import CATALOGUE
from sweeps.studies.find import find_study, save_swept
from sweeps.studies.names import presets
from sweeps.studies.reader import parse_study, read_study
from sweeps.studies.schema import Study

PLAN = {
    "trials",
    "trainings_naive",
    "trainings_unique",
    "steps_naive",
    "steps_unique",
    "counts",
    "sharing",
    "networks",
    "evaluation_share",
    "time",
}

CPUS = len(os.sched_getaffinity(0))


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def complaint(called: Called) -> str:
    """The error of a refused command: one line on stderr, exit code 2."""
    assert called.code == 2, called
    assert called.err.startswith("lth: ")
    assert called.err.count("\n") == 1
    return called.err.removeprefix("lth: ").rstrip()


# What works


def test_plan_as_json_is_one_object_with_its_keys(lth: Lth, tiny_file: StudyFile) -> None:
    called = lth("plan", tiny_file(), "--json")
    assert called.code == 0
    (line,) = called.out.splitlines()
    assert json.loads(line) == {
        "trials": 2, "trainings_naive": 10, "trainings_unique": 10, "steps_naive": 400, "steps_unique": 400,
        "counts": "exactly",
        "sharing": {
            "dense": {"made": 2, "used": 2}, "ticket": {"made": 4, "used": 4},
            "reinit": {"made": 4, "used": 4}, "mask": {"made": 4, "used": 4},
        },
        "networks": [{"network": "mlp 16 on digits", "parameters": 1210, "prunable": 1184,
                      "others": {"biases and norms": 26}}],
        "evaluation_share": pytest.approx(0.1442, abs=1e-4),
        "time": {"left": False, "steps": 400, "seconds": None, "at_once": min(2, CPUS), "measured": False,
                 "range": [ANY, ANY], "unknown": {"mlp 16 on digits": 400}},
    }  # fmt: skip


def test_plan_says_what_sharing_saves(lth: Lth, tiny_file: StudyFile) -> None:
    said = lth("plan", tiny_file(), "axes.prune.fraction=[0.2,0.5]").out
    assert said == (
        "tiny: 4 trials, 18 trainings (20 without sharing), 720 steps (10.0% saved)\n"
        "shared: dense 2 for 4\n"
        "mlp 16 on digits: 1,184 of 1,210 parameters are prunable (not: biases and norms 26)\n"
        f"time: about 1 s, {min(4, CPUS)} at a time; never trained here: mlp 16 on digits\n"
    )


def test_plan_of_a_rewind_study_shows_one_dense_run_and_one_mask_a_seed(
    lth: Lth, tiny_file: StudyFile
) -> None:
    said = lth("plan", tiny_file(), "levels=1", "axes.rewind=[0it,10it,100%]").out
    assert said.splitlines()[1] == "shared: dense 2 for 6, reinit 2 for 6, mask 2 for 6"


def test_dry_run_prints_the_plan_and_leaves_nothing(
    lth: Lth, here: Path, tiny_file: StudyFile
) -> None:
    path = tiny_file()
    assert lth("sweep", path, "--dry-run").out == lth("plan", path).out
    assert left_in(here) == ["tiny.yaml"]


def _large(name: str) -> bool:
    """Whether a preset's networks take seconds to plan; tests of presets plan them too."""
    return name.endswith(("-vgg16", "-resnet56"))


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long if _large(n) else pytest.mark.slow) for n in presets()],
)
def test_preset_is_planned_by_its_name_without_its_data(name: str, lth: Lth) -> None:
    assert json.loads(lth("plan", name, "--json").out).keys() == PLAN


@pytest.mark.slow
def test_planning_and_reporting_load_neither_ray_nor_mlflow_nor_optuna(swept: Path) -> None:
    code = (
        "import json, sys; sys.argv = ['lth', *sys.argv[1:]]\n"
        "from sweeps.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "import sweeps.run.launch, sweeps.report\n"
        "print(json.dumps(sorted({'ray', 'mlflow', 'optuna'} & set(sys.modules))))"
    )
    command = [sys.executable, "-c", code, "plan", "tiny", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    plan, loaded = done.stdout.splitlines()
    assert json.loads(plan)["trials"] == 3
    assert json.loads(loaded) == []
    assert done.stderr == ""


def test_console_script_is_installed() -> None:
    assert os.access(Path(sys.executable).with_name("lth"), os.X_OK)


@pytest.mark.slow
def test_report_as_json_is_one_record_a_line(lth: Lth, swept: Path) -> None:
    called = lth("report", "tiny", "--json")
    rows = [json.loads(line) for line in called.out.splitlines()]
    assert (called.code, len(rows)) == (0, 3 * 5)
    assert {row["study"] for row in rows} == {"tiny"}
    assert [row["level"] for row in rows[:5]] == [0, 1, 1, 2, 2]
    words = {"winning", "matching", "undecided", "not matching"}
    assert {row["verdict"] for row in rows if row["branch"] == "ticket"} <= words
    assert {row["verdict"] for row in rows if row["branch"] != "ticket"} == {None}


@pytest.mark.slow
def test_report_says_how_far_masks_overlap(lth: Lth, swept: Path) -> None:
    rows = [json.loads(line) for line in lth("report", "tiny", "--json").out.splitlines()]
    found = {(row["seed"], row["level"]): row for row in rows if row["branch"] == "ticket"}
    store = swept / "lth-store"
    held = {}
    for at, row in found.items():
        file = store.parent / f"{row['ticket_digest'][:8]}.safetensors"
        lth("ticket", "export", row["ticket_digest"], "-o", file)
        held[at] = load_ticket(file).mask
    between = [masks.overlap(held[0, 2], held[seed, 2]) for seed in (1, 2)]
    assert found[0, 2]["overlap_seeds"] == pytest.approx(sum(between) / 2)
    assert 0 < found[0, 2]["overlap_seeds_chance"] < 0.5
    assert found[1, 2]["overlap_level"] == pytest.approx(masks.overlap(held[1, 1], held[1, 2]))
    assert found[1, 1]["overlap_level"] is None
    assert found[1, 1]["overlap_methods"] == {}


def test_report_of_masks_that_are_lost_compares_none(lth: Lth, torn: Path) -> None:
    for blob in (torn / "lth-store" / "trainings").glob("*/mask-*.safetensors"):
        blob.unlink()
    rows = [json.loads(line) for line in lth("report", "tiny", "--json").out.splitlines()]
    assert len(rows) == 3 * 5
    assert {row["overlap_seeds"] for row in rows if row["branch"] == "ticket"} == {None}


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
def test_report_is_written_where_asked_with_its_figures_beside_it(
    lth: Lth, swept: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "folder" / "page.html"
    called = lth("report", "tiny", "-o", target)
    assert called.code == 0, called
    assert f"report: {target}" in called.out.replace("\n", "")
    assert "</html>" in target.read_text()
    svg, pdf = (target.parent / "figures" / f"accuracy.{kind}" for kind in ("svg", "pdf"))
    assert svg.read_text().startswith("<svg")
    assert pdf.read_bytes().startswith(b"%PDF")


def test_study_is_found_by_file_by_name_and_with_overrides(lth: Lth, swept: Path) -> None:
    (swept / "tiny.yaml").write_text(
        yaml.safe_dump(tiny_fields({"axes.seed": [0, 1, 2], "store": str(swept / "lth-store")}))
    )
    by_name, by_file = lth("report", "tiny", "--json").out, lth("report", "tiny.yaml", "--json").out
    assert by_name == by_file
    one_seed = [
        json.loads(line) for line in lth("report", "tiny", "seed=1", "--json").out.splitlines()
    ]
    assert [row["seed"] for row in one_seed] == [1] * 5


def test_report_of_some_seeds_is_given_though_they_are_too_few_for_a_verdict(
    lth: Lth, swept: Path
) -> None:
    said = ["seed=1", "verdict.margin=1 point"]
    rows = [json.loads(line) for line in lth("report", "tiny", *said, "--json").out.splitlines()]
    assert [row["verdict"] for row in rows] == [
        "too few replicates" if row["branch"] == "ticket" else None for row in rows
    ]
    assert len(rows) == 5
    assert complaint(lth("plan", "tiny", *said)).startswith("axes.seed: must have at least 3")


def test_tickets_are_listed_once_each(lth: Lth, swept: Path) -> None:
    rows = [json.loads(line) for line in lth("ticket", "ls", "--json").out.splitlines()]
    assert len({row["ticket_digest"] for row in rows}) == len(rows) == 3 * 5
    assert rows[0]["ticket_digest"][:12] in lth("ticket", "ls").out


def record_of(swept: Path, lth: Lth, **wanted: object) -> Record:
    rows = map(json.loads, lth("report", "tiny", "--json").out.splitlines())
    return next(row for row in rows if wanted.items() <= row.items())


@pytest.mark.parametrize("branch", ["dense", "ticket", "reinit"])
def test_exported_ticket_is_the_one_in_the_record(
    branch: str, lth: Lth, swept: Path, tmp_path: Path
) -> None:
    level = 0 if branch == "dense" else 2
    record = record_of(swept, lth, level=level, branch=branch, seed=1)
    file = tmp_path / "ticket.safetensors"
    called = lth("ticket", "export", record["ticket_digest"][:10], "-o", file)
    assert (called.code, called.err) == (0, "")
    ticket = load_ticket(file)
    assert (ticket.digest, ticket.branch, ticket.level) == (record["ticket_digest"], branch, level)
    assert ticket.density == record["density"]
    assert sum(int(m.sum()) for m in ticket.mask.values()) == record["weights_kept"]
    assert sum(p.numel() for p in ticket.model().parameters()) == record["parameters"]
    shown = dict(line.split(maxsplit=1) for line in lth("ticket", "show", file).out.splitlines())
    assert shown["ticket_digest"] == record["ticket_digest"]
    assert shown["weights_kept"] == str(record["weights_kept"])
    assert json.loads(shown["shapes"]) == {"fc1.weight": [16, 64], "output.weight": [10, 16]}


def test_schema_is_written_and_is_the_one_printed(
    lth: Lth, here: Path, tiny_file: StudyFile
) -> None:
    assert lth("schema", "-o", "schema.json").code == 0
    schema = json.loads((here / "schema.json").read_text())
    assert schema == json.loads(lth("schema").out)
    jsonschema.validate(yaml.safe_load(tiny_file().read_text()), schema)


def test_schema_of_a_report_is_made_from_the_columns(lth: Lth) -> None:
    assert json.loads(lth("schema", "--report").out) == record_schema()


@pytest.mark.slow
def test_list_names_what_a_study_file_can_name(lth: Lth) -> None:
    said = lth("list").out
    for name in (
        *BRANCHES,
        "digits",
        "mnist",
        "cifar10",
        "conv-6",
        "resnet-20",
        "magnitude",
        "prune.fraction",
    ):
        assert name in said
    assert "random_mask" in lth("list", "branches").out
    assert "digits" not in lth("list", "models").out


def test_everything_listed_is_explained() -> None:
    for kind, entries in CATALOGUE.items():
        assert [name for name, about in entries().items() if not about] == [], kind
    # The end of its description, on its second line.
    assert CATALOGUE["branches"]()["reinit"].endswith("(Frankle & Carbin 2019, section 2).")


def test_studies_lists_the_presets_with_what_they_ask(
    lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.out, "width", 80)
    said = lth("studies").out
    assert all(name in said for name in presets())
    assert "Do winning tickets exist?" in said
    assert max(map(len, said.splitlines())) <= 80
    assert len(said.splitlines()) == len(presets())
    assert lth("studies", "digits").out.endswith("prune fraction x seed.\n")  # its last words


# Published figures


def swept_with_reference(swept: Path, **row: object) -> Path:
    """The tiny study as a file, with one published figure."""
    said = tiny_fields({"axes.seed": [0, 1, 2], "store": str(swept / "lth-store")})
    shown = {"method": "imp", "density": 0.5, "accuracy": 50.0, **row}
    reference = {"source": "theirs", "within": 49, "rows": [shown]}
    file = swept / "with-reference.yaml"
    file.write_text(yaml.safe_dump({**said, "reference": reference}))
    return file


def test_verify_says_of_every_row_how_it_compares(lth: Lth, swept: Path) -> None:
    file = swept_with_reference(swept)
    called = lth("verify", file)
    assert (called.code, called.err) == (0, "")
    assert "theirs; 49 points still agree" in called.out
    assert "agrees" in called.out
    assert lth("verify", file, "--quiet").out == "All agree.\n"
    (line,) = lth("verify", file, "--json").out.splitlines()
    said = json.loads(line)
    assert (said["outcome"], said["n"], said["method"]) == ("agrees", 3, "imp")
    assert said["swept_as"] is None


def test_verify_names_a_sweep_of_other_settings_than_the_file_has(lth: Lth, swept: Path) -> None:
    file = swept_with_reference(swept)
    file.write_text(file.read_text().replace("- 2\n", "- 2\n    - 3\n"))
    called = lth("verify", file, "--quiet")
    assert called.code == 0
    said = "All agree. Not the settings of the file; swept as: lth sweep "
    assert " ".join(called.out.split()).startswith(said)
    (line,) = lth("verify", file, "--json").out.splitlines()
    assert json.loads(line)["swept_as"].startswith("lth sweep ")


@pytest.mark.parametrize(
    ("row", "why"),
    [({"density": 0.01}, "imp at 1% not run: nearest is 25"), ({"method": "snip"}, "not swept"),
     ({"accuracy": 0.0}, "differs")],
)  # fmt: skip
def test_verify_exits_with_1_where_a_row_does_not_agree(
    row: dict[str, object], why: str, lth: Lth, swept: Path
) -> None:
    called = lth("verify", swept_with_reference(swept, **row))
    assert called.code == 1
    assert "1 of 1 do not agree" in called.out
    assert why in called.out.splitlines()[-1]


def test_verify_without_published_figures_has_nothing_to_compare(lth: Lth, swept: Path) -> None:
    said = "tiny: nothing published to compare; studies with figures: at-init-vgg16"
    called = lth("verify", "tiny")
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith(said)
    called = lth("verify", "tiny", "--json")
    assert (called.code, called.out) == (0, "")
    assert called.err.startswith(said)


def test_verify_refuses_a_study_that_was_not_swept(lth: Lth, here: Path, swept: Path) -> None:
    file = swept_with_reference(swept)
    assert "must have been swept" in complaint(lth("verify", file, "store=elsewhere"))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["plan", "nosuch"],
            r"STUDY: is neither a file, nor a preset, nor a study that was swept in this folder, but got 'nosuch'; known: at-init",
        ),
        (["sweep", "nosuch"], "STUDY: is neither a file"),
        (["report", "nosuch", "--json"], "STUDY: is neither a file"),
        (["plan", "../x"], "STUDY: is neither a file"),
        (["plan", "."], "STUDY: is neither a file"),
        (["plan", "a" * 300], "STUDY: is neither a file"),
        (["plan", "digits", "bogus=1"], "base.bogus: is not a known field, but got 1; known: data"),
        (["plan", "digit"], "but got 'digit'; known: at-init"),
        (["sweep", "digits", "prune.fraction=2"], "base.prune.fraction: must be a fraction"),
        (["sweep", "digits", "train.steps=-5it"], "base.train.steps: must be steps such as"),
        (["sweep", "digits", "rewind=601it"], "base.rewind: must not lie past the end"),
        (["sweep", "digits", "name=../x"], "name: must be letters"),
        (
            ["plan", "digits", "verdict.margin=0"],
            "verdict.margin: must be greater than 0, but got 0",
        ),
        (
            ["sweep", "digits", "verdict.margin=1.5"],
            "verdict.margin: must be less than or equal to 1",
        ),
        (
            ["sweep", "digits", "verdict.margin=half a point"],
            "verdict.margin: must be a valid number, unable to parse string as a number, but got "
            "'half a point'",
        ),
        (["sweep", "digits", "verdict.confidence=0.5"], "verdict.confidence: must be greater than"),
        (["rewind", "digits", "verdict.confidence=1"], "verdict.confidence: must be less than 1"),
        (
            ["sweep", "digits", "verdict.for_all=bonferroni"],
            "verdict.for_all: must be 'holm' or 'none', but got 'bonferroni'",
        ),
        (
            ["sweep", "digits", "seed=1", "verdict.margin=1 point"],
            "axes.seed: must have at least 3 values for a verdict, but got [1]",
        ),
        (["plan", "digits", "seed"], "seed: an override must read field=value"),
        (["report", "digits", "--json"], "STUDY: must have been swept into ./lth-store first"),
        (["list", "bogus"], "kind: is not known, but got 'bogus'; known: datasets"),
        (["schema", "-o", "nowhere/x.json"], "--output: cannot be written (No such file"),
        (["schema", "-o", "."], "--output: cannot be written (Is a directory), but got '.'"),
        (["report", "digits", "-o", "."], "--output: must name the HTML file, not a folder"),
        (
            ["plan", "digits", "search.space={train.lr: [0.1]}"],
            "search.algorithm: must be random or optuna, which sample search.space, but got 'grid'",
        ),
        (
            ["plan", "digits", "axes.train.lr=[0.1, 0.2]", "axes.both=[{train.lr: 1, seed: 0}]"],
            "axes.both: must not overwrite train.lr of axes.train.lr, but got 'train.lr'",
        ),
        (
            [
                "plan",
                "digits",
                "axes.train.lr=[0.1]",
                "search={algorithm: optuna, space: {train.lr: {low: 0.1, high: 1}}}",
            ],
            "axes.train.lr: must not overwrite train.lr of search.space, but got 'train.lr'",
        ),
        (
            [
                "plan",
                "digits",
                "stop.below_matching_for=1",
                "search={algorithm: optuna, space: {train.lr: {low: 0.1, high: 1}}}",
            ],
            "stop.below_matching_for: must be null with optuna",
        ),
        (
            ["plan", "digits", "train.lr=yes"],
            "base.train.lr: must not be yes or no (true, false, on, off), but got True",
        ),
        (
            ["plan", "digits", "rewind=[1it, 2it]"],
            "base.rewind: must be a valid integer; several values are an axis, `axes.rewind`",
        ),
        (["ticket", "export", "abc", "-o", "x"], "DIGEST: must have at least 6 characters"),
        (
            ["ticket", "export", "abcdef", "-o", "x"],
            "--store: must be a store: there is neither lth-store.json nor an entry of",
        ),
        (
            ["ticket", "ls"],
            "--store: must be a store: there is neither lth-store.json nor an entry of",
        ),
        (["ticket", "show", "nowhere"], "nowhere: is not a whole safetensors file"),
        (["ui", "digits"], "mlflow.db does not exist; sweep a study here first"),
        (["ui"], "mlflow.db does not exist; sweep a study here first"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(
    arguments: list[str], said: str, lth: Lth, here: Path
) -> None:
    assert said in complaint(lth(*arguments))
    assert left_in(here) == []


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["sweep"], ["plan", "digits", "--nosuch"], ["ticket", "export", "abcdef"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], lth: Lth) -> None:
    called = lth(*arguments)
    assert called.code == 2
    assert "Usage: lth" in called.err
    assert "Traceback" not in called.err


def test_absent_mnist_is_refused_at_once_with_the_folder_and_the_flag(
    lth: Lth, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("ray", "mlflow", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, slow, None)  # importing it is an error
    said = complaint(lth("sweep", "lenet-mnist", "data.root=data"))
    assert said.startswith("data.root: mnist must lie in ")
    assert str(here / "data") in said
    assert "--download" in said
    assert left_in(here) == []


def test_absent_image_folder_is_refused_with_its_path(lth: Lth, here: Path) -> None:
    said = complaint(lth("sweep", "digits", "data.name=folder:pictures"))
    assert str(here / "pictures" / "train") in said
    assert left_in(here) == []


@pytest.mark.parametrize("store", ["file", "file/below"])
def test_store_that_cannot_be_written_is_named(
    store: str, lth: Lth, here: Path, tiny_file: StudyFile
) -> None:
    (here / "file").write_text("in the way")
    said = complaint(lth("sweep", tiny_file(), f"store={store}"))
    assert said.startswith(f"store: {here / store} cannot be made")
    assert left_in(here) == ["file", "tiny.yaml"]


def test_study_folder_that_cannot_be_written_is_named(
    lth: Lth, here: Path, tiny_file: StudyFile
) -> None:
    (here / "lth-studies").write_text("in the way")
    assert f"{here}/lth-studies" in complaint(lth("sweep", tiny_file(), "--serial"))


def test_store_of_an_unknown_kind_is_refused_before_anything_runs(
    lth: Lth, here: Path, tiny_file: StudyFile
) -> None:
    assert "store: must be a folder or in S3, but got 'gs://b/p'" in complaint(
        lth("sweep", tiny_file(), "store=gs://b/p")
    )
    assert left_in(here) == ["tiny.yaml"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999"])
def test_absent_cluster_is_an_error_within_seconds(
    address: str, lth: Lth, tiny_file: StudyFile
) -> None:
    said = complaint(lth("sweep", tiny_file(), "--address", address))
    assert said.startswith(f"--address: no Ray cluster answers at {address}: ")


def never(*arguments: object) -> None:
    raise AssertionError("it was called")


def test_absent_cluster_is_an_error_before_mlflow_and_the_store_are_opened(
    lth: Lth, tiny_file: StudyFile, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.run.launch.make_context", never)
    monkeypatch.setattr("sweeps.run.launch.make_trainer", never)
    monkeypatch.setattr("sweeps.run.bisect.make_context", never)
    monkeypatch.setattr("sweeps.run.bisect.sweep_trainer", never)
    for command in ("sweep", "rewind"):
        complaint(lth(command, tiny_file({"axes.seed": [0, 1, 2]}), "--address", "127.0.0.1:1"))
    assert left_in(here) == ["tiny.yaml"]


def test_sweep_that_a_cluster_refused_is_not_remembered(
    lth: Lth, tiny_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: object) -> None:
        raise LaunchError("resources.gpu: no node has as many")

    file = tiny_file()
    save_swept(read_study(file))
    monkeypatch.setattr("sweeps.run.backend.joined", refuses)
    assert "no node has as many" in complaint(lth("sweep", file, "store=./other"))
    assert find_study("tiny", swept=True).store == "./lth-store"


@pytest.mark.parametrize(("command", "launches"), [
    ("sweep", "sweeps.run.launch.launch"), ("rewind", "sweeps.run.bisect.find_rewinds"),
])  # fmt: skip
@pytest.mark.parametrize(("told", "code"), [
    (KeyboardInterrupt(), 130), (InterruptedSweepError(signal.SIGINT), 130),
    (InterruptedSweepError(signal.SIGTERM), 143),
])  # fmt: skip
def test_stopped_command_prints_the_command_that_resumes_it(
    command: str, launches: str, told: KeyboardInterrupt, code: int, lth: Lth,
    tiny_file: StudyFile, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stopped(*arguments: object) -> None:
        raise told

    monkeypatch.setattr(launches, stopped)
    called = lth(command, tiny_file())
    assert called.code == code
    last = called.out.splitlines()[-1]
    assert (last.partition(" `")[0], last.rpartition(".yaml")[2]) == ("stopped;", "` resumes it")
    assert f"`lth {command} " in last


@pytest.mark.parametrize("address", ["", "local"])
def test_address_that_is_none_sweeps_nowhere(address: str, lth: Lth, tiny_file: StudyFile) -> None:
    said = complaint(lth("sweep", tiny_file(), "--address", address))
    assert said.startswith("--address: must be HOST:PORT of a cluster's head, or auto")


def test_sweep_of_which_every_trial_failed_says_why_and_exits_with_1(
    lth: Lth, tiny_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch that fails throughout; real failures are in test_launch.py."""
    ended = SweepOutcome(
        failures=[("abc123", "the loss [/] is not finite")], notes=["a note [bold]"]
    )
    monkeypatch.setattr("sweeps.run.launch.launch", lambda *arguments: ended)
    called = lth("sweep", tiny_file())
    assert called.code == 1
    assert called.out.splitlines()[3:] == [
        "a note [bold]",
        "failed abc123: the loss [/] is not finite",
    ]
    assert called.err == ""


def test_tracking_address_of_another_kind_is_refused(lth: Lth, tiny_file: StudyFile) -> None:
    said = complaint(lth("sweep", tiny_file(), "tracking.uri=mysql://h/d"))
    assert said == "tracking.uri: must be sqlite:///FILE, http://... or null, but got 'mysql://h/d'"


def test_untracked_study_has_nothing_to_sync_or_show(lth: Lth, swept: Path) -> None:
    assert "tracking.uri: is null" in complaint(lth("sync", "tiny"))
    called = lth("ui", "tiny")
    assert called.code == 2
    assert "tracking.uri: is null, so nothing was tracked" in called.err


@pytest.mark.slow
@pytest.mark.parametrize("left", [0.0, 0.1, 0.5, 0.99])
def test_ticket_file_cut_short_is_refused(
    left: float, lth: Lth, swept: Path, tmp_path: Path
) -> None:
    record, file = record_of(swept, lth, level=1, branch="ticket"), tmp_path / "t.safetensors"
    lth("ticket", "export", record["ticket_digest"], "-o", file)
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content))])
    assert f"{file}: is not a whole safetensors file" in complaint(lth("ticket", "show", file))


def test_digest_that_no_ticket_has_is_refused(lth: Lth, swept: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.safetensors"
    said = complaint(lth("ticket", "export", "0123456789ab", "-o", target))
    assert said.startswith("DIGEST: must be the digest of one ticket in ./lth-store")
    assert not target.exists()


@pytest.mark.parametrize("where", ["missing/t.safetensors", "file/t.safetensors"])
def test_ticket_without_a_folder_to_lie_in_leaves_nothing(
    where: str, lth: Lth, swept: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    digest = record_of(swept, lth, level=1, branch="ticket")["ticket_digest"]
    before = left_in(tmp_path)
    said = complaint(lth("ticket", "export", digest, "-o", tmp_path / where))
    assert said.startswith("--output: must lie in a folder that exists, but got ")
    assert left_in(tmp_path) == before


def test_report_that_cannot_be_written_is_an_error(lth: Lth, swept: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in complaint(
        lth("report", "tiny", "-o", tmp_path / "file" / "r.html")
    )


# A store that has lost something


@pytest.fixture
def torn(swept_once: Path, here: Path) -> Path:
    """A copy of the swept folder to break."""
    shutil.copytree(swept_once / "lth-store", here / "lth-store")
    shutil.copytree(swept_once / "lth-studies", here / "lth-studies")
    kept = here / "lth-studies" / "tiny" / "study.yaml"
    kept.write_text(kept.read_text().replace(str(swept_once), str(here)))
    return here


def test_torn_record_counts_as_missing_in_the_report(lth: Lth, torn: Path) -> None:
    (victim, *_) = sorted((torn / "lth-store" / "trials").iterdir())
    (victim / "entry.json").write_bytes((victim / "entry.json").read_bytes()[:50])
    assert len(lth("report", "tiny", "--json").out.splitlines()) == 2 * 5


def test_ticket_whose_parent_is_lost_is_an_error_and_not_trained(
    lth: Lth, torn: Path, tmp_path: Path
) -> None:
    digest = record_of(torn, lth, level=2, branch="ticket")["ticket_digest"]
    shutil.rmtree(torn / "lth-store" / "trainings")
    target = tmp_path / "t.safetensors"
    assert "the store has lost training" in complaint(lth("ticket", "export", digest, "-o", target))
    assert not target.exists()
    assert not (torn / "lth-store" / "trainings").exists()


# No space left


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 64 KiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    try:
        (folder / "ballast").write_bytes(b"x" * 65536)
    except OSError:
        pytest.fail("the ballast should just fit")


@pytest.mark.slow
def test_full_disk_leaves_no_ticket_and_no_schema(lth: Lth, swept: Path, full: Path) -> None:
    fill(full)
    digest = record_of(swept, lth, level=1, branch="ticket")["ticket_digest"]
    assert "No space left" in complaint(
        lth("ticket", "export", digest, "-o", full / "t.safetensors")
    )
    assert "No space left" in complaint(lth("schema", "-o", full / "schema.json"))
    assert "No space left" in complaint(lth("report", "tiny", "-o", full / "report.html"))
    assert [name for name in left_in(full) if "." in name] == []


def rows_of(study: Study) -> list[Record]:
    return [row for _, rows in search(study, Trainer(open_store(study.store))) for row in rows]


@pytest.mark.slow
def test_full_disk_ends_a_trial_with_whole_entries_that_the_next_run_reuses(full: Path) -> None:
    study: Study = parse_study(
        tiny_fields(
            {"axes.seed": [0], "base.levels": 4, "base.model.widths": [64], "store": str(full)}
        )
    )
    with pytest.raises(
        StoreError, match=r"cannot write .* \(No space left on device; \d+ bytes are"
    ):
        rows_of(study)
    done = open_store(study.store).digests("trainings")
    whole = [digest for digest in done if open_store(study.store).has("trainings", digest)]
    assert whole
    assert not [path for path in left_in(full) if path.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=8m", str(full)], check=True)
    again = rows_of(study)
    assert sum(row["reused"] for row in again) == len(whole)
    assert again[-1]["level"] == 4
