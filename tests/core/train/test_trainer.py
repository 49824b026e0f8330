import logging
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import After, jobs_of, same, timeless

from lth_core import ModelSpec, TicketSpec, Trainer, data, find_tickets, models, open_store
from lth_core.errors import PreemptedError, SpecError, StoreError
from lth_core.jobs.recipes import Job
from lth_core.masks import State
from lth_core.prune import SCORES, PrunableNetwork, Scores
from lth_core.results import LevelResult
from lth_core.seeds import generator
from lth_core.store import Store
from lth_core.train.builder import PreparedJob
from lth_core.train.checkpoint import Checkpoint
from lth_core.train.loop import Run

Final = Callable[[Job], State]


def numbers(levels: list[LevelResult]) -> list[dict[str, object]]:
    return [timeless(record) for level in levels for record in level.records]


def stopped(job: Job, step: int) -> State:
    """The run stopped at a step, by a trainer that knows nothing yet."""
    return Trainer().final(replace(job, last=step, keep=()))[0]


def test_masks_are_found_in_fp32_with_deterministic_kernels(
    small: TicketSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a GPU convolves in tf32, with kernels that may differ from call to call."""
    magnitude, seen = SCORES["magnitude"], []

    def watched(network: PrunableNetwork) -> Scores:
        cudnn = torch.backends.cudnn
        seen.append((cudnn.allow_tf32, cudnn.deterministic, torch.is_autocast_enabled("cpu")))
        return magnitude(network)

    monkeypatch.setitem(SCORES, "magnitude", watched)
    train = replace(small.train, precision="bf16", steps=10)
    spec = replace(small, train=train, branches=("ticket",), levels=1, rewind=0)
    list(find_tickets(spec, Trainer(device="cpu")))
    assert seen == [(False, True, False)]


def test_trainer_takes_a_store_or_its_place_and_a_known_device(tmp_path: Path) -> None:
    Trainer(tmp_path / "store").store.put("trainings", "0" * 64, {})
    assert Trainer(str(tmp_path / "store")).store.has("trainings", "0" * 64)
    with pytest.raises(SpecError, match=r"^device: cannot be used .*, but got 'gpu'"):
        Trainer(device="gpu")


@pytest.fixture(scope="module")
def tiny(small: TicketSpec) -> TicketSpec:
    return replace(small, branches=("ticket", "random_mask"))


# The rewind point


def test_rewind_point_is_the_state_of_a_run_stopped_there(
    normed: TicketSpec, trainer: Trainer
) -> None:
    dense, ticket = jobs_of(normed)[0]["dense"], jobs_of(normed)[1]["ticket"]
    list(find_tickets(normed, trainer))
    point = trainer.start(ticket)
    assert same(point, stopped(dense, 7))
    assert not same(point, stopped(dense, 6))
    assert not same(point, stopped(dense, 8))


def test_rewinding_restores_buffers_too(normed: TicketSpec, trainer: Trainer) -> None:
    ticket = next(iter(find_tickets(replace(normed, levels=0), trainer)))
    job = jobs_of(normed)[1]["ticket"]
    point, end = trainer.start(job), trainer.final(ticket.results["dense"].job)[0]
    assert point["norm.num_batches_tracked"] == 7
    assert end["norm.num_batches_tracked"] == 40
    assert not torch.equal(point["norm.running_mean"], end["norm.running_mean"])
    # Step 7 to 40 after rewinding, not another 40 or on top of the dense run's.
    assert trainer.final(job)[0]["norm.num_batches_tracked"] == 40


@pytest.mark.slow
def test_run_resumed_from_its_rewind_point_ends_where_it_would_have(
    normed: TicketSpec, final: Final
) -> None:
    """Weights before step k+1, rate and order of step k+1: plain SGD carries nothing else."""
    train = replace(normed.train, optimizer="sgd", lr=0.1, schedule="cosine", warmup=10)
    dense = jobs_of(replace(normed, train=train))[0]["dense"]
    for k in (7, 21, 30):
        assert same(final(replace(dense, start=dense.at(k), first=k, keep=())), final(dense))
    wrong = replace(dense, start=dense.at(21), first=22, keep=())
    assert not same(final(wrong), final(dense))


def test_training_never_overwrites_what_it_started_from(
    small: TicketSpec, trainer: Trainer
) -> None:
    spec = replace(small, rewind=0)
    dense = jobs_of(spec)[0]["dense"]
    dataset = data.load(dense.data, torch.device("cpu"))
    theta = models.build(spec.model, dataset.shape, 10, generator(spec.seed, "init")).state_dict()
    for level in find_tickets(spec, trainer):
        assert same(trainer.start(dense), theta)
        kept = level.mask["fc1.weight"]
        assert torch.equal(level.ticket.start["fc1.weight"][kept], theta["fc1.weight"][kept])
        point = trainer.final(dense.at(7))[0]
        before = {name: value.clone() for name, value in point.items()}
        trainer([replace(dense, start=dense.at(7), first=7, level=level.level)])
        assert same(trainer.final(dense.at(7))[0], before)


def test_missing_rewind_point_of_a_stored_run_is_trained_again(tiny: TicketSpec) -> None:
    trainer, later = Trainer(), replace(tiny, rewind=12, levels=1)
    list(find_tickets(tiny, trainer))
    job = jobs_of(later)[0]["dense"]
    assert not trainer.known(job)
    levels = list(find_tickets(later, trainer))
    assert trainer.known(job)
    assert levels[0].results["dense"].reused
    assert numbers(levels) == numbers(list(find_tickets(later, Trainer())))


# What an interrupted run, another version or another process has left


class Counting(Trainer):
    """Notes the jobs of its runs, and the claims that were held meanwhile."""

    def __init__(self, store: Store, ends_after: int = 10**6) -> None:
        super().__init__(store, "cpu")
        self.runs, self.claims = list[str](), set[str]()
        self.ending = After(ends_after)  # type: ignore[assignment]

    def _prepare(self, job: Job, points: Sequence[int] = ()) -> PreparedJob:
        self.runs.append(job.digest)
        self.claims |= set(self.store.digests("claims"))
        return super()._prepare(job, points)


def dense_of(spec: TicketSpec, *keep: int) -> Job:
    return replace(jobs_of(spec)[0]["dense"], keep=keep)


def undisturbed(job: Job) -> dict[str, Any]:
    """What the store has of a job, but for its time, when nothing comes in between."""
    store = Store()
    Trainer(store)([job])
    return content_of(store)


def content_of(store: Store) -> dict[str, Any]:
    entries = {(kind, digest): store.get(kind, digest)
               for kind in ("trainings", "points") for digest in store.digests(kind)}  # fmt: skip
    return {
        digest: ({**e.meta, "seconds": 0, "finished_at": 0}, [b["sha256"] for b in e.blobs.values()])
        for (_, digest), e in entries.items() if e
    }  # fmt: skip


def preempted(store: Store, job: Job, steps: int) -> None:
    with pytest.raises(PreemptedError):
        Counting(store, steps)([job])
    assert len(store.digests("checkpoints")) == 1


@pytest.mark.parametrize("at", [5, 10, 31])
def test_run_resumes_behind_a_rewind_point_only_if_that_is_stored(
    at: int, tiny: TicketSpec
) -> None:
    """One trainer is interrupted at a step; another, which rewinds to step 10, resumes."""
    store = Store()
    later = Counting(store)
    preempted(store, dense_of(tiny), at - 1)
    job = dense_of(tiny, 10)
    taken = list[int]()
    later_restore = Run.restore

    def restore(run: Run, checkpoint: Checkpoint) -> None:
        taken.append(checkpoint.step)
        later_restore(run, checkpoint)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "restore", restore)
        (result,) = later([job])
    assert taken == ([at] if at <= 10 else [])
    assert not result.reused
    assert later.runs == [job.digest]
    assert later.known(job)
    assert content_of(store) == undisturbed(job)
    assert not store.digests("checkpoints")


def test_lost_rewind_points_are_made_under_a_claim_and_only_once(tiny: TicketSpec) -> None:
    store, job = Store(), dense_of(tiny, 5, 12)
    Trainer(store)([replace(job, keep=())])
    ready = threading.Barrier(2)
    trainers = [Counting(store), Counting(store)]

    def ask(trainer: Counting) -> None:
        ready.wait()
        assert trainer([job])[0].reused

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, trainers))
    assert trainers[0].runs + trainers[1].runs == [job.digest]
    assert trainers[0].claims | trainers[1].claims == {job.digest}
    assert content_of(store) == undisturbed(job)


def test_making_lost_rewind_points_can_be_interrupted_and_leaves_nothing_behind(
    tiny: TicketSpec,
) -> None:
    store, job = Store(), dense_of(tiny, 5, 12)
    Trainer(store)([replace(job, keep=())])
    for steps in (2, 5):  # before and behind the first point
        preempted(store, job, steps)
    trainer = Counting(store)
    assert trainer([job])[0].reused
    assert content_of(store) == undisturbed(job)
    assert not store.digests("checkpoints")


def test_training_that_another_version_stored_without_a_field_is_repeated(tiny: TicketSpec) -> None:
    store, job = Store(), dense_of(tiny, 5)
    Trainer(store)([job])
    entry = store.get("trainings", job.digest)
    assert entry is not None
    little = {key: value for key, value in entry.meta.items() if key != "layers"}
    store.put("trainings", job.digest, little, {name: entry.blob(name) for name in entry.blobs})
    trainer = Counting(store)
    assert not trainer.known(job)
    assert not trainer([job])[0].reused
    assert trainer.known(job)
    assert content_of(store) == undisturbed(job)


def test_frozen_trainer_names_the_commands_that_restore_a_lost_training(tiny: TicketSpec) -> None:
    for kept in ((), (5,)):
        store, job = Store(), dense_of(tiny, 5)
        if kept:
            Trainer(store)([replace(job, keep=())])
        with pytest.raises(
            StoreError,
            match=f"lost training {job.digest}.*`lth store verify --remove`.*sweep again",
        ):
            Trainer(store, frozen=True)([job])
        assert not store.digests("claims")


# A result is a function of its spec


def test_same_spec_gives_bit_identical_results(
    small: TicketSpec, search: list[LevelResult]
) -> None:
    fresh = Trainer()
    again = list(find_tickets(small, fresh))
    assert numbers(again) == numbers(search)
    for level, other in zip(again, search, strict=True):
        for branch, result in level.results.items():
            assert not result.reused
            assert result.training.curves == other.results[branch].training.curves
            state, mask = fresh.final(result.job)
            state_then, mask_then = other.trainer.final(result.job)
            assert same(state, state_then)
            assert same(mask, mask_then)


def test_another_seed_gives_other_weights_order_and_masks(
    small: TicketSpec, search: list[LevelResult], trainer: Trainer
) -> None:
    other = list(find_tickets(replace(small, seed=1), trainer))
    for one, two in zip(search, other, strict=True):
        for branch, result in one.results.items():
            a, b = trainer.final(result.job)[0], trainer.final(two.results[branch].job)[0]
            assert not torch.equal(a["fc1.weight"], b["fc1.weight"])
            if one.level:
                assert result.training.mask_digest != two.results[branch].training.mask_digest
    starts = [trainer.start(jobs_of(replace(small, seed=seed))[0]["dense"]) for seed in (0, 1)]
    assert not (starts[0]["fc1.weight"] == starts[1]["fc1.weight"]).any()
    # The order alone: the same start and mask under another replicate's order end elsewhere.
    dense = jobs_of(small)[0]["dense"]
    assert not same(trainer.final(dense)[0], trainer.final(replace(dense, seed=1))[0])


def test_search_leaves_every_global_generator_alone(normed: TicketSpec) -> None:
    before = torch.random.get_rng_state(), random.getstate(), str(np.random.get_state())
    list(find_tickets(normed, Trainer()))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]


def test_global_seed_does_not_enter_the_result(normed: TicketSpec, trainer: Trainer) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        other = list(find_tickets(normed, Trainer()))
    assert numbers(other) == numbers(list(find_tickets(normed, trainer)))


@pytest.mark.slow
def test_one_trainer_serves_networks_of_other_shapes(tiny: TicketSpec, trainer: Trainer) -> None:
    for widths in ((8,), (9, 4)):
        spec = replace(tiny, model=ModelSpec(widths=widths), levels=1)
        assert numbers(list(find_tickets(spec, trainer))) == numbers(list(find_tickets(spec)))


# The store remembers


def test_second_search_trains_nothing(tiny: TicketSpec, tmp_path: Path) -> None:
    first = list(find_tickets(tiny, Trainer(open_store(str(tmp_path)))))
    measured = numbers(first)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = list(find_tickets(tiny, Trainer(open_store(str(tmp_path)))))
    assert [r.reused for level in first for r in level.results.values()] == [False] * 5
    assert [r.reused for level in second for r in level.results.values()] == [True] * 5
    assert numbers(second) == measured
    for one, two in zip(first, second, strict=True):
        assert [r.training for r in one.results.values()] == [
            r.training for r in two.results.values()
        ]
        assert one.ticket.digest == two.ticket.digest
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path.suffix for path in written if path.is_file()} == {".json", ".safetensors"}


def test_deeper_search_and_other_branches_train_only_what_is_new(tiny: TicketSpec) -> None:
    trainer = Trainer()
    list(find_tickets(tiny, trainer))
    more = replace(tiny, levels=3, branches=("ticket", "reinit"))
    reused = {
        (level.level, branch): result.reused
        for level in find_tickets(more, trainer)
        for branch, result in level.results.items()
    }
    known = {(0, "dense"), (1, "ticket"), (2, "ticket")}
    assert {key for key, was in reused.items() if was} == known


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.fixture(scope="module")
def stored(tiny: TicketSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the search `tiny`; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("stored")
    list(find_tickets(tiny, Trainer(open_store(str(folder)))))
    return folder


@pytest.fixture(scope="module")
def deeper(tiny: TicketSpec) -> TicketSpec:
    """A level more than `tiny`, which starts from the states of its last."""
    return replace(tiny, levels=3)


@pytest.fixture(scope="module")
def expected(deeper: TicketSpec) -> list[dict[str, object]]:
    """The numbers of `deeper`, trained without a store."""
    return numbers(list(find_tickets(deeper)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "files", ["trainings/*/entry.json", "trainings/*/state*", "trainings/*/mask*", "points/*/*"]
)
@pytest.mark.parametrize("damage", [cut, flip, None])
def test_damaged_entries_are_reported_and_recomputed_to_the_same_numbers(
    files: str, damage: Callable[[bytes], bytes] | None, stored: Path, deeper: TicketSpec,
    expected: list[dict[str, object]], tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    damaged = list(tmp_path.glob(files))
    assert damaged
    for path in damaged:
        if damage:
            path.write_bytes(damage(path.read_bytes()))
        else:
            path.unlink()
    with caplog.at_level(logging.WARNING, "lth"):
        found = list(find_tickets(deeper, Trainer(open_store(str(tmp_path)))))
    # An entry that was never there is no fault; one without its blob is.
    missing = damage is None and not ("state" in files or "mask" in files)
    assert missing or any("computed again" in message for message in caplog.messages)
    assert numbers(found) == expected
