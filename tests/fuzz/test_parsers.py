"""Whatever files from elsewhere hold, reading them ends in a value or in one clear error."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutants import altered, fuzzed, mutants, survives
from searched import SPEC, as_json, dense, file_of, network, search, task

from lth_core import load_ticket
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from lth_core.store.locks import has_ended, read_claim
from lth_core.train.archive import Archive
from lth_core.train.checkpoint import load_checkpoint
from lth_core.train.loop import Run
from sweeps.plan.plan import make_plan
from sweeps.plan.recorded import every_trial
from sweeps.run.worker import config_trials, item_config
from sweeps.store.records import register
from sweeps.studies.find import presets
from sweeps.studies.reader import parse_spec, read_study, spec_values

pytestmark = pytest.mark.fuzz

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


TINY: dict[str, Any] = {
    "name": "tiny",
    "base": {"data": {"name": "digits", "root": "~/data"},
             "model": {"name": "mlp", "widths": [4], "width": 1.0, "depth": 1},
             "train": {"steps": "6it", "lr": 0.1, "warmup": "1it"},
             "prune": {"score": "magnitude", "layer_fractions": {"fc1": 0.1}}, "levels": 2},
    "axes": {"seed": [0, 1], "prune.fraction": {"low": 0.1, "high": 0.5, "count": 2},
             "ways": [{"prune.score": "snip", "prune.when": "before"}, {"rewind": "2it"}]},
    "resources": {"cpu": 1}, "checkpoint_minutes": 5, "tracking": {"uri": None},
}  # fmt: skip
SMALL = yaml.safe_dump(TINY).encode()


def plan(path: Path) -> None:
    """All that `lth plan` does, but for the trainings of a plan that is not small."""
    study = read_study(path)
    study.digest()
    register(Store(), study)
    found = make_plan(study)
    if len(found.trials) < 100 and study.base.levels < 50:
        found.cost()


@fuzzed
@given(mutants([SMALL]))
def test_plans_of_study_files(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    path = _scratch(tmp_path_factory)
    path.write_bytes(said)
    survives("plans", lambda: plan(path))


@fuzzed
@given(altered(TINY))
def test_plans_of_altered_studies(tmp_path_factory: pytest.TempPathFactory, said: Any) -> None:
    path = _scratch(tmp_path_factory)
    path.write_text(yaml.safe_dump(said))
    survives("plans of altered studies", lambda: plan(path))


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
    survives("store blobs", lambda: Archive(store).state(dense(), network()))


@fuzzed
@given(mutants([json.dumps(search()[0].get("trainings", dense().digest).meta).encode()]))
def test_trainings(said: bytes) -> None:
    """With a right checksum: from another version."""
    meta = as_json(said)
    store = Store()
    store.put("trainings", dense().digest, meta)
    survives("trainings", lambda: Archive(store).training(dense()))


@fuzzed
@given(mutants([file_of("checkpoints", "run-")]))
def test_checkpoints(run: bytes) -> None:
    """With a right checksum: what does not fit the task is not taken up."""
    store, about = Store(), search()[0].get("checkpoints", dense().digest)
    store.put("checkpoints", dense().digest, about.meta, {"run.safetensors": run})

    def go_on() -> None:
        begun, running = load_checkpoint(store, dense()), Run(task())
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
        store.put("trials", "tiny.0", as_json(said))
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
    survives("claims", lambda: has_ended(read_claim(files, "claims/job/claim.json")))


def test_what_a_worker_is_given_is_what_was_given() -> None:
    """The one JSON that travels beside the store is made and read by the same code."""
    (trial, *_) = make_plan(read_study(presets()["digits"])).trials
    assert config_trials(item_config([(trial, [3])]))[0][0].digest == trial.digest


@cache
def small() -> Path:
    path = Path(tempfile.mkdtemp()) / "tiny.yaml"
    path.write_bytes(SMALL)
    return path


def _scratch(factory: pytest.TempPathFactory) -> Path:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else factory.getbasetemp()
    return folder / f"lth-fuzz-{factory.getbasetemp().name}"
