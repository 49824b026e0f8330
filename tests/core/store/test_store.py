import hashlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import S3Server

from lth_core import ModelSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import CorruptEntryError, SpecError, StoreError
from lth_core.spec import canonical_json
from lth_core.store import Store, make_folder, open_store, store_clock, store_time
from lth_core.store.files import Files, MemoryFiles, StoredFile
from lth_core.store.folder import FolderFiles

META = {"loss": [0.5, 0.25], "name": "dense", "nothing": None}
BLOBS = {"state.safetensors": b"\x00" * 100 + b"\x01", "empty.safetensors": b""}
K, D, D1, D2, E = "measures", *(letter * 64 for letter in ("d", "1", "2", "e"))
"""A kind and keys of it."""


# The contract of a store


def test_entry_comes_back_with_its_blobs(files: Files) -> None:
    store = Store(files)
    assert store.get("trainings", D1) is None
    assert not store.has("trainings", D1)
    store.put("trainings", D1, META, BLOBS)
    entry = store.get("trainings", D1)
    assert entry is not None
    assert entry.meta == META
    assert {name: entry.blob(name) for name in entry.blobs} == BLOBS
    assert store.has("trainings", D1)
    assert not store.has("points", D1)


def test_entry_comes_back_in_the_order_of_its_keys(files: Files) -> None:
    """The order of layers is the model's: the last is the output."""
    names, store = ["stem", "blocks", "output", "extra"], Store(files)
    store.put(K, D, {"layers": {name: {"b": 1, "a": 2} for name in names}, "first": 0})
    entry = Store(files).get(K, D)
    assert entry is not None
    assert (list(entry.meta), list(entry.meta["layers"])) == (["layers", "first"], names)
    assert list(entry.meta["layers"]["stem"]) == ["b", "a"]


def test_entry_written_twice_is_one_and_the_last(files: Files) -> None:
    store = Store(files)
    for meta in (META, META, {"other": 1}):
        store.put("trainings", D1, meta, BLOBS)
    assert store.digests("trainings") == [D1]
    assert store.get("trainings", D1).meta == {"other": 1}  # type: ignore[union-attr]


def test_digests_are_listed_by_kind_and_sorted(files: Files) -> None:
    store = Store(files)
    for kind, digest in ((K, D2), (K, D1), ("points", E)):
        store.put(kind, digest, {})
    found = [store.digests(kind) for kind in (K, "points", "trainings")]
    assert found == [[D1, D2], [E], []]


def manifest(files: Files) -> str:
    Store(files).put(K, D, META, BLOBS)
    return f"{K}/{D}/entry.json"


def blob(files: Files) -> str:
    Store(files).put(K, D, META, BLOBS)
    entry = Store(files).get(K, D)
    assert entry is not None
    return f"{K}/{D}/{entry.blobs['state.safetensors']['file']}"


@pytest.mark.parametrize("where", [manifest, blob])
@pytest.mark.parametrize("left", [0, 1, 50, -1])
def test_truncated_entry_counts_as_missing(
    where: Callable[[Files], str], left: int, files: Files
) -> None:
    path = where(files)
    files.write(path, files.read(path)[:left])  # type: ignore[index]
    with pytest.raises(CorruptEntryError, match=rf"{K}/{D}/"):
        Store(files).get(K, D)
    assert not Store(files).has(K, D)


@given(st.data())
def test_any_flipped_bit_of_an_entry_is_noticed(data: st.DataObject) -> None:
    files = MemoryFiles()
    for path in (manifest(files), blob(files)):
        Store(files).put(K, D, META, BLOBS)
        content = bytearray(files.read(path) or b"")
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        files.write(path, bytes(content))
        with pytest.raises(CorruptEntryError):
            Store(files).get(K, D).blob("state.safetensors")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b'{"entry": 1, "sha256": ""}', b"\xff", b"[" * 9**5]
)
def test_anything_else_in_place_of_entry_json_is_corrupt(content: bytes, files: Files) -> None:
    files.write(manifest(files), content)
    with pytest.raises(CorruptEntryError, match=r"entry\.json: is torn or altered"):
        Store(files).get(K, D)


def test_what_is_spelled_otherwise_is_altered(files: Files) -> None:
    """A flipped bit may leave the same number: 1e-05 is 1E-05."""
    Store(files).put(K, D, {"loss": 1e-05})
    content = files.read(f"{K}/{D}/entry.json") or b""
    files.write(f"{K}/{D}/entry.json", content.replace(b"1e-05", b"1E-05"))
    with pytest.raises(CorruptEntryError, match="is torn or altered"):
        Store(files).get(K, D)


def test_blob_outside_its_entry_is_not_read(files: Files) -> None:
    store = Store(files)
    store.put(K, E, {}, BLOBS)
    (name,) = (b["file"] for b in store.get(K, E).blobs.values() if b["size"])  # type: ignore[union-attr]
    store.put(K, D, {}, {"state.safetensors": BLOBS["state.safetensors"]})
    entry_json = json.loads(files.read(f"{K}/{D}/entry.json") or b"")["entry"]
    entry_json["blobs"]["state.safetensors"]["file"] = f"../{E}/{name}"
    files.write(f"{K}/{D}/entry.json", manifest_of(entry_json))
    with pytest.raises(CorruptEntryError, match="is torn or altered"):
        store.get(K, D)


def manifest_of(content: object) -> bytes:
    entry = canonical_json(content)
    check = hashlib.sha256(entry.encode()).hexdigest()
    return f'{{"entry":{entry},"sha256":"{check}"}}'.encode()


@pytest.mark.parametrize(("kind", "digest"), [(K, E), ("points", D)])
def test_entries_that_were_exchanged_are_not_taken_for_each_other(
    kind: str, digest: str, files: Files
) -> None:
    one, other = f"{K}/{D}", f"{kind}/{digest}"
    for folder in (one, other):
        Store(files).put(*folder.split("/"), {"of": folder}, BLOBS)
    held = [(found.path, files.read(found.path) or b"") for found in [*files.files("")]]
    for path, content in held:
        folder, _, name = path.rpartition("/")
        files.write(f"{other if folder == one else one}/{name}", content)
    for here, there in ((one, other), (other, one)):
        with pytest.raises(CorruptEntryError, match=rf"{here}/entry\.json: belongs to {there}$"):
            Store(files).get(*here.split("/"))
    assert not Store(files).has(kind, digest)


def test_entry_of_an_older_version_without_its_name_is_read(files: Files) -> None:
    files.write(f"{K}/{D}/entry.json", manifest_of({"meta": META, "blobs": {}}))
    entry = Store(files).get(K, D)
    assert entry is not None
    assert entry.meta == META


def test_entry_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    """As in S3, where the size is asked for first: the longer manifest is cut at the old size."""

    class Replaced(FolderFiles):
        def read(self, path: str) -> bytes | None:
            content = super().read(path)
            if content and b"old" in content:
                Store(FolderFiles(tmp_path)).put(K, D, {"now": "longer than it was"})
                new = super().read(path)
                return new and new[: len(content)]
            return content

    Store(FolderFiles(tmp_path)).put(K, D, {"n": "old"})
    entry = Store(Replaced(tmp_path)).get(K, D)
    assert entry is not None
    assert entry.meta == {"now": "longer than it was"}


def test_deleted_entry_is_gone_and_can_come_again(files: Files) -> None:
    store = Store(files)
    for digest in (D1, D2):
        store.put(K, digest, META, BLOBS)
    store.delete(K, D1)
    store.delete(K, E)
    assert store.get(K, D1) is None
    assert store.digests(K) == [D2]
    assert all(found.path.startswith(f"{K}/{D2}/") for found in files.files(""))
    store.put(K, D1, META, BLOBS)
    assert store.has(K, D1)


def test_deletion_that_is_cut_short_leaves_no_half_of_an_entry(tmp_path: Path) -> None:
    """Whatever was deleted before the end: the entry is whole, or it is missing."""

    class Killed(FolderFiles):
        left = 0

        def delete(self, path: str, *others: str) -> None:
            for each in (path, *others):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
                super().delete(each)

    for number in range(3):
        files = Killed(make_folder(tmp_path / str(number)))
        Store(files).put(K, D, META, BLOBS)
        files.left = number
        with pytest.raises(KeyboardInterrupt):
            Store(files).delete(K, D)
        assert Store(files).has(K, D) == (number == 0)
        assert (Store(files).get(K, D) is None) == (number > 0)


def test_stores_clock_is_that_of_its_files(files: Files, tmp_path: Path) -> None:
    store = Store(files)
    store.put(K, D, {})
    (written,) = (found.modified for found in files.files(K))
    assert abs(store_clock(store) - written) < 5
    assert store.kinds() == [K]
    assert [found.path for found in files.files("")] == [f"{K}/{D}/entry.json"]


def test_who_asks_for_the_stores_clock_leaves_others_who_ask_alone(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In S3 a folder is deleted after it was seen to be empty: another may write there between."""
    listed = files.files

    def and_another_asks(path: str) -> Iterator[StoredFile]:
        found = [*listed(path)]
        files.write(".clock/anothers", b"")
        return iter(found)

    monkeypatch.setattr(files, "files", and_another_asks)
    store_clock(Store(files))
    assert [found.path for found in listed("")] == [".clock/anothers"]


def test_stores_clock_that_is_deleted_meanwhile_is_an_error_of_the_store() -> None:
    class Emptied(MemoryFiles):
        def files(self, path: str) -> Iterator[StoredFile]:
            return iter(())

    with pytest.raises(StoreError, match=r"now was deleted as soon as it was written"):
        store_clock(Store(Emptied()))


def test_where_nothing_can_be_written_the_time_is_this_machines() -> None:
    class Full(MemoryFiles):
        def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
            raise StoreError("no space left")

    before = time.time()
    assert before <= store_time(Store(Full())) <= time.time()


WRITER = """
import sys
from lth_core.store import open_store
store, me = open_store(sys.argv[1]), int(sys.argv[2])
K, D = sys.argv[3:]
for number in range(me, me + 12):
    content = b"x" * number
    store.put(K, D, {"n": number}, {"state.safetensors": content})
    entry = store.get(K, D)
    assert entry is not None
    assert entry.blob("state.safetensors") == b"x" * entry.meta["n"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_writers_in_several_processes_leave_an_entry_sound(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = request.getfixturevalue("s3") if place == "s3" else str(tmp_path / "store")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, where, str(1000 * n), K, D], stderr=subprocess.PIPE
        )
        for n in range(3)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()
    entry = open_store(where).get(K, D)
    assert entry is not None
    assert entry.blob("state.safetensors") == b"x" * entry.meta["n"]


# What a search keeps


def test_mask_takes_a_bit_a_weight(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for level in find_tickets(tiny_spec(levels=1), Trainer(store)):
        digest = level.results[level.branch].job.digest
        entry = store.get("trainings", digest)
        assert entry is not None
        stored = tmp_path / "trainings" / digest / entry.blobs["mask.safetensors"]["file"]
        content = stored.read_bytes()
        header = int.from_bytes(content[:8], "little")
        sizes = {
            name: about["data_offsets"][1] - about["data_offsets"][0]
            for name, about in json.loads(content[8 : 8 + header]).items()
        }
        weights = {name: mask.numel() for name, mask in level.mask.items()}
        assert sizes == {f"mask/{name}": math.ceil(n / 8) for name, n in weights.items()}
        assert len(content) == 8 + header + sum(math.ceil(n / 8) for n in weights.values())


def test_rewind_point_is_stored_once_however_many_levels_start_from_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    levels = list(find_tickets(tiny_spec(levels=3, rewind="5it"), Trainer(store)))
    assert len(store.digests("trainings")) == len(levels) == 4
    (point,) = store.digests("points")
    entry = store.get("points", point)
    assert entry is not None
    assert entry.meta == {"step": 5, "of": levels[0].results["dense"].job.digest}


def tiny_spec(**changes: object) -> TicketSpec:
    spec = TicketSpec(
        model=ModelSpec(widths=(13,)), train=TrainSpec(steps="10it", evaluate_every="10it"),
        branches=("ticket",),
    )  # fmt: skip
    return replace(spec, **changes)  # type: ignore[arg-type]


def test_entry_json_lists_everything_and_is_written_last(tmp_path: Path) -> None:
    class Watched(FolderFiles):
        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.written: list[str] = []

        def write(self, path: str, content: bytes, *, durable: bool = True) -> None:
            self.written.append(path)
            super().write(path, content, durable=durable)

    files = Watched(tmp_path)
    Store(files).put(K, D, META, BLOBS)
    assert files.written[-1] == f"{K}/{D}/entry.json"
    content = json.loads((tmp_path / f"{K}/{D}/entry.json").read_bytes())["entry"]
    assert content["meta"] == META
    assert {f"{K}/{D}/{listed['file']}" for listed in content["blobs"].values()} == set(
        files.written[:-1]
    )


@pytest.mark.slow
def test_concurrent_writers_of_an_entry_leave_it_sound(files: Files) -> None:
    """Writers of different content: a reader sees one of them whole, at any time."""
    failures: list[Exception] = []
    rounds = 25 if files.exclusive else 8  # a request to S3 takes long

    def write(first: int) -> None:
        try:
            for number in range(first, first + rounds):
                Store(files).put(K, D, {"n": number}, {"state.safetensors": b"x" * number})
                entry = Store(files).get(K, D)
                assert entry is not None
                assert entry.blob("state.safetensors") == b"x" * entry.meta["n"]
                assert Store(files).digests(K) == [D]
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
    Store(FolderFiles(tmp_path)).put(K, D, META, BLOBS)
    assert (
        sorted(path.name for path in (tmp_path / f"{K}/{D}").iterdir() if ".tmp" in path.name) == []
    )


@pytest.mark.parametrize("where", ["gs://x", "s3://", "s3:///p", "file:///tmp/s"])
def test_places_of_another_kind_are_refused_with_those_that_are_known(where: str) -> None:
    message = (
        f"store: must be a folder or in S3, but got '{where}'; known: FOLDER, s3://BUCKET/PREFIX"
    )
    with pytest.raises(SpecError) as error:
        open_store(where)
    assert str(error.value) == message


KEYS = ["s3://KEY:hunter22@bucket/p", "s3://KEY:hunt/er22@bucket/p", "s3://KEY:hunter22/bucket",
        "s3://hunter22@bucket", "S3://KEY:hunter22@bucket", "https://u:hunter22@host/p"]  # fmt: skip


@pytest.mark.parametrize("where", KEYS)
def test_keys_in_an_address_are_refused_and_not_repeated(where: str) -> None:
    for make in (True, False):
        with pytest.raises(
            SpecError, match=r"^store: must .*known: FOLDER, s3://BUCKET/PREFIX$"
        ) as refused:
            open_store(where, make=make)
        assert "hunt" not in f"{refused.value} {refused.value.got}"
        assert "er22" not in f"{refused.value} {refused.value.got}"


@pytest.mark.parametrize("bucket", ["a b", "a\nb", "a?region=x", "ä"])
def test_bucket_that_cannot_be_one_is_refused(bucket: str) -> None:
    with pytest.raises(SpecError, match="store: must name a bucket by letters, digits"):
        open_store(f"s3://{bucket}/p")


@pytest.mark.parametrize("prefix", ["/dd", "d//d", "../d", "d/./d"])
def test_prefix_with_a_part_that_is_no_folder_is_refused(prefix: str) -> None:
    with pytest.raises(SpecError, match="store: must have no empty part"):
        open_store(f"s3://bucket/{prefix}")


@pytest.mark.parametrize("prefix", ["a", "a/b/", ""])
def test_stores_of_a_bucket_are_apart_by_prefix(s3: str, prefix: str) -> None:
    one, other = open_store(f"{s3}/{prefix}"), open_store(f"{s3}-other")
    one.put(K, D, META, BLOBS)
    assert open_store(f"{s3}/{prefix}").has(K, D)
    assert not other.has(K, D)
    assert one.kinds() == [K]


def test_stores_whose_prefixes_share_a_first_word_are_apart(s3: str) -> None:
    one, other = open_store(f"{s3}/my runs"), open_store(f"{s3}/my other")
    one.put(K, D, META, BLOBS)
    assert (one.has(K, D), other.has(K, D)) == (True, False)
    open_store(f"{s3}/ x").put(K, D, META)
    assert open_store(f"{s3}/ x").has(K, D)


def test_store_that_is_only_read_is_not_made(tmp_path: Path, s3: str, s3_server: S3Server) -> None:
    before = len(s3_server.requests())
    for where in (str(tmp_path / "nowhere"), s3):
        store = open_store(where, make=False)
        assert (store.kinds(), store.digests(K), store.get(K, D)) == ([], [], None)
    assert not (tmp_path / "nowhere").exists()
    asked = {request.split()[0] for request in s3_server.requests()[before:]}
    assert asked == {"HEAD", "GET"}


def test_open_store_is_a_folder_or_memory(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a" / "b")).put(K, D, META)
    assert open_store(str(tmp_path / "a" / "b")).has(K, D)
    assert open_store(tmp_path / "a" / "b").has(K, D)
    with pytest.raises(SpecError, match=r"^store: must be a folder, in S3, or None, but got 3"):
        open_store(3)  # type: ignore[arg-type]
    assert not open_store(None).has(K, D)


@pytest.mark.parametrize(
    "content",
    [
        {"meta": [], "blobs": {}},
        {"meta": {}, "blobs": []},
        {"meta": {}, "blobs": {"a": {"file": "..", "sha256": "0", "size": 0}}},
        {"meta": {}, "blobs": {"a": {"file": 3, "sha256": "0", "size": 0}}},
        {"meta": {}, "blobs": {"a": {"file": "a-0.b", "size": 0}}},
        {"meta": {}},
    ],
)
def test_entry_of_another_program_is_corrupt_whatever_its_checksum(
    content: object, files: Files
) -> None:
    files.write(f"{K}/{D}/entry.json", manifest_of(content))
    with pytest.raises(CorruptEntryError, match="is torn or altered"):
        Store(files).get(K, D)
