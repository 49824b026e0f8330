"""`lth store` as a user calls it: on a folder, on S3, by a study's name."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import Called, Lth, StudyFile, StudyOf, search, tiny_fields

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.needs import find_needs
from sweeps.reader import parse_study
from sweeps.records import register
from sweeps.studies import find_study, presets, remember
from sweeps.usage import NOBODY, usage


def rows(called: Called) -> list[dict[str, Any]]:
    return [json.loads(line) for line in called.out.splitlines()]


@pytest.fixture
def mine(swept_once: Path, here: Path) -> Path:
    """A copy of the swept folder's store as this folder's, to be harmed."""
    shutil.copytree(swept_once / "lth-store", here / "lth-store")
    shutil.copytree(swept_once / "lth-studies", here / "lth-studies")
    return here / "lth-store"


# What takes the space


def test_du_adds_up_to_what_is_on_the_disk(mine: Path, lth: Lth) -> None:
    found = rows(lth("store", "du", "--json"))
    files = [path for path in mine.rglob("*") if path.is_file()]
    on_disk = sum(path.stat().st_size for path in files)
    for by in ("kind", "study", "content"):
        of = [row for row in found if row["by"] == by]
        assert sum(row["bytes"] for row in of) == on_disk
        assert [row["bytes"] for row in of] == sorted((row["bytes"] for row in of), reverse=True)
    content = {row["name"]: row["bytes"] for row in found if row["by"] == "content"}
    masks = sum(path.stat().st_size for path in files if path.name.startswith("mask-"))
    states = sum(path.stat().st_size for path in files if path.name.startswith("state-"))
    assert (content["masks"], content["states"]) == (masks, states)
    kinds = {row["name"]: row["entries"] for row in found if row["by"] == "kind"}
    assert (kinds["trainings"], kinds["trials"], kinds["studies"]) == (15, 3, 1)


def test_du_tells_what_studies_share_and_what_is_nobodys(tiny: StudyOf) -> None:
    from lth_core.store import Store

    store = Store()
    for name, levels in (("deep", 2), ("shallow", 1)):
        study = tiny({"name": name, "axes.seed": [0], "base.levels": levels})
        register(store, study)
        for _ in search(study, Trainer(store)):
            pass
    store.put("trainings", "nobodys", {}, {"state.safetensors": b"x" * 100})
    found = {row.name: row for row in usage(store, find_needs(store)) if row.by == "study"}
    size = {
        digest: sum(f.size for f in store.files.files(f"trainings/{digest}"))
        for digest in store.digests("trainings")
    }
    nobodys = size.pop("nobodys")
    assert found["deep"].shared_bytes == found["shallow"].shared_bytes > 0
    assert found["shallow"].shared_bytes < sum(size.values()) < found["deep"].bytes
    assert found["shallow"].bytes > found["shallow"].shared_bytes, "its records are its own"
    assert nobodys < found[NOBODY].bytes, "the speeds are nobody's too"


def test_du_for_a_person_has_a_table_each_and_the_biggest_first(mine: Path, lth: Lth) -> None:
    said = lth("store", "du", "tiny").out.splitlines()
    heads = [line.split()[0] for line in said if line.split()[1:3] == ["entries", "size"]]
    assert heads == ["kind", "study", "content"]
    assert said[1].split()[:2] == ["trainings", "15"]
    assert any(line.split()[0] == "tiny" and "kB" in line for line in said)


def test_du_says_what_it_could_not_count(mine: Path, lth: Lth) -> None:
    open_store(str(mine)).put("studies", "old.01", {"schema": 1, "study": {}})
    called = lth("store", "du")
    assert called.code == 0
    assert "not counted, for it cannot be read: schema: is another version's" in called.out


# What is broken


def test_verify_is_silent_about_a_sound_store(mine: Path, lth: Lth) -> None:
    assert lth("store", "verify") == Called(0, "Sound.\n", "")
    assert lth("store", "verify", "--json") == Called(0, "", "")


def test_verify_names_each_fault_and_removes_it_when_asked(mine: Path, lth: Lth) -> None:
    torn, lost, _ = sorted(mine.glob("trainings/*"))[:3]
    (torn / "entry.json").write_bytes(b"{")
    next(lost.glob("mask-*")).unlink()
    called = lth("store", "verify", mine)
    assert called.code == 1
    assert called.out.splitlines() == [
        f"trainings/{torn.name}/entry.json: is torn or altered",
        *[
            line
            for line in called.out.splitlines()
            if line.startswith(f"trainings/{lost.name}/mask-")
        ],
        "2 entries are faulty.",
    ]
    listed = rows(lth("store", "verify", "--json", "--remove", "--older", "0s"))
    assert [(row["kind"], row["digest"], row["removed"]) for row in listed] == [
        ("trainings", torn.name, True), ("trainings", lost.name, True)
    ]  # fmt: skip
    assert (torn.exists(), lost.exists()) == (False, False)
    assert lth("store", "verify").code == 0
    study = find_study("tiny", ["store=./lth-store"])
    for _ in search(study, Trainer(open_store(study.store))):
        pass
    assert (torn.exists(), lost.exists()) == (True, True)


def test_verify_removes_nothing_that_was_written_within_the_hour_and_says_so(
    mine: Path, lth: Lth
) -> None:
    """A sweep that runs beside it has written a ticket's blobs, and not yet what names them."""
    old, new = sorted(mine.glob("trainings/*"))[:2]
    for entry, ago in ((old, 3700), (new, 3500)):
        (entry / "entry.json").unlink()
        for path in entry.iterdir():
            os.utime(path, 2 * (time.time() - ago,))
    listed = rows(lth("store", "verify", "--json", "--remove"))
    assert [(row["digest"], row["removed"]) for row in listed] == [
        (old.name, True), (new.name, False)
    ]  # fmt: skip
    assert (old.exists(), new.exists()) == (False, True)
    called = lth("store", "verify", "--remove")
    assert called.code == 1
    assert called.out.splitlines() == [
        f"trainings/{new.name}/entry.json: is missing, left: younger than 1h",
        "1 entry is faulty.",
        "1 left, where a sweep may be writing; --older 0s removes that too.",
    ]
    assert lth("store", "verify", "--remove", "--older", "30m").out.count("removed") == 1
    assert not new.exists()


def test_verify_names_trainings_that_were_exchanged(mine: Path, lth: Lth) -> None:
    one, other = sorted(mine.glob("trainings/*"))[:2]
    away = one.rename(mine / "trainings/.away")
    other.rename(one)
    away.rename(other)
    called = lth("store", "verify")
    assert called.code == 1
    for here, there in ((one.name, other.name), (other.name, one.name)):
        assert f"trainings/{here}/entry.json: is that of trainings/{there}\n" in called.out


def test_verify_finds_nothing_wrong_in_a_checkpoint_that_was_cut_off(mine: Path, lth: Lth) -> None:
    half = mine / "checkpoints" / "0123" / "run-0123456789abcdef.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert lth("store", "verify") == Called(0, "Sound.\n", "")
    assert lth("store", "gc").out == "Nothing to delete.\n", "young"
    os.utime(half, 2 * (time.time() - 90_000,))
    assert [row["kind"] for row in rows(lth("store", "gc", "--json"))] == ["checkpoints"]
    assert not half.parent.exists()


# What can go


def test_gc_says_what_goes_by_kind(mine: Path, lth: Lth) -> None:
    before = sorted(mine.rglob("*"))
    assert lth("store", "gc") == Called(0, "Nothing to delete.\n", "")
    would = rows(lth("store", "gc", "--forget", "tiny", "--older", "0s", "--dry-run", "--json"))
    assert sorted(mine.rglob("*")) == before
    assert {row["kind"]: row["entries"] for row in would} == {
        "trainings": 15,
        "trials": 3,
        "studies": 1,
    }
    assert not any(row["removed"] for row in would)
    kept_back = rows(lth("store", "gc", "--forget", "tiny", "--json"))
    assert {row["kind"]: row["entries"] for row in kept_back} == {"trials": 3, "studies": 1}, (
        "young"
    )
    assert "gone" in lth("store", "gc", "--older", "0s").out
    assert {path.name for path in mine.iterdir() if any(path.iterdir())} <= {"speeds"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--older", "x"], "--older: must be a number of s, m, h or d, but got 'x'; known"),
        (["gc", "--older", "1 day"], "--older: must be a number of s, m, h or d, but got '1 day'; known"),
        (["gc", "--forget", "x"], "--forget: must be a study of the store, but got 'x'; known: tiny"),
        (["du", "nowhere"], "STORE: is neither a store nor a study, but got 'nowhere'; known: ./lth-store"),
        (["verify", "empty"], "STORE: must be a store with something in it, but got 'empty'"),
        (["verify", "gs://b/p"], "store: must be a folder or in S3, but got 'gs://b/p'"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_one_line_and_changes_nothing(
    arguments: list[str], said: str, mine: Path, here: Path, lth: Lth
) -> None:
    (here / "empty").mkdir()
    before = sorted(here.rglob("*"))
    called = lth("store", *arguments)
    assert (called.code, called.out) == (2, "")
    assert called.err.startswith(f"lth: {said}")
    assert called.err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_study_that_cannot_be_read_stops_gc(mine: Path, lth: Lth) -> None:
    open_store(str(mine)).put("studies", "old.01", {"schema": 1, "study": {}})
    called = lth("store", "gc", "--older", "0s")
    assert called.code == 2
    assert "give it up with --forget old.01" in called.err
    assert lth("store", "gc", "--older", "0s", "--forget", "old.01").code == 0
    assert lth("store", "verify").code == 0


# In S3, and the registry


def test_a_store_in_s3_is_swept_verified_counted_and_collected(
    s3: str, tiny: StudyOf, here: Path, lth: Lth
) -> None:
    study = tiny({"axes.seed": [0], "base.levels": 1, "store": s3})
    remember(study)
    for _ in search(study, Trainer(open_store(s3))):
        pass
    report = rows(lth("report", "tiny", "--json"))
    assert [row["branch"] for row in report] == ["dense", "ticket", "reinit"]
    listed = rows(lth("ticket", "ls", "--store", s3, "--json"))
    assert {row["ticket_digest"] for row in listed} == {row["ticket_digest"] for row in report}
    assert lth("store", "verify", s3) == Called(0, "Sound.\n", "")
    assert lth("store", "verify", "tiny").code == 0
    kinds = {
        r["name"]: r["entries"] for r in rows(lth("store", "du", s3, "--json")) if r["by"] == "kind"
    }
    assert (kinds["trainings"], kinds["trials"], kinds["studies"]) == (3, 1, 1)
    lth("store", "gc", s3, "--older", "0s")
    assert rows(lth("report", "tiny", "--json")) == report
    lth("store", "gc", s3, "--older", "0s", "--forget", "tiny")
    left = {found.path.split("/")[0] for found in open_store(s3).files.files("")}
    assert left <= {"speeds"}
    assert not (here / "lth-store").exists()


def test_store_knows_a_study_as_it_was_swept(tiny_file: StudyFile, here: Path) -> None:
    study = find_study(str(tiny_file()), ["levels=1"])
    remember(study)
    (key,) = open_store(study.store).digests("studies")
    entry = open_store(study.store).get("studies", key)
    assert entry is not None
    assert key == f"tiny.{study.digest()}"
    assert parse_study(entry.meta["study"]) == study


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_can_be_read_from_a_store(name: str) -> None:
    study = find_study(name)
    assert parse_study(json.loads(study.model_dump_json())) == study
    assert parse_study(study.model_dump(mode="json")).digest() == study.digest()


def test_a_study_whose_store_cannot_be_had_leaves_nothing_half_remembered(here: Path) -> None:
    from lth_core.errors import StoreError

    (here / "file").write_text("in the way")
    study = parse_study(tiny_fields({"store": str(here / "file" / "store")}))
    with pytest.raises(StoreError, match="cannot be made"):
        remember(study)
    assert sorted(path.name for path in here.iterdir()) == ["file"]
