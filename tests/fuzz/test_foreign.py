"""What is whole and has a right checksum, but is of another hand or version: read or left alone."""

import hashlib
import json
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutants import altered, fuzzed, survives
from safetensors.torch import load, save
from searched import SPEC, dense, file_of, network, search, task

from lth_core import find_tickets, load_ticket
from lth_core.resolve import resolve
from lth_core.results import record
from lth_core.spec import SCHEMA, canonical_json, sha256
from lth_core.store import Store
from lth_core.store.files import MemoryFiles
from lth_core.train.archive import Archive
from lth_core.train.checkpoint import checkpoint_step, load_checkpoint
from lth_core.train.loop import Run
from lth_core.train.timings import KIND as SPEEDS
from lth_core.train.timings import seconds_per_step, speed_key
from lth_core.train.training import Result
from sweeps.plan.plan import Trial
from sweeps.store.garbage import collect
from sweeps.store.records import (
    load_curves,
    load_mask,
    load_records,
    record_key,
    register,
    save_records,
    searched_trials,
)
from sweeps.store.references import find_needs
from sweeps.store.status import Status, lines, load_status, save_status, status_key
from sweeps.store.usage import usage
from sweeps.studies.schema import Study
from tracking.publish import names
from tracking.publish.client import connect
from tracking.publish.publisher import Publisher
from tracking.publish.runs import published_run

pytestmark = pytest.mark.fuzz

STUDY = Study(name="tiny", base=SPEC, axes={"seed": [0, 1]})


def entry(kind: str, key: str, said: Any, blobs: dict[str, bytes] | None = None) -> Store:
    """A store with one entry that says so, if JSON can."""
    store = Store()
    try:
        store.put(kind, key, said, blobs)
    except (ValueError, TypeError, RecursionError):
        store.put(kind, key, {}, blobs)
    return store


def meta_of(store: Store) -> tuple[str, str, Any]:
    """The one entry of a store."""
    (kind,) = store.kinds()
    (key,) = store.digests(kind)
    found = store.get(kind, key)
    assert found
    return kind, key, found.meta


def registered() -> tuple[str, str, Any]:
    store = Store()
    register(store, STUDY)
    return meta_of(store)


def recorded() -> tuple[str, str, Any]:
    store, trial = Store(), Trial({"seed": 0}, resolve(SPEC))
    level = next(iter(find_tickets(SPEC)))
    rows = [{"study": "tiny", "trial": trial.id, **row} for row in level.records]
    save_records(store, "tiny", STUDY.digest(), trial, rows)
    return meta_of(store)


def kept_in_order(store: Store) -> None:
    """What `lth store du` and `lth store gc` do; the second refuses where something is unread."""
    usage(store, find_needs(store))
    collect(store, 0, dry_run=True)


STUDIES, TRIALS = registered(), recorded()


@fuzzed
@given(altered(STUDIES[2]))
def test_studies(said: Any) -> None:
    assert STUDIES[2]["schema"] == SCHEMA
    store = entry(*STUDIES[:2], said)
    survives("studies entries", lambda: kept_in_order(store))


@fuzzed
@given(altered(TRIALS[2]))
def test_trials(said: Any) -> None:
    store = entry(*TRIALS[:2], said)
    trial = Trial({"seed": 0}, resolve(SPEC))
    assert record_key("tiny", trial) == TRIALS[1]

    def read() -> None:
        load_records(store, "tiny", [trial])
        searched_trials(store, STUDY)
        kept_in_order(store)

    survives("trials entries", read)


STATUS = Status(
    state="running", host="node", process=1, trials=2, done=1, running=1, failed=1, waiting=0,
    levels_done=3, levels=9, levels_per_minute=0.5, failures=[("a", "b")],
    driver={"machine": "x", "process": 1, "born": "2"},
)  # fmt: skip


def status_said() -> Any:
    store = Store()
    save_status(store, "tiny", STATUS)
    return meta_of(store)[2]


@fuzzed
@given(altered(status_said()))
def test_status(said: Any) -> None:
    store = entry("status", status_key("tiny"), said)
    survives("status entries", lambda: list(lines(load_status(store, STUDY))))


@fuzzed
@given(altered({"seconds_per_step": 0.01, "device": "cpu"}))
def test_speeds(said: Any) -> None:
    store = entry(SPEEDS, speed_key(dense(), "cpu"), said)
    survives("speeds entries", lambda: seconds_per_step(store, dense(), "cpu"))


@fuzzed
@given(altered({"test_barrier": 0.1, "train_barrier": None}))
def test_measures(said: Any) -> None:
    store = entry("measures", "digest", said)

    def read() -> None:
        found = Archive(store).entry("measures", "digest")
        for value in found.meta.values() if found else ():
            assert value is None or float(value) < float("inf")

    survives("measures entries", read)


@fuzzed
@given(altered(json.loads(file_of("trainings", "entry.json"))["entry"]["meta"]))
def test_trainings(said: Any) -> None:
    """Those that are taken up have numbers for a record."""
    store = entry(
        "trainings", dense().digest, said, {"mask.safetensors": file_of("trainings", "mask-")}
    )

    def read() -> None:
        load_curves(store, dense().digest)
        load_mask(store, dense().digest)
        training = Archive(store).training(dense())
        if training:
            record(resolve(SPEC), 0, "dense", Result(dense(), training, reused=True))

    survives("altered trainings", read)


@fuzzed
@given(altered(json.loads(file_of("checkpoints", "entry.json"))["entry"]["meta"]))
def test_checkpoints(said: Any) -> None:
    store = entry(
        "checkpoints", dense().digest, said, {"run.safetensors": file_of("checkpoints", "run-")}
    )

    def go_on() -> None:
        checkpoint_step(store, dense())
        begun, running = load_checkpoint(store, dense()), Run(task())
        if begun and running.fits(begun):
            running.restore(begun)

    survives("checkpoint entries", go_on)


@cache
def point() -> tuple[MemoryFiles, dict[str, Any]]:
    """A whole rewind point's files, and what its manifest says."""
    blobs = {f"{n}.safetensors": file_of("trainings", f"{n}-") for n in ("mask", "state")}
    files = MemoryFiles()
    Store(files).put("points", dense().digest, {"step": 3, "of": dense().digest}, blobs)
    content = files.read(f"points/{dense().digest}/entry.json")
    assert content
    return files, json.loads(content)["entry"]


@fuzzed
@given(altered(point()[1]))
def test_manifests(said: Any) -> None:
    """All of an entry is of another hand, what it says of its blobs too."""
    try:
        text = canonical_json(said)
    except (ValueError, TypeError, RecursionError):
        text = "{}"
    check = hashlib.sha256(text.encode()).hexdigest()
    whole = f'{{"entry":{text},"sha256":"{check}"}}'.encode()
    point()[0].write(f"points/{dense().digest}/entry.json", whole)
    survives("manifests of points", lambda: Archive(Store(point()[0])).state(dense(), network()))


HEADERS = ["", "x", "null", "0", "-1", "1e999", "[1e999]", "[]", "[[]]", "[-1]", '["x"]', "{}",
           '{"fc1.weight": [1e999]}', '{"fc1.weight": [-4, -64]}', "[" * 2_000, "9" * 5000]  # fmt: skip
DTYPES = [torch.uint16, torch.uint64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int32]


@cache
def parts_of(ticket: bytes) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """A ticket file's header and its tensors."""
    size = int.from_bytes(ticket[:8], "little")
    return json.loads(ticket[8 : 8 + size])["__metadata__"], load(ticket)


@st.composite
def tickets(draw: st.DrawFn) -> bytes:
    """Whole files with a right header digest."""
    content = search()[1][draw(st.integers(0, 1))]
    said, held = parts_of(content)
    header, tensors = dict(said), dict(held)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(header)))
        if draw(st.booleans()) and name in ("spec", "shapes", "example_shape"):
            header[name] = json.dumps(draw(altered(json.loads(said[name]))))
        else:
            header[name] = draw(st.sampled_from(HEADERS))
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(tensors)))
        tensors[name] = tensors[name].to(draw(st.sampled_from(DTYPES)))
    header["header_digest"] = sha256({k: v for k, v in header.items() if k != "header_digest"})
    return save(tensors, metadata=header)


@fuzzed
@given(tickets())
def test_ticket_headers(tmp_path_factory: pytest.TempPathFactory, said: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "ticket.safetensors"
    path.write_bytes(said)
    survives("ticket headers", lambda: load_ticket(path))


TAGS = st.dictionaries(
    st.sampled_from([names.LEVELS, names.COMPARED, names.TRAINED, names.FAILURE, names.KEY]),
    st.one_of(
        st.text(max_size=12), st.integers().map(str), st.just("9" * 5000),
        st.tuples(st.integers(), st.sampled_from(["0" * 64, "x", ""])).map(lambda t: f"{t[0]} {t[1]}"),
    ),
)  # fmt: skip


@fuzzed
@given(TAGS)
def test_tags(said: dict[str, str]) -> None:
    info = SimpleNamespace(run_id="id", start_time=1, end_time=None, status="RUNNING")
    run = SimpleNamespace(info=info, data=SimpleNamespace(params={}, tags=said))

    def read() -> None:
        held = published_run(cast("Any", run))
        assert 0 <= held.levels < 10**9
        Publisher("http://127.0.0.1:9", "0", "0").publish_compared(held, [], [])
        assert int(held.tags.get(names.COMPARED, "0 ").rpartition(" ")[0]) >= 0

    survives("tags of runs", read)


ANSWER: dict[str, Any] = {
    "runs": [{"info": {"run_id": "a", "status": "RUNNING", "start_time": 1, "experiment_id": "1"},
              "data": {"metrics": [{"key": "a", "value": 1.0, "timestamp": 1, "step": 0}],
                       "params": [{"key": "a", "value": "b"}],
                       "tags": [{"key": names.KEY, "value": "k"}, {"key": names.LEVELS, "value": "2"}]}}],
    "experiment": {"experiment_id": "1", "name": "x", "tags": [{"key": "a", "value": "b"}]},
    "next_page_token": "",
}  # fmt: skip


@fuzzed
@given(altered({"answer": ANSWER}), st.sampled_from([200, 404, 500]))
def test_answers(said: Any, code: int) -> None:
    """MLflow's own client reads them."""
    from requests import Response

    answer = Response()
    answer.status_code = code
    try:
        answer._content = json.dumps(said.get("answer")).encode()
    except (ValueError, TypeError):
        answer._content = b"\xff"

    def read() -> None:
        with pytest.MonkeyPatch.context() as patch, connect("http://localhost:1") as client:
            patch.setattr("mlflow.utils.rest_utils.http_request", lambda *_, **__: answer)
            client.get_experiment_by_name("x")
            found = client.search_runs(["1"], "")
            assert all(published_run(run).levels >= 0 for run in found)

    survives("answers of a server", read)
