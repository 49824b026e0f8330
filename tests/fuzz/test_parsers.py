"""Whatever files from elsewhere hold, reading them ends in a value or in one clear error."""

import copy
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import GIVEN, REFUSED, mutants
from torch import nn

from lth_core import TicketSpec, Trainer, find_tickets, load_ticket
from lth_core.claims import holder, is_dead
from lth_core.errors import LthError, PreemptedError
from lth_core.files import MemoryFiles
from lth_core.jobs import Job
from lth_core.masks import ones
from lth_core.spec import ModelSpec, TrainSpec, canonical_json
from lth_core.store import Store
from lth_core.train.checkpoint import kept_checkpoint
from lth_core.train.keeping import Kept
from lth_core.train.loop import Run, Task
from lth_core.train.masking import Fixed
from lth_core.train.order import Order
from sweeps.plan import make_plan
from sweeps.reader import parse_spec, read_study, spec_values
from sweeps.records import every_trial
from sweeps.studies import presets
from sweeps.worker import config_trials, trial_config

pytestmark = pytest.mark.fuzz

INPUTS = 10_000
fuzzed = settings(
    max_examples=INPUTS, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SPEC = TicketSpec(
    model=ModelSpec(widths=(4,)), train=TrainSpec(steps="6it", evaluate_every="3it"), levels=1
)


def survives(parser: str, read: Callable[[], object]) -> None:
    """Reading ends in a value or in an error that is one line for the user."""
    GIVEN[parser] += 1
    said = "a value"
    try:
        read()
    except LthError as error:
        REFUSED[parser] += 1
        said = str(error)
    assert said


@cache
def search() -> tuple[Store, list[bytes]]:
    """A real search's store, with a checkpoint, and its ticket files."""
    store = Store()
    trainer = Trainer(store)
    trainer.ending.set()
    with pytest.raises(PreemptedError):
        next(iter(find_tickets(SPEC, trainer)))
    (key,) = store.digests("checkpoints")
    halfway = {
        found.path: store.files.read(found.path)
        for found in store.files.files(f"checkpoints/{key}")
    }
    levels = list(find_tickets(SPEC, Trainer(store)))
    for path, content in halfway.items():
        assert content
        store.files.write(path, content)
    return store, [level.ticket.to_bytes() for level in levels]


def file_of(kind: str, file: str) -> bytes:
    store, _ = search()
    (path,) = [
        found.path
        for found in store.files.files(f"{kind}/{store.digests(kind)[0]}")
        if file in found.path
    ]
    content = store.files.read(path)
    assert content is not None
    return content


@cache
def dense() -> Job:
    return next(iter(find_tickets(SPEC, Trainer(search()[0], frozen=True)))).results["dense"].job


@cache
def network() -> nn.Module:
    return Trainer(search()[0]).model(dense())


def task() -> Task:
    """The dense run, about to begin."""
    trainer, job = Trainer(search()[0]), dense()
    model = copy.deepcopy(network())
    order = Order(examples=100, batch_size=10, seed=0, run="0")
    return Task(
        model=model, masking=Fixed(model, ones(model)), data=trainer.data(job), spec=job.train,
        order=order, first=job.first, last=job.last,
    )  # fmt: skip


STUDIES = [path.read_bytes() for path in presets().values()]
BROKEN = [b"a: &a [*a]", b"x: !!python/object/apply:os.system [id]", b"[" * 50, b"{a: {a: {a: 1}}}"]


@fuzzed
@given(mutants([*STUDIES, *BROKEN]))
def test_study_files(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes(said)
    survives("study files", lambda: read_study(path))


@fuzzed
@given(mutants([b"prune.fraction=0.2", b"seed=[0, 1]", b"axes.rewind=[0it, 2ep]", b"store=x"]))
def test_overrides(said: bytes) -> None:
    text = said.decode("utf-8", "replace")
    survives("overrides", lambda: read_study(small(), [text]))


SMALL = yaml.safe_dump({
    "name": "tiny", "base": {"model": {"widths": [4]}, "train": {"steps": "6it"}, "levels": 2},
    "axes": {"seed": [0, 1], "prune.fraction": {"low": 0.1, "high": 0.5, "count": 2},
             "ways": [{"prune.score": "snip", "prune.when": "before"}, {"rewind": "2it"}]},
    "tracking": {"uri": None},
}).encode()  # fmt: skip


@fuzzed
@given(mutants([SMALL]))
def test_plans_of_study_files(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes(said)

    def plan() -> None:
        study = read_study(path)
        if len(make_plan(study).trials) < 100 and study.base.levels < 50:
            make_plan(study).cost()

    survives("plans", plan)


@fuzzed
@given(st.integers(0, 1).flatmap(lambda n: mutants([search()[1][n]])))
def test_ticket_files(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes(said)
    survives("ticket files", lambda: load_ticket(path))


@fuzzed
@given(st.sampled_from(["trainings", "checkpoints"]).flatmap(
    lambda kind: st.tuples(st.just(kind), mutants([file_of(kind, "entry.json")]))
))  # fmt: skip
def test_store_manifests(said: tuple[str, bytes]) -> None:
    kind, manifest = said
    store = Store()
    store.files.write(f"{kind}/digest/entry.json", manifest)
    survives("store manifests", lambda: store.get(kind, "digest"))


@fuzzed
@given(mutants([file_of("trainings", "state-")]), mutants([file_of("trainings", "mask-")]))
def test_store_blobs(state: bytes, mask: bytes) -> None:
    """With a right checksum: from another hand."""
    store = Store()
    store.put("points", dense().digest, {}, {"state.safetensors": state, "mask.safetensors": mask})
    survives("store blobs", lambda: Kept(store).state(dense(), network()))


@fuzzed
@given(mutants([json.dumps(search()[0].get("trainings", dense().digest).meta).encode()]))
def test_trainings(said: bytes) -> None:
    """With a right checksum: from another version."""
    meta = _json(said)
    store = Store()
    store.put("trainings", dense().digest, meta)
    survives("trainings", lambda: Kept(store).training(dense()))


@fuzzed
@given(mutants([file_of("checkpoints", "run-")]))
def test_checkpoints(run: bytes) -> None:
    """With a right checksum: what does not fit the task is not taken up."""
    store, about = Store(), search()[0].get("checkpoints", dense().digest)
    store.put("checkpoints", dense().digest, about.meta, {"run.safetensors": run})

    def go_on() -> None:
        begun, running = kept_checkpoint(store, dense()), Run(task())
        if begun and running.fits(begun):
            running.restore(begun)

    survives("checkpoints", go_on)


TRIAL = json.dumps({
    "study": "tiny", "study_digest": "0" * 64, "fields": {"seed": 0}, "spec": spec_values(SPEC),
    "records": [],
}).encode()  # fmt: skip


@fuzzed
@given(mutants([TRIAL, json.dumps(spec_values(SPEC)).encode()]))
def test_specs_in_records(said: bytes) -> None:
    """Records with a right checksum, from another version or another hand."""

    def read() -> None:
        store = Store()
        store.put("trials", "tiny.0", _json(said))
        for about in every_trial(store):
            spec = about.get("spec", about)
            if isinstance(spec, dict):
                parse_spec(spec)

    survives("specs in records", read)


CLAIM = json.dumps({"machine": "x y", "process": 1, "born": "2", "token": "t", "beat": 3}).encode()


@fuzzed
@given(mutants([CLAIM]))
def test_claims(said: bytes) -> None:
    files = MemoryFiles()
    files.create("claims/job/claim.json", said)
    survives("claims", lambda: is_dead(holder(files, "claims/job/claim.json")))


def test_what_a_worker_is_given_is_what_was_given() -> None:
    """The one JSON that travels beside the store is made and read by the same code."""
    (trial, *_) = make_plan(read_study(presets()["digits"])).trials
    assert config_trials(trial_config(trial, [3]))[1][0].digest == trial.digest


def _json(said: bytes) -> dict[str, object]:
    """What is JSON of it, as a store's entry can say it."""
    try:
        meta = json.loads(said)
        canonical_json(meta)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


@cache
def small() -> Path:
    path = Path(tempfile.mkdtemp()) / "tiny.yaml"
    path.write_bytes(SMALL)
    return path


def _scratch(factory: pytest.TempPathFactory) -> Path:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else factory.getbasetemp()
    return folder / f"lth-fuzz-{factory.getbasetemp().name}"
