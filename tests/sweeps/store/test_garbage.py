"""`lth store gc`: what a study needs stays, the rest goes, whatever happens meanwhile."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny import StudyOf, context_of, search, tiny_fields

from lth_core import Trainer, find_tickets
from lth_core.errors import SpecError, StoreError
from lth_core.store import Store, open_store
from lth_core.store.files import MemoryFiles, StoredFile
from sweeps.plan.plan import make_plan
from sweeps.run.trial import run_trial
from sweeps.store import garbage as housekeeping
from sweeps.store.garbage import collect
from sweeps.store.integrity import find_faults
from sweeps.store.records import register
from sweeps.store.references import entries_of
from sweeps.store.status import Status, save_status, status_key
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study

DAY = 86400.0
NOBODYS, OLD, LOST = "ab" * 32, f"old.{'01' * 32}", f"lost.{'01' * 32}"
"""Keys of entries that no study needs, and of studies that cannot be read."""
SCRATCH = f".{'01' * 16}.tmp"
ONE = {"axes.seed": [0]}
SHARING: dict[str, dict[str, Any]] = {
    "plain": ONE,
    "shallow": {**ONE, "base.levels": 1, "base.branches": ["ticket"]},
    "rewound": {**ONE, "axes.rewind": ["0it", "10it"], "base.branches": ["ticket", "lr_rewind"]},
    "twins": {**ONE, "base.rewind": "10it", "base.branches": ["ticket", "twin"]},
    "foretold": {**ONE, "base.rewind": "20it", "base.predictors": True, "base.branches": ["ticket"]},
    "before.training": {**ONE, "base.prune.when": "before", "base.branches": ["ticket"]},
    "other-seed": {"axes.seed": [1], "base.branches": ["ticket", "random_mask"]},
}  # fmt: skip
"""Studies of one dataset and network that have trainings, masks and rewind points in common."""


def study_of(name: str) -> Study:
    return parse_study(tiny_fields({**SHARING[name], "name": name}))


def sweep(store: Store, study: Study) -> None:
    register(store, study)
    for _ in search(study, Trainer(store)):
        pass


def copy_of(store: Store) -> Store:
    copy = Store()
    for found in store.files.files(""):
        copy.files.write(found.path, store.files.read(found.path) or b"")
    return copy


def entries(store: Store) -> set[tuple[str, str]]:
    """Keys of all entries but speeds, which belong to no study."""
    kinds = [kind for kind in store.kinds() if kind != "speeds"]
    return {(kind, digest) for kind in kinds for digest in store.digests(kind)}


@cache
def swept(name: str) -> set[tuple[str, str]]:
    """Keys of the entries that a study alone leaves in an empty store."""
    store = Store()
    sweep(store, study_of(name))
    return entries(store)


@cache
def everything() -> Store:
    """A store into which all of them were swept, the one after the other."""
    store = Store()
    for name in SHARING:
        sweep(store, study_of(name))
    return store


def kept_for(names: set[str]) -> set[tuple[str, str]]:
    """Keys that studies need, and further rewind points of their trainings."""
    needed = set[tuple[str, str]]().union(*(swept(name) for name in names))
    store = everything()
    points = ((digest, store.get("points", digest)) for digest in store.digests("points"))
    further = {("points", d) for d, e in points if e and ("trainings", e.meta["of"]) in needed}
    return needed | further


def replay(store: Store, study: Study) -> None:
    """Every level, record and ticket of a study, from the store alone."""
    for trial in make_plan(study).trials:
        for level in find_tickets(trial.spec, Trainer(store, frozen=True)):
            _ = level.records
            assert level.ticket_of(level.branch).density > 0


@pytest.mark.long
@pytest.mark.slow
def test_studies_share(tmp_path: Path) -> None:
    alone = sum(len(swept(name)) for name in SHARING)
    assert len(entries(everything())) < alone - 10


EACH = [{name} for name in sorted(SHARING)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "live",
    [set(), *EACH, *(SHARING.keys() - one for one in EACH), {*SHARING}],
    ids=lambda live: ",".join(sorted(live)),
)
def test_collecting_leaves_what_live_studies_need_and_nothing_else(live: set[str]) -> None:
    store = copy_of(everything())
    dead = sorted(SHARING.keys() - live)
    for name in dead:
        collect(store, 0, forget=name)
    needed = kept_for(live)
    assert entries(store) == needed
    assert list(find_faults(store)) == []
    for name in live:
        replay(store, study_of(name))
    assert entries(store) == needed, "nothing had to be made again"


@pytest.mark.slow
def test_collecting_twice_or_with_nothing_to_collect_removes_nothing() -> None:
    store = copy_of(everything())
    assert collect(store, 0) == []
    assert collect(store, 0, forget="rewound") != []
    assert collect(store, 0) == []
    assert entries(store) == kept_for(SHARING.keys() - {"rewound"})


@pytest.mark.slow
def test_dry_run_says_what_would_go_and_removes_nothing() -> None:
    store = copy_of(everything())
    before = {found.path: found for found in store.files.files("")}
    would = collect(store, 0, forget="plain", dry_run=True)
    assert {found.path: found for found in store.files.files("")} == before
    went = collect(store, 0, forget="plain")
    assert [garbage.key for garbage in would] == [garbage.key for garbage in went]
    gone = {found for garbage in went for found in garbage.files}
    assert before.keys() - {f.path for f in store.files.files("")} == {found.path for found in gone}


def test_probes_and_samples_that_no_plan_has_are_needed_by_their_records() -> None:
    """`lth rewind` and optuna searches leave trials that are not in the study's axes."""
    store, probed = Store(), study_of("twins")
    for _ in search(probed, Trainer(store)):
        pass
    before = entries(store)
    assert not store.digests("studies")
    collect(store, 0)
    assert entries(store) == before
    collect(store, 0, forget="twins")
    assert entries(store) == set()


def test_further_rewind_points_of_a_live_training_stay() -> None:
    store, study = Store(), study_of("shallow")
    register(store, study)
    (trial,) = make_plan(study).trials
    list(find_tickets(trial.spec, Trainer(store), keep=[5, 15]))
    assert len(store.digests("points")) == 2
    collect(store, 0)
    assert len(store.digests("points")) == 2
    collect(store, 0, forget="shallow")
    assert entries(store) == set()


def test_dry_run_needs_no_right_to_write() -> None:
    class ReadOnly(MemoryFiles):
        locked = False

        def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
            if self.locked:
                raise StoreError(f"cannot write {path} (Read-only file system)")
            super().write(path, content)

        def delete(self, path: str, *others: str) -> None:
            if self.locked:
                raise StoreError(f"cannot delete {path} (Read-only file system)")
            super().delete(path, *others)

    files = ReadOnly()
    sweep(Store(files), study_of("plain"))
    Store(files).put("trainings", NOBODYS, {})
    files.locked = True
    would = collect(Store(files), 0, dry_run=True)
    assert [garbage.key for garbage in would] == [("trainings", NOBODYS)]
    with pytest.raises(StoreError, match="Read-only"):
        collect(Store(files), 0)


# Age, by the store's clock


@pytest.fixture
def on_disk(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    sweep(store, study_of("plain"))
    store.put("trainings", NOBODYS, {}, {"state.safetensors": b"x"})
    return store


def age(store: Store, seconds: float) -> None:
    for found in store.files.files(""):
        os.utime(store.files.root / found.path, 2 * (time.time() - seconds,))  # type: ignore[attr-defined]


def test_what_is_young_stays_until_it_is_old(on_disk: Store) -> None:
    age(on_disk, 3600)
    assert collect(on_disk, DAY, dry_run=True) == collect(on_disk, DAY) == []
    age(on_disk, 2 * DAY)
    assert [garbage.key for garbage in collect(on_disk, DAY)] == [("trainings", NOBODYS)]
    assert list((on_disk.files.root / "trainings").glob("nobodys*")) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("skew", [-30 * DAY, 30 * DAY])
@pytest.mark.slow
def test_a_machine_whose_clock_is_wrong_collects_the_same(
    on_disk: Store, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew)
    assert collect(on_disk, DAY) == []
    monkeypatch.undo()
    age(on_disk, 2 * DAY)
    monkeypatch.setattr(time, "time", lambda: right() + skew)
    assert len(collect(on_disk, DAY)) == 1


# What is left behind


@pytest.mark.slow
def test_what_was_left_half_written_goes_and_what_is_at_work_stays() -> None:
    store = copy_of(everything())
    whole = {found.path for found in store.files.files("")}
    study = parse_study(tiny_fields({"name": "running", "axes.seed": [7]}))
    register(store, study)
    begun = [job.digest for trial in make_plan(study).trials for job in trial.jobs()]
    done = store.digests("trainings")
    for digest in (begun[0], done[0], NOBODYS):
        store.put("checkpoints", digest, {"step": 1}, {"run.safetensors": b"x"})
        store.files.write(f"claims/{digest}/claim.json", b"{}")
    for name in ("running", "nobodys", "plain"):
        store.put("status", status_key(name), {"state": "running"})
    store.put("speeds", "0" * 64, {"seconds_per_step": 1.0})
    kept = {found.path for found in store.files.files("")} - whole
    kept = {
        path
        for path in kept
        if done[0] not in path and NOBODYS not in path and "nobodys" not in path
    }

    store.files.write(f"trainings/{done[0]}/{SCRATCH}", b"half")
    store.files.write(f"trainings/{done[0]}/state-0123456789abcdef.safetensors", b"replaced")
    store.files.write(f"trainings/{begun[0]}/state-0123456789abcdef.safetensors", b"no entry.json")
    store.files.write(f"points/{SCRATCH}/entry.json", b"half deleted")
    collect(store, 0)
    assert {found.path for found in store.files.files("")} == whole | kept


@pytest.mark.slow
def test_torn_entry_of_a_live_study_is_left_to_verify() -> None:
    store = copy_of(everything())
    victim = store.digests("trainings")[0]
    store.files.write(f"trainings/{victim}/entry.json", b"torn")
    assert collect(store, 0) == []
    assert [fault.digest for fault in find_faults(store) if fault.kind == "trainings"] == [victim]


# What happens meanwhile


@pytest.mark.slow
def test_killed_anywhere_it_leaves_live_studies_whole_and_can_go_on() -> None:
    class Killed(MemoryFiles):
        left = 10**6

        def delete(self, path: str, *others: str) -> None:
            for each in (path, *others):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                super().delete(each)

    needed, cuts, done = kept_for({"shallow", "twins"}), 0, False
    while not done:
        files = Killed()
        for found in everything().files.files(""):
            files.write(found.path, everything().files.read(found.path) or b"")
        store = Store(files)
        for kind, key in entries(store) - needed:
            if kind in ("studies", "trials"):
                store.delete(kind, key)
        files.left = cuts
        try:
            collect(store, 0)
            done = True
        except KeyboardInterrupt:
            cuts += 3
        assert {key for key in needed if store.has(*key)} == needed
        files.left = 10**6
        collect(store, 0)
        assert entries(store) == needed
        assert list(find_faults(store)) == []
    assert cuts > 20


def test_entry_that_is_written_again_meanwhile_stays() -> None:
    class Busy(MemoryFiles):
        """Another process writes the entry when it is looked at for the last time."""

        def files(self, path: str) -> Iterator[StoredFile]:
            if path == f"trainings/{NOBODYS}":
                time.sleep(0.01)
                self.write(f"trainings/{NOBODYS}/entry.json", b"new")
            return super().files(path)

    store = Store(Busy())
    store.put("trainings", NOBODYS, {})
    assert collect(store, 0) == []
    assert store.files.read(f"trainings/{NOBODYS}/entry.json") == b"new"


@pytest.mark.parametrize(("step", "lost"), [("read_entries", 0), ("_delete", 1)])
def test_study_that_comes_while_it_collects_finds_what_it_reuses(
    step: str, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the removal, or once the removal has begun."""
    store, real = copy_of(everything()), getattr(housekeeping, step)
    for name in SHARING:
        for key in entries_of(store, name):
            store.delete(*key)
    whole = entries(store)

    def comes(*arguments: Any) -> Any:
        if not store.digests("studies"):
            register(store, study_of("rewound"))
        return real(*arguments)

    monkeypatch.setattr(housekeeping, step, comes)
    monkeypatch.setattr(housekeeping, "SEARCH_INTERVAL", 0)
    went = {garbage.key for garbage in collect(store, 0)}
    assert entries(store) == (whole - went) | {("studies", store.digests("studies")[0])}
    needed = {key for key in kept_for({"rewound"}) if key[0] not in ("studies", "trials")}
    assert len(needed - entries(store)) <= lost
    assert whole - needed == went - needed


@pytest.mark.slow
def test_trial_in_its_first_training_keeps_its_checkpoint_and_rewind_point(tiny: StudyOf) -> None:
    """A sample of a search, or a probe: what plans tell does not name it."""
    store, study = Store(), tiny({"base.rewind": "10it", "axes.seed": [0]})
    trainer = Trainer(store, checkpoint_every=0)
    (trial,) = make_plan(study).trials
    waiting, going_on = threading.Event(), threading.Event()

    class Stops:
        def is_set(self) -> bool:
            if store.digests("points"):
                waiting.set()
                going_on.wait(60)
            return False

    trainer.ending = Stops()  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(list, run_trial(trial, context_of(study), trainer))
        assert waiting.wait(60)
        before = entries(store)
        collect(store, 0)
        assert entries(store) == before
        assert {kind for kind, _ in before} >= {"checkpoints", "points", "trials"}
        going_on.set()
        assert len(training.result()) == 3


def test_study_whose_name_ends_as_scratch_does_keeps_its_status() -> None:
    store, study = Store(), parse_study(tiny_fields({**ONE, "name": "x.tmp"}))
    sweep(store, study)
    store.put("status", status_key("x.tmp"), {"state": "running"})
    store.files.write(f"status/{SCRATCH}/entry.json", b"half deleted")
    before = entries(store)
    assert [garbage.key for garbage in collect(store, 0)] == [("status", SCRATCH)]
    assert entries(store) == before


# What cannot be read


def test_study_of_another_schema_is_named_and_nothing_is_removed() -> None:
    store = copy_of(everything())
    store.put("studies", OLD, {"schema": 1, "study": {"name": "old"}})
    store.put("trainings", NOBODYS, {})
    before = entries(store)
    with pytest.raises(
        StoreError,
        match=r"studies/old\.[01]* cannot be read \(schema: is another version's, but got 1; known: .*"
        r"so the needs of old are not known; sweep it again, or delete it with --forget old\.[01]*",
    ):
        collect(store, 0)
    assert entries(store) == before
    assert ("trainings", NOBODYS) in {garbage.key for garbage in collect(store, 0, forget=OLD)}
    assert entries(store) == before - {("studies", OLD), ("trainings", NOBODYS)}


@pytest.mark.parametrize("harm", ["torn", "field"])
def test_study_or_trial_that_is_broken_is_named(harm: str, tiny: StudyOf) -> None:
    store = copy_of(everything())
    if harm == "torn":
        store.files.write(f"studies/{store.digests('studies')[0]}/entry.json", b"torn")
    else:
        trial = store.get("trials", store.digests("trials")[0])
        assert trial is not None
        spec = {**trial.meta["spec"], "levels": -1}
        store.put("trials", LOST, {**trial.meta, "study": "lost", "spec": spec})
    with pytest.raises(StoreError, match=r"cannot be read \(.*--forget"):
        collect(store, 0)


def test_forgetting_one_of_two_versions_of_a_study_leaves_the_other() -> None:
    store = Store()
    one, other = study_of("plain"), parse_study(tiny_fields({"name": "plain", "axes.seed": [1]}))
    sweep(store, one)
    alone = entries(store)
    sweep(store, other)
    collect(store, 0, forget=f"plain.{other.digest()}")
    assert entries(store) == alone
    with pytest.raises(SpecError, match=r"--forget: must be a study of the store.*known: plain$"):
        collect(store, 0, forget="nobody")


def test_study_that_is_being_swept_is_not_forgotten() -> None:
    store, study = Store(), study_of("plain")
    sweep(store, study)
    before = entries(store)
    status = Status(
        state="running", host="node-1", process=123, trials=1, done=0, running=1, failed=0,
        waiting=0, levels_done=0, levels=3, levels_per_minute=0.0,
    )  # fmt: skip
    save_status(store, "plain", status)
    with pytest.raises(SpecError, match=r"--forget: must not be running, as `lth status plain`"):
        collect(store, 0, forget="plain")
    assert entries(store) >= before
