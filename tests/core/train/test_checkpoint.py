"""A search that is interrupted anywhere, any number of times, ends as one that never was."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toys import After

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import PreemptedError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.resolve import resolve
from lth_core.store import Store
from lth_core.train.checkpoint import checkpoint_step, load_checkpoint, moment_fits

STEPS = 16
MLP, CONV = ModelSpec(widths=(8,), dropout=0.3), ModelSpec(name="toys:batch_norm_net")
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
DURING = {"when": "during", "begin": "4it", "end": "12it", "every": "4it"}
CASES: dict[str, dict[str, Any]] = {
    "adam, dropout": {"model": MLP},
    "nesterov, cosine": {"train": {**SGD, "schedule": "cosine", "warmup": "5it"}},
    "bf16": {"train": {"precision": "bf16"}},
    "test data at the best": {"train": {"evaluate_every": 1, "evaluate_test": "best", "lr": 0.05}},
    "conv, batch norm, augmented": {"model": CONV, "data": {"augment": "crop_flip"}, "train": SGD},
    "gmp": {"prune": DURING, "model": MLP},
    "set": {"prune": {**DURING, "grow": "random", "scope": "erk"}},
    "rigl": {"prune": {**DURING, "grow": "gradient", "scope": "erk"}, "train": SGD},
    "rigl, conv": {"prune": {**DURING, "grow": "gradient"}, "model": CONV},
    "edge-popup": {"prune": {"when": "never", "score": "edge-popup"}, "train": SGD},
    "supermask": {"prune": {"when": "never", "score": "supermask", "lr": 0.1}},
}


def spec_of(case: dict[str, Any]) -> TicketSpec:
    during = case.get("prune", {}).get("when", "after")
    return TicketSpec(
        data=DataSpec(**{"fraction": 0.2, **case.get("data", {})}),
        model=case.get("model", ModelSpec(widths=(8,))),
        train=TrainSpec(
            **{"steps": STEPS, "evaluate_every": 10, "batch_size": 32, **case.get("train", {})}
        ),
        prune=PruneSpec(**{"fraction": 0.5, **case.get("prune", {})}),
        levels=1, rewind=0 if during == "never" else 7, branches=("ticket",),
    )  # fmt: skip


def searched(trainer: Trainer, spec: TicketSpec) -> list[dict[str, Any]]:
    """What a search tells, but for its time."""
    rows = [row for level in find_tickets(spec, trainer) for row in level.records]
    return [
        {k: v for k, v in r.items() if k not in ("train_seconds", "search_seconds", "reused")}
        for r in rows
    ]


def kept(store: Store) -> dict[tuple[str, str], Any]:
    """Each training and rewind point: curves, and digests of weights, buffers and mask."""
    found = {}
    for kind in ("trainings", "points"):
        for digest in store.digests(kind):
            entry = store.get(kind, digest)
            assert entry is not None
            about = {k: v for k, v in entry.meta.items() if k not in ("seconds", "finished_at")}
            found[kind, digest] = about, {name: b["sha256"] for name, b in entry.blobs.items()}
    return found


UNDISTURBED: dict[str, tuple[list[dict[str, Any]], dict[tuple[str, str], Any]]] = {}


def undisturbed(name: str) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Any]]:
    if name not in UNDISTURBED:
        store = Store()
        rows = searched(Trainer(store, "cpu"), spec_of(CASES[name]))
        UNDISTURBED[name] = rows, kept(store)
    return UNDISTURBED[name]


QUICK = ("adam, dropout", "conv, batch norm, augmented", "rigl", "edge-popup")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES],
)
@settings(max_examples=3)
@given(steps=st.lists(st.integers(0, STEPS), min_size=1, max_size=6))
@example(steps=[0] * 2 * STEPS)
def test_interrupted_search_comes_out_the_same_to_the_bit(name: str, steps: list[int]) -> None:
    """Steps: between an interruption and the next, each in a process of its own."""
    spec, store, times = spec_of(CASES[name]), Store(), 0
    rows: list[dict[str, Any]] = []
    for each in [*steps, 10 * STEPS]:
        trainer = Trainer(store, "cpu")
        trainer.ending = After(each)  # type: ignore[assignment]
        try:
            rows = searched(trainer, spec)
            break
        except PreemptedError:
            times += 1
            assert len(store.digests("checkpoints")) == 1
    assert times > 0
    assert rows == undisturbed(name)[0]
    assert kept(store) == undisturbed(name)[1]
    assert not store.digests("checkpoints")


def test_damaged_checkpoint_is_ignored_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    name, store = "adam, dropout", Store()
    trainer = Trainer(store, "cpu")
    trainer.ending.set()
    with pytest.raises(PreemptedError, match="is stored at step 1"):
        searched(trainer, spec_of(CASES[name]))
    (digest,) = store.digests("checkpoints")
    (blob,) = (f.path for f in store.files.files(f"checkpoints/{digest}") if "run-" in f.path)
    content = bytearray(store.files.read(blob) or b"")
    content[-1] ^= 1
    store.files.write(blob, bytes(content))
    assert searched(Trainer(store, "cpu"), spec_of(CASES[name])) == undisturbed(name)[0]
    assert "does not match its checksum; the training begins anew" in caplog.text
    assert kept(store) == undisturbed(name)[1]


def interrupted() -> tuple[Store, Job]:
    """The store and the dense job of a search that was interrupted after its first step."""
    trainer = Trainer(Store(), "cpu")
    trainer.ending.set()
    spec = spec_of(CASES["adam, dropout"])
    with pytest.raises(PreemptedError):
        searched(trainer, spec)
    return trainer.store, next(iter(levels(resolve(spec))))["dense"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": None}, {"step": "9"}, {"step": 10**400}, {"curves": []}, {"curves": {}},
        {"curves": {"step": [3], "train_loss": []}}, {"seconds": "long"}, {"more": 1, "step": True},
    ],
)  # fmt: skip
def test_checkpoint_of_another_program_is_ignored_with_a_warning(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    store, job = interrupted()
    entry = store.get("checkpoints", job.digest)
    assert entry is not None
    assert checkpoint_step(store, job) == 1
    run = {"run.safetensors": entry.blob("run.safetensors")}
    store.put("checkpoints", job.digest, {**entry.meta, **change}, run)
    if "step" in change:
        assert checkpoint_step(store, job) is None
    assert load_checkpoint(store, job) is None
    assert "the training begins anew" in caplog.text
    assert not store.digests("checkpoints")


def test_checkpoint_without_blobs_is_none() -> None:
    store, job = interrupted()
    store.put("checkpoints", job.digest, store.get("checkpoints", job.digest).meta)  # type: ignore[union-attr]
    assert load_checkpoint(store, job) is None


def test_moments_of_another_type_do_not_fit() -> None:
    like = [torch.zeros(2, 3)]
    assert moment_fits("0/exp_avg", torch.zeros(2, 3), like)
    assert moment_fits("0/step", torch.zeros(()), like)
    assert not moment_fits("0/exp_avg", torch.zeros(2, 3, dtype=torch.uint16), like)
    assert not moment_fits("1/exp_avg", torch.zeros(2, 3), like)
