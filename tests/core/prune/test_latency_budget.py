"""Budgets of milliseconds: measurements vary, but a mask is found once and is within the budget."""

import re
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import nn

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import SpecError, StoreError
from lth_core.jobs.recipes import Job, Pruned, latencies_of
from lth_core.masks import Mask
from lth_core.models import latency as models_latency
from lth_core.resolve import check_latency, resolve
from lth_core.store import Store
from lth_core.store.locks import claimed

SPEC = TicketSpec(
    model=ModelSpec(widths=(24, 16)),
    train=TrainSpec(steps=2, evaluate_every=2, lr=0.01),
    prune=PruneSpec(when="before", structure="neurons", scope="global",
                    budget={"latency_ms": 1.0}),
    levels=1,
    branches=("ticket",),
)  # fmt: skip


class Clock:
    """A machine on which a network takes a microsecond a parameter, more or less."""

    def __init__(self, seed: int = 0, noise: float = 0.2) -> None:
        self.stream, self.noise = torch.Generator().manual_seed(seed), noise
        self.measured = list[float]()

    def __call__(
        self, networks: list[nn.Module], shape: tuple[int, ...], **_: object
    ) -> list[float]:
        for network in networks:
            factor = 1 + self.noise * (2 * float(torch.rand((), generator=self.stream)) - 1)
            self.measured.append(factor * 1e-3 * sum(p.numel() for p in network.parameters()))
        return self.measured[-len(networks) :]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return running(monkeypatch, Clock())


def running(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Clock:
    monkeypatch.setattr(models_latency, "latency", clock)
    return clock


def ticket_job(spec: TicketSpec) -> Job:
    from lth_core.lottery import levels

    *_, last = levels(resolve(spec))
    return last["ticket"]


def mask(spec: TicketSpec, trainer: Trainer) -> Mask:
    return trainer.mask(ticket_job(spec).mask, ticket_job(spec))


def neurons(found: Mask) -> list[int]:
    return [int(m.any(1).sum()) for m in found.values()]


@pytest.mark.parametrize("seed", range(5))
def test_kept_network_was_measured_within_the_budget_and_the_next_larger_above(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, trainer = running(monkeypatch, Clock(seed)), Trainer()
    job = ticket_job(SPEC)
    kept = neurons(trainer.mask(job.mask, job))
    (entry,) = (trainer.store.get("measures", d) for d in trainer.store.digests("measures"))
    assert entry
    latencies = {tuple(map(int, key.split()[1:])): ms for key, ms in entry.meta.items()}
    assert sorted(latencies.values()) == sorted(clock.measured)
    assert latencies[tuple(kept[:2])] <= 1.0
    larger = [ms for sizes, ms in latencies.items() if sum(sizes) == sum(kept[:2]) + 1]
    assert larger
    assert min(larger) > 1.0


def test_bisection_measures_each_network_once(clock: Clock) -> None:
    mask(SPEC, Trainer())
    assert len(clock.measured) <= 2 + (24 + 16).bit_length()


def test_a_network_within_the_budget_is_not_pruned(clock: Clock) -> None:
    easy = replace(SPEC, prune=replace(SPEC.prune, budget={"latency_ms": 1000.0}))
    assert all(bool(m.all()) for m in mask(easy, Trainer()).values())


def test_another_process_finds_the_same_mask_without_measuring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    running(monkeypatch, Clock(seed=0))
    first = mask(SPEC, Trainer(store))
    slower = running(monkeypatch, Clock(seed=1, noise=0.9))
    for frozen in (False, True):
        again = mask(SPEC, Trainer(store, frozen=frozen))
        assert all(torch.equal(first[name], again[name]) for name in first)
    assert slower.measured == []
    for digest in store.digests("measures"):
        store.delete("measures", digest)
    with pytest.raises(StoreError, match="the store has lost measures/"):
        mask(SPEC, Trainer(store, frozen=True))


def test_a_process_waits_for_the_one_that_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, Clock())
    job, store = ticket_job(SPEC), Store()
    assert isinstance(job.mask, Pruned)
    first = Trainer(store)
    with first.stored_latency(job.mask, job) as latency:
        with claimed(store.files, job.mask.digest, lambda: True) as acquired:
            assert not acquired
        assert not store.has("measures", job.mask.digest)
        latency({}, "cpu")
    assert store.has("measures", job.mask.digest)


def test_networks_that_share_a_recipe_of_their_masks_are_measured_each(clock: Clock) -> None:
    """A mask that is made from no training is one recipe for all networks."""
    wide = replace(SPEC, model=ModelSpec(widths=(48, 32)))
    narrow_job, wide_job = ticket_job(SPEC), ticket_job(wide)
    assert narrow_job.mask.digest == wide_job.mask.digest
    trainer, alone = Trainer(), Trainer()
    expected = sum(neurons(mask(wide, alone))[:2])
    mask(SPEC, trainer)
    assert sum(neurons(mask(wide, trainer))[:2]) == pytest.approx(expected, abs=8)  # noisy clock
    keys = {latencies_of(job.mask, job).digest for job in (narrow_job, wide_job)}  # type: ignore[arg-type]
    assert set(trainer.store.digests("measures")) == keys


def test_an_interrupted_search_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count()

    def interrupted(networks: list[nn.Module], shape: tuple[int, ...], **_: object) -> list[float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return [0.5] * len(networks)

    monkeypatch.setattr(models_latency, "latency", interrupted)
    store = Store()
    with pytest.raises(KeyboardInterrupt):
        mask(replace(SPEC, prune=replace(SPEC.prune, budget={"latency_ms": 0.5})), Trainer(store))
    assert store.digests("measures") == []
    assert list(store.files.files("claims")) == []


def test_budget_below_the_smallest_network_is_refused_before_training(clock: Clock) -> None:
    # Widths of its own: a process measures the smallest network of each once.
    own, prune = ModelSpec(widths=(23, 15)), replace(SPEC.prune, budget={"latency_ms": 0.01})
    tight = replace(SPEC, model=own, prune=prune)
    trainer = Trainer()
    with pytest.raises(SpecError) as caught:
        next(find_tickets(tight, trainer))
    (smallest,) = clock.measured
    error = re.fullmatch(
        r"prune\.budget\.latency_ms: must be at least (\S+), the cost .*, but got 0\.01",
        str(caught.value),
    )
    assert error
    assert float(error[1]) == pytest.approx(smallest, rel=2e-3)
    assert trainer.store.digests("trainings") == []


def test_a_resolved_spec_is_measured_no_second_time(clock: Clock) -> None:
    spec = resolve(replace(SPEC, model=ModelSpec(widths=(20, 12))))
    assert clock.measured == []
    next(find_tickets(spec))
    assert clock.measured == []
    check_latency(spec)
    assert len(clock.measured) == 1
    check_latency(replace(spec, prune=PruneSpec()))
    assert len(clock.measured) == 1


def test_budget_on_a_gpu_that_is_absent_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_gpu = replace(SPEC, prune=replace(SPEC.prune, budget={"cuda_latency_ms": 1.0}))
    with pytest.raises(SpecError, match=r"prune\.budget\.cuda_latency_ms: is measured on a GPU"):
        next(find_tickets(on_gpu))


def test_levels_do_not_multiply_milliseconds() -> None:
    for cost in ("latency_ms", "cuda_latency_ms"):
        prune = replace(SPEC.prune, budget={cost: 1.0})
        with pytest.raises(SpecError, match="levels: must be at most 1 beside a budget of milli"):
            resolve(replace(SPEC, prune=prune, levels=2))


@pytest.mark.slow
def test_real_measurements_find_a_network_between_the_smallest_and_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models_latency, "SEARCH_SECONDS", 0.0)
    wide, trainer = replace(SPEC, model=ModelSpec(widths=(5_000, 16))), Trainer()
    job = ticket_job(wide)
    latency = trainer.channel_latency(job, {})
    smallest = latency({"fc1.weight": torch.arange(5_000) == 0}, "cpu")
    budget = {"latency_ms": (smallest * latency({}, "cpu")) ** 0.5}
    found = mask(replace(wide, prune=replace(SPEC.prune, budget=budget)), trainer)
    assert 1 < neurons(found)[0] < 5_000
