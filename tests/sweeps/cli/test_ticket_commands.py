"""`lth ticket ls`, `show`, `diff`, `verify`: tickets by condition, compared, and made again."""

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import Called, Lth, Record, StudyFile, StudyOf, search

from lth_core import load_ticket
from lth_core.analysis.verdict import verdicts
from lth_core.store import open_store
from lth_core.train import Trainer
from sweeps.store.records import with_verdicts
from sweeps.store.ticket_compare import layer_differences
from sweeps.studies.find import save_swept


def rows(called: Called) -> list[Record]:
    assert called.code == 0, called
    return [json.loads(line) for line in called.out.splitlines()]


def digest(lth: Lth, seed: int = 0) -> str:
    """The digest of a ticket of level 2."""
    found = rows(lth("ticket", "ls", "--branch", "ticket", "--level", 2, "--json"))
    (row,) = (row for row in found if row["seed"] == seed)
    return str(row["ticket_digest"])


@pytest.mark.slow
def test_tickets_are_listed_by_condition_in_the_order_of_a_column(lth: Lth, swept: Path) -> None:
    every = rows(lth("ticket", "ls", "--json"))
    assert len(every) == 15
    assert {row["verdict"] for row in every if row["branch"] != "ticket"} == {None}
    words = {(row["level"], row["verdict"]) for row in every if row["branch"] == "ticket"}
    assert len(words) == 2, "one verdict a level"
    chosen = ["--study", "tiny", "--branch", "ticket", "--density", "0.2..0.3"]
    found = rows(lth("ticket", "ls", *chosen, "--sort", "-seed", "--json"))
    assert [(row["seed"], row["level"]) for row in found] == [(2, 2), (1, 2), (0, 2)]
    verdict = found[0]["verdict"]
    judged = rows(lth("ticket", "ls", "--verdict", verdict, "--json"))
    assert judged == [row for row in every if row["verdict"] == verdict]
    title, *lines = lth("ticket", "ls", *chosen).out.splitlines()
    assert title.split() == [
        "ticket",
        "study",
        "seed",
        "branch",
        "level",
        "density",
        "test",
        "verdict",
    ]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--study", "tny"], "--study: must be that of a ticket, but got 'tny'; known: tiny; did you mean `tiny`?"),
        (["--level", "7"], "--level: must be that of a ticket, but got 7; known: 0, 1, 2"),
        (["--density", "0.5"], "--density: must be LOW..HIGH, in [0, 1], but got '0.5'"),
        (["--density", "0.5..0.1"], "--density: must be LOW..HIGH"),
        (["--sort", "densty"], "--sort: is not a column of the tickets, but got 'densty'; known: study"),
        (["--sort", "layer_density"], "--sort: must be a column of single values"),
    ],
)  # fmt: skip
def test_condition_that_no_ticket_can_meet_is_refused(
    options: list[str], complaint: str, lth: Lth, swept: Path
) -> None:
    called = lth("ticket", "ls", *options)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"lth: {complaint}")


@pytest.mark.slow
def test_tickets_are_shown_and_compared_layer_by_layer(
    lth: Lth, swept: Path, tmp_path: Path
) -> None:
    a, b, file = digest(lth), digest(lth, seed=1), tmp_path / "a.safetensors"
    assert lth("ticket", "export", a, "-o", file).code == 0
    shown = lth("ticket", "show", a[:10])
    assert a in shown.out
    assert shown == lth("ticket", "show", file)
    *layers, whole = rows(lth("ticket", "diff", file, b, "--json"))
    assert [row["layer"] for row in layers] == ["fc1", "output"]
    assert whole["weights"] == sum(row["weights"] for row in layers)
    assert whole["density_a"] == pytest.approx(0.25)
    assert 0 < whole["overlap"] < 0.5
    assert whole["overlap_chance"] == pytest.approx(1 / 7, abs=0.01)

    ticket = load_ticket(file)
    mask, start = ticket.mask["fc1.weight"].clone(), ticket.start["fc1.weight"].clone()
    first, second, *_ = mask.nonzero().tolist()
    mask[tuple(first)] = False
    start[tuple(second)] *= -1
    changed = replace(ticket, mask={**ticket.mask, "fc1.weight": mask},
                      start={**ticket.start, "fc1.weight": start})  # fmt: skip
    fc1, output, _ = layer_differences(ticket, changed)
    kept = int(ticket.mask["fc1.weight"].sum())
    assert (fc1.kept_a, fc1.kept_b, fc1.kept_both) == (kept, kept - 1, kept - 1)
    assert (fc1.overlap, fc1.same_signs) == ((kept - 1) / kept, kept - 2)
    assert (output.overlap, output.signs) == (1, 1)


@pytest.mark.slow
def test_ticket_made_again_is_the_same_bit_for_bit_or_the_difference_is_named(
    lth: Lth, swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = digest(lth)
    same = f"{name}: the same, bit for bit, after 2 trainings\n"
    assert lth("ticket", "verify", name[:12]) == Called(0, same, "")

    make = Trainer.ticket

    def one_bit_off(self: Trainer, *arguments: object) -> object:
        ticket = make(self, *arguments)  # type: ignore[arg-type]
        if not self.frozen:
            ticket.start["output.bias"].view(-1)[0] += 1e-7
        return ticket

    monkeypatch.setattr(Trainer, "ticket", one_bit_off)
    called = lth("ticket", "verify", name[:12])
    assert (called.code, called.out) == (1, f"{name}: differs in start of output.bias\n")


# Files of records


@pytest.mark.slow
def test_record_files_are_tables_with_the_columns_of_records(
    lth: Lth, swept: Path, tmp_path: Path
) -> None:
    from pyarrow import csv, parquet

    records = rows(lth("report", "tiny", "--json"))
    files = tmp_path / "records.csv", tmp_path / "records.parquet"
    called = lth("report", "tiny", "--csv", files[0], "--parquet", files[1])
    assert called == Called(0, "".join(f"{file}: 15 records\n" for file in files), "")
    table = parquet.read_table(files[1])
    types = {field.name: str(field.type) for field in table.schema}
    assert [types[name] for name in ("seed", "density", "reused", "branch")] == [
        "int64", "double", "bool", "string",
    ]  # fmt: skip
    for read in (table, csv.read_csv(files[0])):
        assert set(read.column_names) == {name for row in records for name in row}
        for row, record in zip(read.to_pylist(), records, strict=True):
            assert json.loads(row["layer_density"]) == record["layer_density"]
            plain = ("level", "density", "final_test_accuracy", "early_stop_step", "reused")
            assert {name: row[name] for name in plain} == {name: record[name] for name in plain}
    assert lth("report", "tiny", "-q", "--csv", files[0]) == Called(0, "", "")
    called = lth("report", "tiny", "--csv", "nowhere/records.csv")
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith("lth: --csv: cannot be written (No such file or directory)")


def test_axes_of_mixed_values_are_columns_of_texts() -> None:
    from sweeps.report.export import record_table

    records: list[Record] = [
        {"level": 0, "a": 1, "b": 1, "c": "x", "d": [1, "2"]},
        {"level": 1, "a": 2.5, "b": None, "c": None, "d": True},
        {"level": 1, "a": 2.5, "b": None, "c": None, "d": "5%"},
    ]
    table = record_table(records)
    assert [str(field.type) for field in table.schema] == [
        "int64", "double", "int64", "string", "string",
    ]  # fmt: skip
    assert table["d"].to_pylist() == ['[1,"2"]', "true", "5%"]
    assert table.to_pylist()[0] == {"level": 0, "a": 1.0, "b": 1, "c": "x", "d": '[1,"2"]'}


@pytest.mark.slow
def test_ticket_of_many_levels_is_shown_and_made_again(lth: Lth, tiny: StudyOf, here: Path) -> None:
    """A ticket's recipe holds those of all levels before it, which must not fill the stack."""
    study = tiny({
        "axes.seed": [0], "base.levels": 60, "base.prune.fraction": 0.02, "base.branches": ["ticket"],
        "base.train.steps": "1it", "base.train.evaluate_every": "1it", "base.data.fraction": 0.2,
    })  # fmt: skip
    ((_, records),) = search(study, Trainer(open_store(study.store)))
    save_swept(study)
    name = records[-1]["ticket_digest"]
    depth = len(inspect.stack(0))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + 400)
    try:
        shown, verified = lth("ticket", "show", name), lth("ticket", "verify", name)
    finally:
        sys.setrecursionlimit(limit)
    assert (shown.code, verified.code) == (0, 0)
    assert "after 60 trainings" in verified.out


@pytest.mark.slow
def test_tickets_of_earlier_settings_are_marked_and_shared_ones_are_not(
    lth: Lth, tiny_file: StudyFile
) -> None:
    seeds = {"axes.seed": [0], "base.branches": ["ticket"]}
    for changes in ({"base.train.lr": 0.1}, {"base.levels": 1}, {}):
        assert lth("sweep", tiny_file({**seeds, **changes}), "--serial").code == 0
    found = rows(lth("ticket", "ls", "--json"))
    assert sorted((row["settings"], row["level"]) for row in found) == [
        ("current", 0), ("current", 1), ("current", 2),
        ("earlier", 0), ("earlier", 1), ("earlier", 2),
    ]  # fmt: skip
    lines = lth("ticket", "ls").out.splitlines()
    assert sum(line.endswith(" earlier") for line in lines) == 3


@pytest.mark.slow
def test_verdicts_of_tickets_are_those_of_one_version_of_a_users_network(
    lth: Lth, tiny_file: StudyFile, here: Path
) -> None:
    """Both versions have the study's name, seeds, levels and branches."""
    code = here / "edited_between.py"
    net = (
        "import torch\n\ndef net(spec, shape, classes):\n    return torch.nn.Sequential("
        "torch.nn.Flatten(), torch.nn.Linear(64, WIDE), torch.nn.ReLU(), torch.nn.Linear(WIDE, 10))\n"
    )
    path = tiny_file({
        "axes.seed": [0, 1, 2], "base.model": {"name": "edited_between:net"}, "base.levels": 1,
        "base.branches": ["ticket"],
    })  # fmt: skip
    listed = dict[str, list[Record]]()
    for wide in ("2", "40"):
        code.write_text(net.replace("WIDE", wide))
        sys.modules.pop("edited_between", None)
        assert lth("sweep", path, "--serial").code == 0
        listed[wide] = rows(lth("report", "tiny", "--json"))
    found = {row["ticket_digest"]: row["verdict"] for row in rows(lth("ticket", "ls", "--json"))}
    for records in listed.values():
        tickets = [row for row in records if row["branch"] == "ticket"]
        expected = {v.verdict for v in verdicts(records, ["seed"])}
        assert {found[row["ticket_digest"]] for row in tickets} == expected


@pytest.mark.slow
def test_verdicts_of_tickets_are_judged_with_all_methods_of_their_study(
    lth: Lth, tiny_file: StudyFile, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own score has a fingerprint, and a known one has none."""
    score = "def size(network):\n    return {n: w.abs() for n, w in network.weights.items()}\n"
    (here / "scores_of_mine.py").write_text(score)
    path = tiny_file({
        "axes.seed": [0, 1, 2], "axes.prune.score": ["magnitude", "scores_of_mine:size"],
        "base.levels": 1, "base.branches": ["ticket"],
    })  # fmt: skip
    assert lth("sweep", path, "--serial").code == 0
    together = list[set[str]]()

    def judge(records: list[Record], *rest: Any) -> Any:
        together.append({record["prune.score"] for record in records})
        return with_verdicts(records, *rest)

    monkeypatch.setattr("sweeps.store.ticket_list.with_verdicts", judge)
    assert rows(lth("ticket", "ls", "--branch", "ticket", "--json"))
    assert together == [{"magnitude", "scores_of_mine:size"}]
