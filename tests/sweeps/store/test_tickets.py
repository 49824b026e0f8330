"""A ticket from which several trainings start is listed and exported as the branch `ticket`."""

from pathlib import Path

from tiny import tiny_fields

from lth_core import Trainer, find_tickets, load_ticket
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.store.records import save_records
from sweeps.store.ticket_list import list_tickets
from sweeps.store.tickets import export
from sweeps.studies.reader import parse_study


def test_ticket_and_its_twin_are_one_ticket_of_the_branch_ticket(tmp_path: Path) -> None:
    branches = ["ticket", "twin"]
    changes = {
        "axes.seed": [0], "base.levels": 1, "base.branches": branches,
        "base.train.steps": "2it", "base.train.evaluate_every": "2it",
        "base.stability": {"points": 3},
    }  # fmt: skip
    study, store = parse_study(tiny_fields(changes)), open_store(str(tmp_path / "store"))
    (trial,) = make_plan(study).trials
    rows = [
        {"study": study.name, "trial": trial.id, **row}
        for level in find_tickets(trial.spec, Trainer(store, "cpu"))
        for row in level.records
    ]
    save_records(store, study.name, study.digest(), trial, rows)
    one, other = (
        row["ticket_digest"] for row in rows if row["level"] == 1 and row["branch"] in branches
    )
    assert one == other
    assert [row["branch"] for row in list_tickets(str(tmp_path / "store"))] == ["dense", "ticket"]
    export(str(tmp_path / "store"), one, tmp_path / "ticket.safetensors")
    assert load_ticket(tmp_path / "ticket.safetensors").branch == "ticket"
