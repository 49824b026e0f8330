"""`lth ticket export --compact`, --onnx and --torch-export: the trained network, without dead neurons."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import Called, Lth, Record, search, tiny_fields

from lth_core import Trainer, data, load_compact, load_ticket
from lth_core.store import open_store
from sweeps.store.records import register
from sweeps.store.ticket_list import list_tickets
from sweeps.studies.find import save_swept
from sweeps.studies.reader import parse_study

NEURONS = {"axes.seed": [0], "base.prune.structure": "neurons", "base.levels": 1}
STUDY = {**NEURONS, "base.model.widths": [16], "base.branches": ["ticket"]}


@pytest.fixture(scope="module")
def pruned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a study was swept that prunes half of 16 neurons."""
    folder = tmp_path_factory.mktemp("neurons")
    study = parse_study(tiny_fields({**STUDY, "store": str(folder / "lth-store")}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = open_store(study.store)
        register(store, study)
        for _ in search(study, Trainer(store, "cpu")):
            pass
        save_swept(study)
    return folder


@pytest.fixture
def record(pruned_once: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """The ticket's record; its store is in the current folder."""
    monkeypatch.chdir(pruned_once)
    return next(row for row in list_tickets("./lth-store") if row["level"] == 1)


def exported(lth: Lth, record: Record, *options: object) -> Called:
    return lth("ticket", "export", record["ticket_digest"], *options)


def test_compact_file_has_the_trained_network_without_pruned_neurons(
    lth: Lth, record: Record, tmp_path: Path
) -> None:
    file = tmp_path / "small.safetensors"
    called = exported(lth, record, "--compact", "-o", file)
    accuracy = record["final_test_accuracy"]
    assert (called.code, called.err) == (0, "")
    assert called.out == (
        f"{file}: 610 of 1,210 parameters, test accuracy {accuracy:.4f} on record\n"
    )
    network = load_compact(file)
    assert network.network.get_parameter("fc1.weight").shape == (8, 64)
    test = data.load(parse_study(tiny_fields(STUDY)).base.data, torch.device("cpu")).test
    with torch.no_grad():
        correct = (network(test.x).argmax(1) == test.y).double().mean()
    assert float(correct) == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.long
def test_all_forms_are_written_by_one_command(lth: Lth, record: Record, tmp_path: Path) -> None:
    import onnxruntime

    files = [tmp_path / name for name in ("small.safetensors", "small.onnx", "small.pt2")]
    called = exported(
        lth, record, "--compact", "-o", files[0], "--onnx", files[1], "--torch-export", files[2]
    )
    assert (called.code, called.err) == (0, "")
    assert [line.split(":")[0] for line in called.out.splitlines()] == [str(f) for f in files]
    x = torch.rand(3, 1, 8, 8) * 16
    with torch.no_grad():
        expected = load_compact(files[0])(x)
        program = torch.export.load(files[2]).module()
        assert torch.allclose(program(x), expected, atol=1e-5)
    (logits,) = onnxruntime.InferenceSession(files[1]).run(["logits"], {"x": x.numpy()})
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4)


@pytest.mark.long
def test_other_forms_go_with_the_ticket_itself_or_alone(
    lth: Lth, record: Record, tmp_path: Path
) -> None:
    ticket, alone, beside = (tmp_path / name for name in ("t.safetensors", "a.pt2", "b.pt2"))
    assert exported(lth, record, "--torch-export", alone).code == 0
    assert exported(lth, record, "-o", ticket, "--torch-export", beside).code == 0
    assert load_ticket(ticket).digest == record["ticket_digest"]
    assert torch.export.load(alone).module()(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "a.pt2", "b.pt2", "t.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [[], ["--compact"]])
def test_export_without_a_file_is_refused(options: list[str], lth: Lth, record: Record) -> None:
    called = exported(lth, record, *options)
    assert called.code == 2
    assert "Invalid value for '-o' / '--output': must name the file to write" in called.err


def test_file_that_cannot_be_written_is_an_error_and_leaves_nothing(
    lth: Lth, record: Record, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    missing = tmp_path / "missing" / "small.onnx"
    file = tmp_path / "small.safetensors"
    called = exported(lth, record, "--compact", "-o", file, "--onnx", missing)
    assert (called.code, called.err.count("\n")) == (2, 1)
    assert "--onnx: must lie in a folder that exists" in called.err
    assert sorted(tmp_path.rglob("*")) == before


def test_show_describes_tickets_alone_and_says_what_it_got(
    lth: Lth, record: Record, tmp_path: Path
) -> None:
    file = tmp_path / "small.safetensors"
    exported(lth, record, "--compact", "-o", file)
    called = lth("ticket", "show", file)
    assert called.code == 2
    assert f"{file}: format must be 'lth-ticket/1', but got 'lth-compact/1'" in called.err


def test_lost_training_is_an_error(
    lth: Lth, pruned_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pruned_once, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    record = next(row for row in list_tickets("./lth-store") if row["level"] == 1)
    shutil.rmtree(f"lth-store/trainings/{record['training_digest']}")
    called = exported(lth, record, "--compact", "-o", tmp_path / "small.safetensors")
    assert called.code == 2
    assert "has lost training" in called.err
    assert not (tmp_path / "small.safetensors").exists()
