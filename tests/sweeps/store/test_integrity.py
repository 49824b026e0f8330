"""`find_faults`: every corruption of a store of a real search is found, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.store import Store, open_store
from lth_core.store.files import MemoryFiles
from sweeps.store.integrity import find_faults

D, E = "d" * 64, "e" * 64
SPEC = TicketSpec(
    model=ModelSpec(widths=(4,)),
    train=TrainSpec(steps="10it", evaluate_every="10it"),
    levels=2,
    rewind="5it",
    branches=("ticket", "twin"),
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything that a search keeps: trainings, a rewind point, measures."""
    folder = tmp_path_factory.mktemp("searched")
    for level in find_tickets(SPEC, Trainer(open_store(str(folder)))):
        _ = level.records
    return folder


def stored(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*/*") if path.is_file())


def test_store_of_a_search_has_no_faults(searched: Path) -> None:
    store = open_store(str(searched))
    assert {"trainings", "points", "measures"} <= set(store.kinds())
    assert list(find_faults(store)) == []


def flip(path: Path, data: st.DataObject) -> None:
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)


def cut(path: Path, data: st.DataObject) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])


def lengthen(path: Path, data: st.DataObject) -> None:
    path.write_bytes(path.read_bytes() + data.draw(st.binary(min_size=1, max_size=3)))


def remove(path: Path, data: st.DataObject) -> None:
    path.unlink()


@pytest.mark.slow
@given(data=st.data(), harm=st.sampled_from([flip, cut, lengthen, remove]))
def test_any_harm_to_any_file_is_found_and_where(searched: Path, data: st.DataObject, harm) -> None:  # type: ignore[no-untyped-def]
    path = data.draw(st.sampled_from(stored(searched)))
    content = path.read_bytes()
    kind, digest, _ = path.relative_to(searched).parts
    try:
        harm(path, data)
        found = {(fault.kind, fault.digest) for fault in find_faults(open_store(str(searched)))}
    finally:
        path.write_bytes(content)
    # The shapes of a rewind point's layers are read from the training that it is a point of.
    assert (kind, digest) in found
    assert all(each[0] == "points" for each in found - {(kind, digest)})


def test_every_byte_of_a_manifest_counts(searched: Path) -> None:
    manifests = (path for path in stored(searched) if path.name == "entry.json")
    path = min(manifests, key=lambda path: path.stat().st_size)
    store, content = Store(), path.read_bytes()
    name = str(path.relative_to(searched))
    store.files.write(name, content)
    assert list(find_faults(store)) == []
    for place in range(len(content)):
        for bit in (0, 5):  # 5: another case of the same letter
            harmed = bytearray(content)
            harmed[place] ^= 1 << bit
            store.files.write(name, bytes(harmed))
            assert len(list(find_faults(store))) == 1, (place, bit)


@pytest.fixture
def written(searched: Path, tmp_path: Path) -> tuple[Store, str]:
    """A copy, and a training in it that is a ticket."""
    shutil.copytree(searched, tmp_path / "store")
    store = open_store(str(tmp_path / "store"))
    levels = list(find_tickets(SPEC, Trainer(store, frozen=True)))
    return store, levels[-1].results["ticket"].job.digest


def rewrite(store: Store, digest: str, name: str, **tensors: torch.Tensor) -> None:
    """An entry as another program would have written it: sound, but wrong."""
    entry = store.get("trainings", digest)
    assert entry is not None
    blobs = {each: entry.blob(each) for each in entry.blobs}
    changed = load(blobs[name])
    key = next(key for key in sorted(changed) if key.startswith(next(iter(tensors))))
    blobs[name] = save({**changed, key: next(iter(tensors.values()))})
    store.put("trainings", digest, entry.meta, blobs)


@pytest.mark.parametrize(
    ("name", "tensors", "said"),
    [
        ("mask.safetensors", {"mask": torch.zeros(3, dtype=torch.uint8)}, "must be 32 bytes for shape"),
        ("mask.safetensors", {"mask": torch.full((32,), 255, dtype=torch.uint8)}, "survivors of its mask"),
        ("state.safetensors", {"kept": torch.zeros(1)}, "survivors of its mask"),
    ],
)  # fmt: skip
def test_mask_that_does_not_fit_its_network_is_a_fault(
    written: tuple[Store, str], name: str, tensors: dict[str, torch.Tensor], said: str
) -> None:
    store, digest = written
    rewrite(store, digest, name, **tensors)
    (fault,) = find_faults(store)
    assert (fault.kind, fault.digest) == ("trainings", digest)
    assert said in fault.fault


def test_training_that_counts_other_survivors_than_it_has_is_a_fault(
    written: tuple[Store, str],
) -> None:
    store, digest = written
    entry = store.get("trainings", digest)
    assert entry is not None
    blobs = {name: entry.blob(name) for name in entry.blobs}
    layers = {
        name: {**layer, "kept": layer["kept"] + 1} for name, layer in entry.meta["layers"].items()
    }
    store.put("trainings", digest, {**entry.meta, "layers": layers}, blobs)
    (fault,) = find_faults(store)
    assert "must keep" in fault.fault


def test_blob_that_is_no_safetensors_is_a_fault() -> None:
    store = Store()
    store.put("checkpoints", D, {}, {"run.safetensors": b"not that"})
    store.put("checkpoints", E, {}, {"run.safetensors": save({"a": torch.ones(2)})})
    (fault,) = find_faults(store)
    assert fault.digest == D


def test_checkpoint_whose_saving_was_cut_off_is_no_fault_and_a_torn_one_is() -> None:
    store, blob = Store(), "run-0123456789abcdef.safetensors"
    for kind in ("checkpoints", "trainings"):
        store.files.write(f"{kind}/{D}/{blob}", b"x")
    store.files.write(f"checkpoints/{E}/entry.json", b"{")
    found = {(fault.kind, fault.digest) for fault in find_faults(store)}
    assert found == {("trainings", D), ("checkpoints", E)}


def test_trainings_that_were_exchanged_are_faults(
    written: tuple[Store, str], tmp_path: Path
) -> None:
    """Each is sound in itself: tickets would be made from another training's weights."""
    store, _ = written
    one, other = (tmp_path / "store/trainings" / d for d in store.digests("trainings")[:2])
    away = one.rename(tmp_path / "away")
    other.rename(one)
    away.rename(other)
    found = {(fault.kind, fault.digest) for fault in find_faults(store)}
    assert {("trainings", one.name), ("trainings", other.name)} <= found
    assert all(each[0] in ("trainings", "points") for each in found)


def test_faults_that_are_removed_are_made_again(written: tuple[Store, str]) -> None:
    store, digest = written
    before = store.get("trainings", digest)
    store.files.write(f"trainings/{digest}/entry.json", b"torn")
    for fault in find_faults(store):
        store.delete(fault.kind, fault.digest)
    assert list(find_faults(store)) == []
    list(find_tickets(SPEC, Trainer(store)))
    assert list(find_faults(store)) == []
    after = store.get("trainings", digest)
    assert before is not None
    assert after is not None
    assert after.meta["ticket_digest"] == before.meta["ticket_digest"]


def test_claims_are_no_entries() -> None:
    store = Store()
    store.files.create(f"claims/{D}/claim.json", b"{}")
    assert list(find_faults(store)) == []


# Beside a sweep


class Meanwhile(MemoryFiles):
    """Something happens when a path is read for the first time."""

    happens: dict[str, Callable[[], None]]

    def read(self, path: str) -> bytes | None:
        content = super().read(path)
        self.happens.pop(path, lambda: None)()
        return content


def test_entry_written_or_deleted_during_the_check_is_no_fault() -> None:
    files = Meanwhile()
    store, manifest = Store(files), "measures/{}/entry.json"
    begun, over, torn = D, E, "f" * 64
    for digest in (begun, over, torn):
        store.files.write(f"measures/{digest}/state-0123456789abcdef.safetensors", b"x")
    files.happens = {
        manifest.format(begun): lambda: store.put("measures", begun, {}),
        manifest.format(over): lambda: store.delete("measures", over),
    }
    (fault,) = find_faults(store)
    assert fault.digest == torn
    assert not files.happens
