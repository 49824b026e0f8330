"""Tickets from which several trainings start, and of code and data that have changed since."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors import safe_open
from tiny import Lth, StudyFile, tiny_fields

from lth_core import Trainer, find_tickets, load_ticket
from lth_core.errors import SpecError
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.store.records import save_records
from sweeps.store.ticket_list import TicketFilter, list_tickets
from sweeps.store.tickets import export
from sweeps.studies.reader import parse_study

SHORT = {
    "axes.seed": [0], "base.levels": 1, "base.train.steps": "2it",
    "base.train.evaluate_every": "2it",
}  # fmt: skip


def swept_into(store: Path, changes: Mapping[str, object]) -> list[dict[str, object]]:
    """Records of a study's trials, trained and stored."""
    study, opened, rows = parse_study(tiny_fields({**SHORT, **changes})), open_store(str(store)), []
    for trial in make_plan(study).trials:
        of_trial = [
            {"study": study.name, "trial": trial.id, **row}
            for level in find_tickets(trial.spec, Trainer(opened, "cpu"))
            for row in level.records
        ]
        save_records(opened, study.name, study.digest(), trial, of_trial)
        rows += of_trial
    return rows


def test_ticket_and_its_twin_are_one_ticket_of_the_branch_ticket(tmp_path: Path) -> None:
    branches = ["ticket", "twin"]
    rows = swept_into(
        tmp_path / "store", {"base.branches": branches, "base.stability": {"points": 3}}
    )
    one, other = (
        row["ticket_digest"] for row in rows if row["level"] == 1 and row["branch"] in branches
    )
    assert one == other
    listed = list_tickets(str(tmp_path / "store"))
    assert [row["branch"] for row in listed] == ["dense", "twin", "ticket", "twin"]
    export(str(tmp_path / "store"), str(one), tmp_path / "ticket.safetensors")
    assert load_ticket(tmp_path / "ticket.safetensors").branch == "ticket"
    export(str(tmp_path / "store"), str(one), tmp_path / "small.safetensors", compact=True)


@pytest.mark.slow
def test_network_of_a_ticket_with_several_trainings_is_exported_by_its_training(
    tmp_path: Path,
) -> None:
    """Two learning rates train from one ticket of a mask that is found before training."""
    store, before = tmp_path / "store", {"when": "before", "score": "snip", "fraction": 0.5}
    changes = {"base.prune": before, "base.branches": ["ticket"], "axes.train.lr": [1e-3, 0.1]}
    rows = [row for row in swept_into(store, changes) if row["level"] == 1]
    (ticket,) = {str(row["ticket_digest"]) for row in rows}
    trainings = [str(row["training_digest"]) for row in rows]
    listed = list_tickets(str(store), TicketFilter(level=1))
    assert [row["training_digest"] for row in listed] == trainings
    path = tmp_path / "small.safetensors"
    with pytest.raises(SpecError, match=rf"^--training: .*{trainings[0][:12]} \(tiny ticket, test"):
        export(str(store), ticket, path, compact=True)
    assert not path.exists()
    for row, training in zip(rows, trainings, strict=True):
        export(str(store), ticket, path, compact=True, training=training[:10])
        with safe_open(path, "pt") as file:
            header = file.metadata()
        assert header["training_digest"] == training
        assert float(header["test_accuracy"]) == row["final_test_accuracy"]
    with pytest.raises(SpecError, match=r"^--training: .*, but got 'none'|but got '123'"):
        export(str(store), ticket, path, compact=True, training="123")
    export(str(store), ticket, tmp_path / "ticket.safetensors")


def test_tickets_that_studies_share_are_listed_in_each(tmp_path: Path) -> None:
    for name in ("first", "second"):
        swept_into(tmp_path / "store", {"name": name})
    of_each = [list_tickets(str(tmp_path / "store"), TicketFilter(study=name))
               for name in ("first", "second")]  # fmt: skip
    digests = [[row["ticket_digest"] for row in rows] for rows in of_each]
    assert digests[0] == digests[1] != []


NETWORK = """
from torch import nn
def net(spec, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, classes))
"""


@pytest.mark.slow
def test_results_are_read_though_the_code_of_their_network_has_changed(
    tiny_file: StudyFile, lth: Lth, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "net_edited_after_its_sweep.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    study = tiny_file(
        {**SHORT, "base.model": {"name": "net_edited_after_its_sweep:net", "init": "as_built"}}
    )
    assert lth("sweep", study, "--serial").code == 0
    before = lth("report", "tiny", "--json")
    (ticket,) = list_tickets("lth-store", TicketFilter(branch="ticket", level=1))
    (here / "net_edited_after_its_sweep.py").write_text(NETWORK.replace("ReLU", "Tanh"))
    sys.modules.pop("net_edited_after_its_sweep")
    assert lth("report", "tiny", "--json") == before
    called = lth("ticket", "show", ticket["ticket_digest"])
    sys.modules.pop("net_edited_after_its_sweep")
    changed = "must have the content that it had when the ticket was found; its code or files have changed"
    assert (called.code, called.err) == (
        2,
        f"lth: model.name: {changed}, but got 'net_edited_after_its_sweep:net'\n",
    )
