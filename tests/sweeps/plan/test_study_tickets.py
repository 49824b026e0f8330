"""Studies that start from tickets: files, or digests in the store."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, StudyFile, StudyOf

import sweeps
from lth_core.errors import SpecError
from lth_core.jobs.transfer import GivenTicket
from lth_core.store import open_store
from sweeps.plan.plan import make_plan
from sweeps.plan.tickets import study_tickets
from sweeps.store.garbage import collect
from sweeps.store.references import find_needs

ONE = {"base.levels": 1, "base.train.optimizer": "sgd"}


@pytest.fixture
def digest(swept: Path) -> str:
    """Digest of a ticket in the store of the swept study."""
    return sweeps.load("tiny").ticket(0.25, seed=1).digest


def test_axis_of_tickets_takes_digests_their_starts_files_and_null(
    digest: str, tiny: StudyOf, swept: Path, tmp_path: Path
) -> None:
    ticket = sweeps.load("tiny").ticket(0.5, seed=0)
    ticket.save(tmp_path / "t.safetensors")
    names = [None, digest, digest[:8], str(tmp_path / "t.safetensors")]
    study = tiny({**ONE, "store": str(swept / "lth-store"), "axes.ticket": names})
    plan = make_plan(study)
    # A digest and its start are one ticket, so one trial.
    tickets = [None, digest, ticket.digest]
    assert [trial.spec.ticket for trial in plan.trials] == [*tickets, *tickets]
    assert plan.axes == ["seed", "ticket"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"base.ticket": "absent.safetensors"}, "ticket: must be a ticket file, or the digest of a"),
    ({"base.ticket": "abc"}, "ticket: must be .* of at least 6 characters, but got 'abc'"),
    ({"base.ticket": "0" * 64}, "ticket: must be a ticket file, or the digest of a ticket in"),
    ({"axes.ticket": [12345678]}, "axes.ticket: must be .*, but got 12345678"),
    ({"base.ticket": "DIGEST", "base.model.widths": [8]},
     "base.ticket: must have the network's prunable layers: fc1.weight"),
    ({"base.ticket": "DIGEST", "base.levels": 2}, "base.levels: must be 1 beside ticket"),
    ({"base.ticket": "DIGEST", "search": {"algorithm": "optuna", "space": {"train.lr": [0.1]}}},
     "search.algorithm: must be grid or random beside ticket, but got 'optuna'"),
])  # fmt: skip
def test_wrong_ticket_is_refused_before_anything_is_trained(
    changes: dict[str, Any], message: str, digest: str, tiny: StudyOf, swept: Path
) -> None:
    given = {name: digest if value == "DIGEST" else value for name, value in changes.items()}
    study = tiny({**ONE, "store": str(swept / "lth-store"), **given})
    with pytest.raises(SpecError, match=message):
        make_plan(study)


@pytest.mark.slow
def test_ticket_is_stored_with_the_study_and_kept_as_long_as_it_is_needed(
    digest: str, swept: Path, tiny: StudyOf, tiny_file: StudyFile, lth: Lth, here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sweeps.load_ticket(f"store:{digest}").save(here / "t.safetensors")
    monkeypatch.chdir(here)
    changes = {**ONE, "base.ticket": "t.safetensors", "base.train.steps": "10it"}
    called = lth("sweep", tiny_file(changes), "--serial")
    assert called.code == 0, called
    rows = [json.loads(line) for line in lth("report", "tiny", "--json").out.splitlines()]
    assert {row["source_ticket"] for row in rows} == {digest}
    assert {row["ticket_digest"] for row in rows if row["branch"] == "ticket"} == {digest}
    store, key = open_store("./lth-store"), GivenTicket(content=digest).digest
    assert store.digests("tickets") == [key]
    (here / "t.safetensors").unlink()
    again = lth("report", "tiny", "--json")
    assert [json.loads(line) for line in again.out.splitlines()] == rows
    transferred = next(row for row in rows if row["branch"] == "ticket")["ticket_digest"]
    called = lth("ticket", "verify", transferred)
    assert called.code == 2
    assert (
        "DIGEST: must be of a search in the store; this one was given to its search" in called.err
    )
    assert key in find_needs(store).all()
    found = study_tickets(tiny({**changes, "base.ticket": digest}))
    assert [ticket.digest for ticket in found.values()] == [digest]
    collect(store, 0)
    assert store.digests("tickets") == [key]
    collect(store, 0, forget="tiny")
    assert store.digests("tickets") == []


def test_rewinding_a_given_ticket_is_refused(
    digest: str, swept: Path, tiny_file: StudyFile, lth: Lth
) -> None:
    path = tiny_file({**ONE, "store": str(swept / "lth-store"), "base.ticket": digest,
                      "axes.seed": [0, 1, 2]})  # fmt: skip
    called = lth("rewind", path, "--serial")
    assert called.code == 2
    assert "ticket: has weights of its own, so it is not rewound" in called.err


@pytest.mark.slow
def test_ticket_is_shown_as_the_search_found_it_not_as_it_was_given_to_another(
    digest: str, swept: Path, tiny_file: StudyFile, lth: Lth
) -> None:
    before = lth("ticket", "show", digest).out
    path = tiny_file({**ONE, "name": "aaa", "base.ticket": digest, "base.train.steps": "10it"})
    called = lth("sweep", path, "--serial")
    assert called.code == 0, called
    assert lth("ticket", "show", digest).out == before
    assert "bit for bit, after 2 trainings" in lth("ticket", "verify", digest).out
