import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lth_core.errors import CorruptEntryError, SpecError, StoreError
from lth_core.store import Files, FolderFiles, MemoryFiles, Store, open_store

META = {"loss": [0.5, 0.25], "name": "dense", "nothing": None}
BLOBS = {"state.safetensors": b"\x00" * 100 + b"\x01", "empty.bin": b""}


@pytest.fixture(params=["memory", "folder"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Every place that keeps files, under one contract."""
    return MemoryFiles() if request.param == "memory" else FolderFiles(tmp_path / "store")


# The contract of files


def test_file_is_read_as_written_and_replaced_whole(files: Files) -> None:
    files.write("a/b/c.bin", b"long content")
    files.write("a/b/c.bin", b"new")
    assert files.read("a/b/c.bin") == b"new"
    assert files.size("a/b/c.bin") == 3


def test_what_is_not_there_is_none(files: Files) -> None:
    files.write("a/b", b"x")
    for path in ("nowhere", "a/c", "a/b/c", "x/y/z"):
        assert files.read(path) is None
        assert files.size(path) is None
    assert list(files.folders("nowhere")) == []


def test_folders_are_those_directly_below(files: Files) -> None:
    for path in ("a/one/x", "a/one/y", "a/two/deep/x", "a/file", "ab/three/x"):
        files.write(path, b"")
    assert sorted(files.folders("a")) == ["one", "two"]


# The contract of a store


def test_entry_comes_back_with_its_blobs(files: Files) -> None:
    store = Store(files)
    assert store.get("trainings", "d1") is None
    assert not store.has("trainings", "d1")
    store.put("trainings", "d1", META, BLOBS)
    entry = store.get("trainings", "d1")
    assert entry is not None
    assert entry.meta == META
    assert {name: entry.blob(name) for name in entry.blobs} == BLOBS
    assert store.has("trainings", "d1")
    assert not store.has("points", "d1")


def test_entry_written_twice_is_one_and_the_last(files: Files) -> None:
    store = Store(files)
    for meta in (META, META, {"other": 1}):
        store.put("trainings", "d1", meta, BLOBS)
    assert store.digests("trainings") == ["d1"]
    assert store.get("trainings", "d1").meta == {"other": 1}  # type: ignore[union-attr]


def test_digests_are_listed_by_kind_and_sorted(files: Files) -> None:
    store = Store(files)
    for kind, digest in (("a", "2"), ("a", "1"), ("b", "3")):
        store.put(kind, digest, {})
    assert (store.digests("a"), store.digests("b"), store.digests("c")) == (["1", "2"], ["3"], [])


def manifest(files: Files) -> str:
    Store(files).put("k", "d", META, BLOBS)
    return "k/d/entry.json"


def blob(files: Files) -> str:
    Store(files).put("k", "d", META, BLOBS)
    entry = Store(files).get("k", "d")
    assert entry is not None
    return f"k/d/{entry.blobs['state.safetensors']['file']}"


@pytest.mark.parametrize("where", [manifest, blob])
@pytest.mark.parametrize("left", [0, 1, 50, -1])
def test_truncated_entry_counts_as_missing(
    where: Callable[[Files], str], left: int, files: Files
) -> None:
    path = where(files)
    files.write(path, files.read(path)[:left])  # type: ignore[index]
    with pytest.raises(CorruptEntryError, match=r"k/d/"):
        Store(files).get("k", "d")
    assert not Store(files).has("k", "d")


@given(st.data())
def test_any_flipped_bit_of_an_entry_is_noticed(data: st.DataObject) -> None:
    files = MemoryFiles()
    for path in (manifest(files), blob(files)):
        Store(files).put("k", "d", META, BLOBS)
        content = bytearray(files.read(path) or b"")
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        files.write(path, bytes(content))
        with pytest.raises(CorruptEntryError):
            Store(files).get("k", "d").blob("state.safetensors")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b'{"entry": 1, "sha256": ""}', b"\xff", b"[" * 9**5]
)
def test_anything_else_in_place_of_entry_json_is_corrupt(content: bytes, files: Files) -> None:
    files.write(manifest(files), content)
    with pytest.raises(CorruptEntryError, match=r"entry\.json: is torn or altered"):
        Store(files).get("k", "d")


def test_entry_json_says_everything_and_is_written_last(tmp_path: Path) -> None:
    class Watched(FolderFiles):
        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.written: list[str] = []

        def write(self, path: str, content: bytes) -> None:
            self.written.append(path)
            super().write(path, content)

    files = Watched(tmp_path)
    Store(files).put("k", "d", META, BLOBS)
    assert files.written[-1] == "k/d/entry.json"
    said = json.loads((tmp_path / "k/d/entry.json").read_bytes())["entry"]
    assert said["meta"] == META
    assert {f"k/d/{listed['file']}" for listed in said["blobs"].values()} == set(files.written[:-1])


def test_concurrent_writers_of_an_entry_leave_it_sound(files: Files) -> None:
    """Writers of different content: a reader sees one of them whole, at any time."""
    failures: list[Exception] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 25):
                Store(files).put("k", "d", {"n": number}, {"state.safetensors": b"x" * number})
                entry = Store(files).get("k", "d")
                assert entry is not None
                assert entry.blob("state.safetensors") == b"x" * entry.meta["n"]
                assert Store(files).digests("k") == ["d"]
        except Exception as error:  # noqa: BLE001  carried to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=write, args=(1000 * n,)) for n in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_writing_leaves_no_scratch_behind(tmp_path: Path) -> None:
    Store(FolderFiles(tmp_path)).put("k", "d", META, BLOBS)
    assert sorted(path.name for path in (tmp_path / "k/d").iterdir() if ".tmp" in path.name) == []


def test_store_that_cannot_be_written_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=rf"{tmp_path}/file.*cannot write k/d/entry\.json"):
        Store(FolderFiles(tmp_path / "file")).put("k", "d", {})
    with pytest.raises(StoreError, match=rf"{tmp_path}/file/s cannot be made"):
        open_store(str(tmp_path / "file" / "s"))


def test_open_store_is_a_folder_or_memory(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a" / "b")).put("k", "d", META)
    assert open_store(str(tmp_path / "a" / "b")).has("k", "d")
    assert not open_store(None).has("k", "d")
    with pytest.raises(SpecError, match=r"^store: must be a folder, but got 'gs://x'"):
        open_store("gs://x")
