"""Studies in a notebook: run, load, records, verdict, figures and tickets."""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tiny import Lth, StudyFile, timeless

import sweeps
from lth_core.analysis.verdict import WORDS
from lth_core.errors import LaunchError, SpecError
from sweeps.notebook import SweptStudy, override_texts


@pytest.fixture
def study(swept: Path) -> SweptStudy:
    return sweeps.load("tiny")


def test_public_names_are_there_and_others_are_attribute_errors() -> None:
    import sweeps.run.launch  # it binds the package's name

    assert all(callable(getattr(sweeps, name)) for name in sweeps.__all__)
    assert set(sweeps.__all__) < set(dir(sweeps))
    with pytest.raises(AttributeError, match="module 'sweeps' has no attribute 'nothing'"):
        sweeps.nothing  # noqa: B018


def test_loaded_study_has_the_records_and_answer_of_its_report(study: SweptStudy, lth: Lth) -> None:
    assert (study.name, study.axes, len(study.records)) == ("tiny", ["seed"], 15)
    assert [verdict.level for verdict in study.verdicts] == [1, 2]
    answer = study.verdict
    assert "3 seeds" in answer.basis
    assert repr(study) == f"<SweptStudy tiny: {answer.sentence}>"
    assert repr(answer) == f"<Answer: {answer.sentence} ({answer.basis})>"
    assert "3 of 3 trials, 15 records" in study._repr_html_()
    assert answer.lines
    assert all(f"<li>{line}</li>" in study._repr_html_() for line in answer.lines)


@pytest.mark.slow
def test_frame_has_a_row_a_record_with_the_types_of_the_columns(study: SweptStudy) -> None:
    for record in study.records:
        record["train.lr"] = 0.01  # an axis
    frame = study.to_frame()
    assert len(frame) == 15
    types = frame.dtypes.astype(str)
    names = ["trial", "seed", "reused", "density", "early_stop_step", "layer_density", "train.lr"]
    assert [types[name] for name in names] == [
        "string", "int64", "bool", "float64", "Int64", "object", "float64",
    ]  # fmt: skip
    assert list(frame["density"]) == [record["density"] for record in study.records]
    tickets = frame[frame["branch"] == "ticket"]
    assert set(tickets["verdict"]) <= set(WORDS)
    assert frame[frame["branch"] == "reinit"]["verdict"].isna().all()


@pytest.mark.slow
def test_frame_can_be_written_and_grouped_by_any_axis(study: SweptStudy, here: Path) -> None:
    for row in study.records:
        row["overlap_methods"] = {}
        row["model.widths"] = [16] if row["seed"] else [8, 8]
    frame = study.to_frame()
    frame.to_parquet("frame.parquet")
    assert list(frame.groupby("model.widths").size().index) == [(8, 8), (16,)]
    for widths in ([8, 8], (8, 8)):
        assert study.ticket(0.5, where={"model.widths": widths}).spec.seed == 0


@pytest.mark.slow
def test_figure_is_matplotlibs_and_wrong_names_list_the_known(study: SweptStudy) -> None:
    figure = study.plot_accuracy()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(SpecError, match=r"figure: is not known, .* known: .*accuracy, .*rewind"):
        study.plot("accurracy")
    with pytest.raises(SpecError, match="figure: needs numbers that the study's records lack"):
        study.plot("structures")


def test_ticket_is_the_nearest_in_density_of_those_asked_for(study: SweptStudy) -> None:
    nearest = study.ticket(density=0.1)
    assert repr(nearest) == "<Ticket: mlp on digits, seed 0, level 2, ticket, density 0.2500>"
    assert study.ticket(0.9).level == 1
    other = study.ticket(0.5, seed=2, branch="reinit")
    assert (other.level, other.branch, other.spec.seed) == (1, "reinit", 2)
    recorded = [row for row in study.records if row["ticket_digest"] == other.digest]
    assert [(row["seed"], row["branch"], row["level"]) for row in recorded] == [(2, "reinit", 1)]
    assert study.ticket(0.5, where={"level": 2}).level == 2


@pytest.mark.parametrize(("asked", "message"), [
    ({"branch": "finetune"}, "branch: must be that of a record, but got 'finetune'; "
     "known: dense, ticket, reinit"),
    ({"seed": 7}, "seed: must be that of a record, but got 7; known: 0, 1, 2"),
    ({"where": {"prune.score": "snip"}}, "prune.score: is neither a column nor an axis, "
     "but got 'snip'; known: seed"),
])  # fmt: skip
def test_ticket_that_is_not_there_is_an_error_with_the_known_ones(
    asked: dict[str, Any], message: str, study: SweptStudy
) -> None:
    with pytest.raises(SpecError, match=f"^{message}$"):
        study.ticket(0.5, **asked)


def test_ticket_of_a_network_that_is_defined_anew_is_refused(
    tiny_file: StudyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from torch import nn\n"
        "def net(spec, shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.{}(), nn.Linear(8, classes))\n"
    )
    cells = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", cells)
    exec(code.format("ReLU"), vars(cells))
    model = {"name": "__main__:net", "init": "as_built"}
    path = tiny_file({"base.model": model, "base.train.steps": "2it", "axes.seed": [0]})
    study = sweeps.run(path, quiet=True)
    ticket = study.ticket(0.5)
    exec(code.format("Tanh"), vars(cells))
    with pytest.raises(SpecError, match=r"^model.name: must be in a file of its own to run on Ray"):
        sweeps.run(path, ray=True)
    changed = r"^model.name: must have the content .*; its code or files have changed"
    with pytest.raises(SpecError, match=changed):
        study.ticket(0.5)
    with pytest.raises(SpecError, match=changed):
        sweeps.load_ticket(f"store:{ticket.digest}")


def test_ticket_is_loaded_by_digest_or_from_a_file(study: SweptStudy, tmp_path: Path) -> None:
    ticket = study.ticket(0.25)
    ticket.save(tmp_path / "ticket.safetensors")
    by_digest = sweeps.load_ticket(f"store:{ticket.digest[:8]}")
    from_file = sweeps.load_ticket(tmp_path / "ticket.safetensors")
    assert by_digest.digest == from_file.digest == ticket.digest
    with pytest.raises(
        SpecError, match=r"DIGEST: must be the digest of one ticket in \./lth-store"
    ):
        sweeps.load_ticket("store:0123456789abcdef")


def test_overrides_are_read_as_they_were_given() -> None:
    given = {"levels": 2, "train.lr": 1e-7, "branches": ["ticket"], "data.root": "true"}
    assert override_texts(given) == [
        "levels=2", "train.lr=1e-07", 'branches=["ticket"]', 'data.root="true"',
    ]  # fmt: skip
    values = {"data.root": Path("a/b"), "seed": range(2), "levels": np.int64(3),
              "train.lr": torch.tensor(0.5)}  # fmt: skip
    assert override_texts(values) == ['data.root="a/b"', "seed=[0, 1]", "levels=3", "train.lr=0.5"]
    with pytest.raises(SpecError, match=r"^overrides: must be numbers, .*, but got 'object <obj"):
        override_texts({"levels": object()})


@pytest.mark.slow
def test_study_is_run_resumed_and_loaded_in_this_process(
    tiny_file: StudyFile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    path, changes = tiny_file(), {"train.steps": "10it"}
    first = sweeps.run(path, changes)
    printed = capsys.readouterr().out
    assert "6/6 levels" in printed
    assert printed.splitlines()[-1] == "report: lth-studies/tiny/report.html"
    assert first.report.exists()
    assert ("OMP_NUM_THREADS" in os.environ, torch.get_num_threads()) == (False, 2)
    assert timeless(sweeps.load("tiny").records) == timeless(first.records)
    again = sweeps.run(path, changes, quiet=True)
    assert capsys.readouterr().out == ""
    assert timeless(again.records) == timeless(first.records)
    assert all(row["train_seconds"] == old["train_seconds"]
               for row, old in zip(again.records, first.records, strict=True))  # fmt: skip


def test_failures_are_printed_and_a_study_without_results_is_an_error(
    tiny_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"train.lr": 1e30, "seed": [0], "levels": 0}
    with pytest.raises(LaunchError, match=r"^no trial of tiny has finished$"):
        sweeps.run(tiny_file(), changes, quiet=True)
    assert "the loss is not finite" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.long
def test_study_runs_on_ray_in_a_process_of_its_own(
    tiny_file: StudyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = sweeps.run(tiny_file(), ray=True)
    assert "6/6 levels" in capsys.readouterr().out
    assert len(swept.records) == 10
    with pytest.raises(
        LaunchError, match=r"^--address: no Ray cluster answers at 127\.0\.0\.1:9: "
    ):
        sweeps.run(tiny_file(), address="127.0.0.1:9", quiet=True)
