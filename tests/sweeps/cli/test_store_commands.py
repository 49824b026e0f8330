"""`lth store` as a user calls it: on a folder, on S3, by a study's name."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Called, Lth, StudyFile, StudyOf, search

from lth_core import Trainer
from lth_core.errors import StoreError
from lth_core.store import open_store
from sweeps.store.records import register
from sweeps.store.references import find_needs
from sweeps.store.usage import NO_STUDY, usage
from sweeps.studies.find import find_study, save_swept
from sweeps.studies.names import presets
from sweeps.studies.reader import parse_study

NOBODYS, OLD = "ab" * 32, f"old.{'01' * 32}"
"""Keys of an entry that no study needs, and of a study that cannot be read."""


def rows(called: Called) -> list[dict[str, Any]]:
    return [json.loads(line) for line in called.out.splitlines()]


@pytest.fixture
def mine(swept_once: Path, here: Path) -> Path:
    """A copy of the swept folder's store in this folder, to be changed."""
    shutil.copytree(swept_once / "lth-store", here / "lth-store")
    shutil.copytree(swept_once / "lth-studies", here / "lth-studies")
    return here / "lth-store"


# What takes the space


def test_du_adds_up_to_what_is_on_the_disk(mine: Path, lth: Lth) -> None:
    found = rows(lth("store", "du", "--json"))
    files = [path for path in mine.rglob("*/*") if path.is_file()]
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


def test_du_counts_bytes_that_studies_share_and_bytes_of_no_study(tiny: StudyOf) -> None:
    from lth_core.store import Store

    store = Store()
    for name, levels in (("deep", 2), ("shallow", 1)):
        study = tiny({"name": name, "axes.seed": [0], "base.levels": levels})
        register(store, study)
        for _ in search(study, Trainer(store)):
            pass
    store.put("trainings", NOBODYS, {}, {"state.safetensors": b"x" * 100})
    found = {row.name: row for row in usage(store, find_needs(store)) if row.by == "study"}
    size = {
        digest: sum(f.size for f in store.files.files(f"trainings/{digest}"))
        for digest in store.digests("trainings")
    }
    nobodys = size.pop(NOBODYS)
    assert found["deep"].shared_bytes == found["shallow"].shared_bytes > 0
    assert found["shallow"].shared_bytes < sum(size.values()) < found["deep"].bytes
    assert found["shallow"].bytes > found["shallow"].shared_bytes, "its records are its own"
    assert nobodys < found[NO_STUDY].bytes, "the speeds are nobody's too"


def test_du_for_a_person_has_a_table_each_and_the_biggest_first(mine: Path, lth: Lth) -> None:
    said = lth("store", "du", "tiny").out.splitlines()
    heads = [line.split()[0] for line in said if line.split()[1:3] == ["entries", "size"]]
    assert heads == ["kind", "study", "content"]
    assert said[1].split()[:2] == ["trainings", "15"]
    assert any(line.split()[0] == "tiny" and "kB" in line for line in said)


def test_du_says_what_it_could_not_count(mine: Path, lth: Lth) -> None:
    open_store(str(mine)).put("studies", OLD, {"schema": 1, "study": {}})
    called = lth("store", "du")
    assert called.code == 0
    assert "not counted, as it cannot be read: schema: is another version's" in called.out


# What is broken


def test_verify_is_silent_about_a_sound_store(mine: Path, lth: Lth) -> None:
    assert lth("store", "verify") == Called(0, "No entry is faulty.\n", "")
    assert lth("store", "verify", "--json") == Called(0, "", "")


@pytest.mark.slow
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
        assert f"trainings/{here}/entry.json: belongs to trainings/{there}\n" in called.out


def test_verify_finds_nothing_wrong_in_a_checkpoint_that_was_cut_off(mine: Path, lth: Lth) -> None:
    half = mine / "checkpoints" / NOBODYS / "run-0123456789abcdef.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert lth("store", "verify") == Called(0, "No entry is faulty.\n", "")
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
        "measures": 15,
        "trials": 3,
        "studies": 1,
    }
    assert not any(row["removed"] for row in would)
    kept_back = rows(lth("store", "gc", "--forget", "tiny", "--json"))
    assert {row["kind"]: row["entries"] for row in kept_back} == {"trials": 3, "studies": 1}, (
        "young"
    )
    assert "deleted" in lth("store", "gc", "--older", "0s").out
    assert {path.name for path in mine.iterdir() if path.is_dir() and any(path.iterdir())} <= {
        "speeds"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--older", "x"], "--older: must be a number of s, m, h or d, but got 'x'; known"),
        (["gc", "--older", "1 day"], "--older: must be a number of s, m, h or d, but got '1 day'; known"),
        (["gc", "--forget", "x"], "--forget: must be a study of the store, but got 'x'; known: tiny"),
        (["du", "nowhere"], "STORE: is neither a store nor a study, but got 'nowhere'; known: ./lth-store"),
        (["verify", "empty"], "STORE: must be a store: there is neither lth-store.json nor an entry of checkpoints, "),
        (["verify", "gs://b/p"], "store: must be a folder or in S3, but got 'gs://b/p'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_on_stderr_and_change_nothing(
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
    open_store(str(mine)).put("studies", OLD, {"schema": 1, "study": {}})
    called = lth("store", "gc", "--older", "0s")
    assert called.code == 2
    assert f"delete it with --forget {OLD}" in called.err
    assert lth("store", "gc", "--older", "0s", "--forget", OLD).code == 0
    assert lth("store", "verify").code == 0


# In S3, and the registry


@pytest.mark.slow
@pytest.mark.long
def test_a_store_in_s3_is_swept_verified_counted_and_collected(
    s3: str, tiny: StudyOf, here: Path, lth: Lth
) -> None:
    study = tiny({"axes.seed": [0], "base.levels": 1, "store": s3})
    register(open_store(s3), study)
    save_swept(study)
    for _ in search(study, Trainer(open_store(s3))):
        pass
    report = rows(lth("report", "tiny", "--json"))
    assert [row["branch"] for row in report] == ["dense", "ticket", "reinit"]
    listed = rows(lth("ticket", "ls", "--store", s3, "--json"))
    assert {row["ticket_digest"] for row in listed} == {row["ticket_digest"] for row in report}
    assert lth("store", "verify", s3) == Called(0, "No entry is faulty.\n", "")
    assert lth("store", "verify", "tiny").code == 0
    kinds = {
        r["name"]: r["entries"] for r in rows(lth("store", "du", s3, "--json")) if r["by"] == "kind"
    }
    assert (kinds["trainings"], kinds["trials"], kinds["studies"]) == (3, 1, 1)
    lth("store", "gc", s3, "--older", "0s")
    assert rows(lth("report", "tiny", "--json")) == report
    lth("store", "gc", s3, "--older", "0s", "--forget", "tiny")
    left = {found.path.split("/")[0] for found in open_store(s3).files.files("")}
    assert left <= {"speeds", "lth-store.json"}
    assert not (here / "lth-store").exists()


def test_store_knows_a_study_as_it_was_swept(tiny_file: StudyFile, here: Path) -> None:
    study = find_study(str(tiny_file()), ["levels=1"])
    register(open_store(study.store), study)
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


# Folders that are no store, and what is not the store's


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: links by where they lead, files by their content."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_text(errors="replace") if path.is_file() else "folder"
        for path in folder.rglob("*")
    }  # fmt: skip


def long_ago(folder: Path) -> None:
    for path in [*folder.rglob("*")]:
        os.utime(path, 2 * (time.time() - 200_000,), follow_symlinks=False)


@pytest.fixture
def project(here: Path) -> Path:
    """A folder of somebody's that looks a little like a store, written days ago."""
    for path in ("src/pkg/a.py", "checkpoints/run1/entry.json", "trainings/d/run.safetensors",
                 "status/x/entry.json", f"points/{NOBODYS}/notes.txt"):  # fmt: skip
        (here / "p" / path).parent.mkdir(parents=True)
        (here / "p" / path).write_text("mine")
    long_ago(here / "p")
    return here / "p"


EVERY_DELETION = [("gc",), ("gc", "--older", "0s"), ("verify", "--remove"),
                  ("verify", "--remove", "--older", "0s"), ("du",)]  # fmt: skip


@pytest.mark.parametrize("command", EVERY_DELETION, ids=" ".join)
def test_folder_that_is_no_store_is_refused_with_what_was_looked_for(
    command: tuple[str, ...], project: Path, lth: Lth
) -> None:
    before = tree(project)
    called = lth("store", command[0], "p", *command[1:])
    assert (called.code, called.out) == (2, "")
    assert called.err == (
        "lth: STORE: must be a store: there is neither lth-store.json nor an entry of checkpoints, "
        "claims, latencies, linears, measures, packs, points, speeds, status, studies, tickets, "
        "trainings, trials, but got 'p'\n"
    )
    assert tree(project) == before


@pytest.mark.parametrize("command", EVERY_DELETION[:-1], ids=" ".join)
def test_project_that_a_store_was_made_in_loses_nothing(
    command: tuple[str, ...], project: Path, lth: Lth
) -> None:
    before = tree(project)
    store = open_store(str(project))
    store.put("trainings", NOBODYS, {}, {"state.safetensors": b"x"})
    (project / "trainings" / NOBODYS / "notes.txt").write_text("mine")
    (project / "trainings" / NOBODYS / "entry.json").write_text("torn")
    long_ago(project)
    assert lth("store", command[0], "p", *command[1:]).code == (command[0] == "verify")
    mine = {**before, f"trainings/{NOBODYS}": "folder", f"trainings/{NOBODYS}/notes.txt": "mine"}
    assert tree(project) == {**mine, "lth-store.json": '{"format":"lth-store/1"}'}


def test_store_of_an_older_version_without_a_marker_is_known_by_its_entries(
    mine: Path, lth: Lth
) -> None:
    (mine / "lth-store.json").unlink()
    assert lth("store", "verify") == Called(0, "No entry is faulty.\n", "")
    assert lth("store", "gc", "--older", "0s", "--forget", "tiny").code == 0
    assert list(mine.glob("trainings/*")) == []


@pytest.mark.slow
def test_prefix_in_s3_that_is_no_store_is_refused_and_what_is_not_the_stores_stays(
    s3: str, lth: Lth
) -> None:
    files = open_store(s3, make=False).files
    for path in ("src/pkg/a.py", "checkpoints/run1/entry.json", f"points/{NOBODYS}/notes.txt"):
        files.write(path, b"mine")
    before = sorted(found.path for found in files.files(""))
    for command in EVERY_DELETION:
        called = lth("store", command[0], s3, *command[1:])
        assert (called.code, called.out) == (2, "")
        assert called.err.startswith("lth: STORE: must be a store: there is neither lth-store.json")
    open_store(s3).put("points", NOBODYS, {}, {"state.safetensors": b"x"})
    lth("store", "gc", s3, "--older", "0s")
    assert sorted(found.path for found in files.files("")) == sorted([*before, "lth-store.json"])


@pytest.mark.parametrize("command", EVERY_DELETION[:-1], ids=" ".join)
@pytest.mark.slow
def test_links_are_not_followed_but_named(
    command: tuple[str, ...], mine: Path, here: Path, lth: Lth
) -> None:
    """Links in place of a kind, of an entry and of a blob, inside entries, and a loop."""
    outside = here / "outside"
    store = open_store(str(mine))
    for number in range(4):
        store.put("trainings", f"{number}" * 64, {}, {"state.safetensors": b"x"})
    for name in ("0", "1", "kind"):
        (outside / name).mkdir(parents=True)
        (outside / name / "state-0123456789abcdef.safetensors").write_text("mine")
        (outside / name / "entry.json").write_text("mine")
    shutil.rmtree(mine / "trainings" / ("0" * 64))
    links = {
        "points": outside,
        f"trainings/{'0' * 64}": outside / "0",
        f"trainings/{'1' * 64}/more": outside / "1",
        f"trainings/{'2' * 64}/loop": mine / "trainings" / ("2" * 64),
        f"trainings/{'3' * 64}/state-0123456789abcdef.safetensors": outside / "1" / "entry.json",
        "checkpoints": mine / "checkpoints",
    }
    for link, target in links.items():
        (mine / link).symlink_to(target)
    long_ago(here)
    before = tree(outside)
    called = lth("store", *command)
    assert called.err == ""
    assert tree(outside) == before
    assert all((mine / link).is_symlink() for link in links)
    if command[0] == "verify":
        for link in links:
            assert f"{link}: symbolic link that is not the store's, left alone\n" in called.out
    du = rows(lth("store", "du", "--json"))
    assert not {row["name"] for row in du} & {"points", "checkpoints"}


def test_sweep_into_a_store_whose_kind_is_a_link_is_refused(mine: Path, here: Path) -> None:
    """Its listings would not see what lies behind the link."""
    (mine / "trainings").rename(here / "elsewhere")
    (mine / "trainings").symlink_to(here / "elsewhere")
    before = tree(here / "elsewhere")
    with pytest.raises(StoreError, match=r"trainings.*must be a folder, not a symbolic link"):
        open_store(str(mine))
    assert tree(here / "elsewhere") == before


# What cannot be read


def spoil_with_a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def spoil_with_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "mine.txt").write_text("mine")


def spoil_with_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [spoil_with_a_loop, spoil_with_a_folder, spoil_with_a_fifo])
@pytest.mark.parametrize("name", ["entry.json", "mask-*.safetensors", "state-*.safetensors"])
def test_file_that_cannot_be_read_is_named_and_made_again(
    spoil: Callable[[Path], None], name: str, mine: Path, here: Path, lth: Lth
) -> None:
    # A level's ticket that the next level starts from: its mask and its weights are needed.
    records = rows(lth("report", "tiny", "--json"))
    digest = next(
        r["training_digest"] for r in records if (r["level"], r["branch"]) == (1, "ticket")
    )
    study = find_study("tiny", ["store=./lth-store"])
    for command in (["verify"], ["verify", "--remove", "--older", "0s"]):
        spoil(next((mine / "trainings" / digest).glob(name)))
        called = lth("store", *command)
        assert (called.code, called.err) == (1, "")
        assert f"trainings/{digest}/" in called.out
        assert "1 entry is faulty." in called.out
        for _ in search(study, Trainer(open_store(study.store))):
            pass
        assert "No entry is faulty." in lth("store", "verify").out
        again = rows(lth("report", "tiny", "--json"))
        assert [r["ticket_digest"] for r in again] == [r["ticket_digest"] for r in records]
    if spoil is spoil_with_a_folder:
        aside = mine.glob(f"trainings/{digest}/*aside*/mine.txt")
        assert [path.read_text() for path in aside] == ["mine", "mine"]


def test_file_in_place_of_an_entrys_folder_moves_aside_when_the_entry_is_made(
    mine: Path, lth: Lth, caplog: pytest.LogCaptureFixture
) -> None:
    victim = sorted(mine.glob("trainings/*"))[0]
    shutil.rmtree(victim)
    victim.write_text("mine")
    assert f"trainings/{victim.name}: file that is not the store's" in lth("store", "verify").out
    assert lth("store", "gc", "--older", "0s").code == 0
    assert victim.read_text() == "mine"
    study = find_study("tiny", ["store=./lth-store"])
    for _ in search(study, Trainer(open_store(study.store))):
        pass
    assert (victim / "entry.json").is_file()
    (aside,) = mine.glob(f"trainings/{victim.name}.aside-*")
    assert aside.read_text() == "mine"
    assert aside.name in caplog.text


AS_NOBODY = """
import os, sys
import sweeps.store.integrity, sweeps.store.garbage, sweeps.store.usage
from sweeps.cli.main import main
os.setuid(65534)
codes = []
for command in (["du"], ["gc", "--dry-run"], ["verify"]):
    sys.argv = ["lth", "store", *command]
    try:
        main()
        codes.append(0)
    except SystemExit as ended:
        codes.append(ended.code or 0)
assert codes == [0, 0, 1], codes
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody, whom modes bind")
def test_file_and_folder_without_permission_are_named(swept_once: Path) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own is for its user alone
    folder.chmod(0o755)
    try:
        shutil.copytree(swept_once / "lth-store", folder / "lth-store")
        one, other = sorted((folder / "lth-store" / "trainings").iterdir())[:2]
        (one / "entry.json").chmod(0)
        other.chmod(0)
        called = subprocess.run(
            [sys.executable, "-c", AS_NOBODY], cwd=folder, text=True, capture_output=True,
            env={**os.environ, "HOME": "/"}, check=False,
        )  # fmt: skip
        assert (called.returncode, called.stderr) == (0, "")
        assert f"trainings/{one.name}/entry.json: cannot be read (Permission" in called.stdout
        assert f"trainings/{other.name}" in called.stdout
        assert "2 entries are faulty." in called.stdout
    finally:
        shutil.rmtree(folder)


def test_bad_sector_is_a_fault_of_one_file(
    mine: Path, lth: Lth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system call fails, as it does where a sector is bad."""
    victim, real = sorted(mine.glob("trainings/*"))[0], os.open

    def open_bad(path: Any, flags: int, *mode: Any, **others: Any) -> int:
        if str(path) == str(victim / "entry.json"):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, flags, *mode, **others)

    monkeypatch.setattr(os, "open", open_bad)
    called = lth("store", "verify")
    assert called.code == 1
    assert called.out.splitlines() == [
        f"trainings/{victim.name}/entry.json: cannot be read (Input/output error)",
        "1 entry is faulty.",
    ]
    assert lth("report", "tiny", "--json").code == 0
