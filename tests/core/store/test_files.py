"""The contract of places that keep files, and what is each one's own."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import Nfs
from servers import BUCKET, S3Server, s3_on_loopback

from lth_core.errors import StoreError
from lth_core.store import Store, folder, open_store, s3
from lth_core.store.files import Files, MemoryFiles
from lth_core.store.folder import TRIES, FolderFiles
from lth_core.store.s3 import s3_files

BLOBS = {"state.safetensors": b"x" * 1000}


# The contract


def test_file_is_read_as_written_and_replaced_whole(files: Files) -> None:
    files.write("a/b/c.bin", b"long content")
    assert files.read("a/b/c.bin") == b"long content"
    files.write("a/b/c.bin", b"new", durable=False)
    assert files.read("a/b/c.bin") == b"new"
    assert files.sizes(["a/b/c.bin"]) == [3]


def test_what_is_not_there_is_none(files: Files) -> None:
    files.write("a/b", b"x")
    for path in ("nowhere", "a/c", "a/b/c", "x/y/z"):
        assert files.read(path) is None
        assert files.sizes([path, "a/b"]) == [None, 1]
    assert list(files.folders("nowhere")) == list(files.files("nowhere")) == []


def test_empty_and_large_files_come_back(files: Files) -> None:
    large = bytes(range(256)) * 4 * 15_000  # of two parts in S3
    files.write("a/empty", b"")
    files.write("a/large", large)
    assert (files.read("a/empty"), files.read("a/large")) == (b"", large)
    assert files.sizes(["a/empty", "a/large", "a/none"]) == [0, len(large), None]


def test_folders_are_those_directly_below(files: Files) -> None:
    for path in ("a/one/x", "a/one/y", "a/two/deep/x", "a/file", "ab/three/x", "a/.hidden/x"):
        files.write(path, b"")
    assert sorted(files.folders("a")) == ["one", "two"]
    assert sorted(files.folders("")) == ["a", "ab"]


def test_walk_finds_every_file_with_its_size_and_time(files: Files) -> None:
    before = time.time()
    written = {"a/one/x": 1, "a/one/y": 2, "a/two/deep/x": 3, "ab/x": 4}
    for path, size in written.items():
        files.write(path, b"x" * size)
    found = list(files.files(""))
    assert {each.path: each.size for each in found} == written
    assert all(before - 2 < each.modified < time.time() + 2 for each in found)
    assert sorted(each.path for each in files.files("a")) == ["a/one/x", "a/one/y", "a/two/deep/x"]


def test_create_writes_only_what_is_not_there(files: Files) -> None:
    assert files.create("a/b/claim", b"mine")
    assert not files.create("a/b/claim", b"yours")
    assert files.read("a/b/claim") == b"mine"
    files.delete("a/b/claim")
    assert files.create("a/b/claim", b"yours")


def test_deleted_files_are_gone_and_emptied_folders_with_them(files: Files) -> None:
    for path in ("a/one/x", "a/one/y", "a/two/deep/x", "a/two/x", "a/three/x"):
        files.write(path, b"x")
    files.delete("a/one/x")
    assert sorted(each.path for each in files.files("a/one")) == ["a/one/y"]
    files.delete("a/three/x")
    files.delete("a/two/x", "a/two/y", "a/two/deep")  # a folder is never deleted with what is in it
    assert sorted(files.folders("a")) == ["one", "two"]
    assert (files.read("a/one/x"), files.read("a/two/deep/x")) == (None, b"x")
    files.delete("a/two/deep/x")
    for path in ("a/one/x", "a/two", "never/was"):
        files.delete(path)
    assert [each.path for each in files.files("")] == ["a/one/y"]


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/x", "a//x", "a/./x", "", "..", "a/\0x", "a/"]
)
def test_names_that_lead_out_of_the_place_are_refused(files: Files, path: str) -> None:
    for act in (
        lambda: files.read(path),
        lambda: files.write(path, b"x"),
        lambda: files.create(path, b"x"),
        lambda: files.sizes([path]),
        lambda: files.delete(path),
        lambda: list(files.files(path or "..")),
        lambda: list(files.folders(path or "..")),
    ):
        with pytest.raises(StoreError, match="must lead to a file inside the store"):
            act()


def test_files_come_and_go_side_by_side(files: Files) -> None:
    """Writers and deleters of one folder: every write succeeds, a reader sees whole files."""
    failures: list[BaseException] = []
    rounds = 8

    def act(number: int) -> None:
        try:
            for _ in range(rounds):
                files.write("k/d/file", b"%d" % number * 1000)
                seen = files.read("k/d/file")
                assert seen is None or (len(seen) == 1000 and len(set(seen)) == 1)
                files.delete("k/d/file")
        except BaseException as error:  # noqa: BLE001  carried to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_one_of_many_that_create_a_file_succeeds(tmp_path: Path) -> None:
    for place in (FolderFiles(tmp_path), MemoryFiles()):
        start, made = threading.Barrier(8), list[bool]()

        def act(
            place: Files = place, start: threading.Barrier = start, made: list[bool] = made
        ) -> None:
            start.wait()
            made.append(place.create("a/b/claim", b"mine"))

        threads = [threading.Thread(target=act) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [False] * 7 + [True]


# A power cut


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced to the disk from now on: each file or folder, under its name of then."""
    seen, real = list[Path](), os.fsync

    def sync(number: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        real(number)

    monkeypatch.setattr(os, "fsync", sync)
    return seen


def test_what_is_durable_is_synced_with_the_name_it_ends_up_under(
    synced: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.replace

    def replace(path: Path, target: Path) -> Path:
        synced.append(target)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    FolderFiles(tmp_path).write("a/b/x", b"content")
    scratch, named, folder = synced
    assert scratch.parent == folder == tmp_path / "a/b"
    assert named == tmp_path / "a/b/x"
    synced.clear()
    FolderFiles(tmp_path).write("a/b/x", b"content", durable=False)
    assert synced == [tmp_path / "a/b/x"]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_file_system_that_syncs_no_folders_is_written_to_and_a_broken_one_is_an_error(
    number: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def sync(file: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", sync)
    files = FolderFiles(tmp_path)
    if passes:
        files.write("a/x", b"content")
    else:
        with pytest.raises(StoreError, match=r"cannot write a/x \(Input/output error\)"):
            files.write("a/x", b"content")
    assert files.read("a/x") == b"content"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


# NFS


def test_file_replaced_by_another_machine_is_read_again(nfs: Nfs) -> None:
    mine = FolderFiles(nfs.root)
    mine.write("a/x", b"old")
    assert mine.read("a/x") == b"old"
    for content in (b"new", b"newer"):
        with nfs.elsewhere():
            FolderFiles(nfs.root).write("a/x", content)
        assert mine.read("a/x") == content
        with nfs.elsewhere():
            FolderFiles(nfs.root).write("a/x", content)
        assert mine.sizes(["a/x"]) == [len(content)]
    assert nfs.stale == 4


def test_file_is_seen_though_it_was_remembered_as_absent(nfs: Nfs) -> None:
    mine = FolderFiles(nfs.root)
    mine.write("a/y", b"")
    assert mine.read("a/x") is None
    mine.sizes(["a/x"])
    with nfs.elsewhere():
        FolderFiles(nfs.root).write("a/x", b"there")
    nfs.absent.add(str(nfs.root / "a/x"))
    assert mine.read("a/x") == b"there"
    nfs.absent.add(str(nfs.root / "a/x"))
    assert mine.sizes(["a/x"]) == [5]


def test_open_files_do_not_keep_a_deleted_entry(nfs: Nfs) -> None:
    mine, digest = Store(FolderFiles(nfs.root)), "d" * 64
    mine.put("points", digest, {}, BLOBS)
    nfs.held = {str(path) for path in (nfs.root / "points" / digest).iterdir()}
    mine.delete("points", digest)
    assert mine.digests("points") == []
    assert mine.get("points", digest) is None
    with nfs.elsewhere():
        left = [path.name for path in nfs.root.rglob("*") if path.is_file()]
    assert set(left) <= {".nfs0001"}
    assert list(mine.files.files("")) == []
    mine.put("points", digest, {}, BLOBS)
    assert mine.has("points", digest)


# A disk that is full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_an_error_and_leaves_what_was_there(small_disk: Path) -> None:
    store = open_store(str(small_disk / "store"))
    store.put("k", "before", {"n": 1}, BLOBS)
    left = shutil.disk_usage(small_disk).free
    with pytest.raises(
        StoreError,
        match=r"cannot write k/after/state-.*No space left on device; \d+ bytes are free",
    ):
        store.put("k", "after", {}, {"state.safetensors": b"x" * (1 << 20)})
    entry = store.get("k", "before")
    assert entry is not None
    assert entry.blob("state.safetensors") == BLOBS["state.safetensors"]
    assert store.get("k", "after") is None
    assert [each.path for each in store.files.files("k/after")] == []
    assert shutil.disk_usage(small_disk).free >= left - 4096  # the empty folder
    with pytest.raises(StoreError, match="No space left"):
        store.files.write("k/before/entry.json", b"x" * (1 << 20))
    assert store.has("k", "before")
    full = small_disk / "full"
    full.write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with pytest.raises(StoreError, match="No space left"):
        store.files.create("claims/d/claim.json", b"x" * 10_000)
    assert store.files.read("claims/d/claim.json") is None
    full.unlink()
    store.put("k", "after", {}, BLOBS)
    assert store.has("k", "after")


# Places that cannot be had


def test_folder_that_cannot_be_made_is_an_error_that_names_what_exists(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    there = tmp_path / "file"
    with pytest.raises(
        StoreError, match=rf"{there}/a/s cannot be made \(Not a dir.*there is {there}$"
    ):
        open_store(str(there / "a" / "s"))
    with pytest.raises(StoreError, match=rf"store {there}: cannot write k/d/entry\.json"):
        Store(FolderFiles(there)).put("k", "d", {})


AS_NOBODY = """
import os, sys
from lth_core.errors import StoreError
from lth_core.store import open_store
os.setuid(65534)
try:
    open_store(sys.argv[1])
except StoreError as error:
    print(error)
try:
    open_store(sys.argv[1], make=False).put("k", "d", {})
except StoreError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="taking another user's place needs root")
def test_folder_of_another_user_is_an_error(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    for parent in theirs.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    process = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(theirs)], capture_output=True, text=True, timeout=300
    )
    assert process.stdout.splitlines() == [
        f"store: {theirs} cannot be written to (no permission)",
        f"store {theirs}: cannot write k/d/entry.json (Permission denied)",
    ], process.stderr
    assert list(theirs.iterdir()) == []


def test_bucket_that_is_not_there_is_an_error_that_names_those_that_are(
    s3: str, s3_server: S3Server
) -> None:
    with pytest.raises(
        StoreError,
        match=rf"s3://nowhere/p at http://.*: there is no bucket nowhere; there are: {BUCKET}",
    ):
        open_store("s3://nowhere/p")
    assert "PUT /nowhere" not in s3_server.requests()


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_endpoint_with_a_password_is_refused_and_not_repeated(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://user:hun/ter22@127.0.0.1:9")
    with pytest.raises(StoreError, match=r"must hold no user and no password") as refused:
        open_store("s3://bucket/p")
    assert "'http://***@127.0.0.1:9'" in str(refused.value)
    assert "ter22" not in str(refused.value)


def test_bucket_that_pyarrow_takes_for_nonsense_is_an_error_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ValueError is none that anybody awaits."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"store s3://ab:c/p at .*: cannot be reached \(Expected"):
        s3_files("ab:c", "p")


@pytest.mark.slow
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.usefixtures("s3")
def test_endpoint_that_does_not_answer_is_an_error_in_time(
    listens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a listener, and with one that accepts the connection and never answers."""
    waits = s3.ATTEMPTS * s3.TIMEOUT
    assert waits < 15
    monkeypatch.setattr(s3, "TIMEOUT", 0.2)
    server = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    if not listens:
        server.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    started = time.monotonic()
    with pytest.raises(StoreError) as refused:
        open_store("s3://bucket/p")
    assert time.monotonic() - started < waits
    assert f"s3://bucket/p at {address}: cannot be reached" in str(refused.value)
    assert "AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_DEFAULT_REGION" in str(refused.value)
    server.close()


@pytest.mark.slow
def test_store_whose_endpoint_falls_silent_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    with s3_on_loopback(tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/p")
        store.put("k", "d", {}, BLOBS)
    started = time.monotonic()
    with pytest.raises(StoreError, match=rf"s3://{BUCKET}/p at .*: cannot write k/e/state-"):
        store.put("k", "e", {}, BLOBS)
    with pytest.raises(StoreError, match=r"cannot read k/d/entry\.json"):
        store.get("k", "d")
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_denied_access_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_on_loopback(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="1") as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"cannot be reached \(.*ACCESS_DENIED"):
            open_store(f"s3://{BUCKET}/p")
        assert time.monotonic() - started < 30


def test_error_that_passes_is_retried_and_one_that_stays_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PAUSE", 1e-5)
    mine, real, calls = FolderFiles(tmp_path), os.open, [0]
    mine.write("a/x", b"content")

    def stale(times: int) -> None:
        calls[0] = 0

        def open_stale(path: Path, flags: int) -> int:
            calls[0] += 1
            if calls[0] <= times:
                raise OSError(errno.ESTALE, "Stale file handle")
            return real(path, flags)

        monkeypatch.setattr(os, "open", open_stale)

    stale(TRIES - 1)
    assert mine.read("a/x") == b"content"
    stale(TRIES)
    with pytest.raises(StoreError, match=r"cannot read a/x \(Stale file handle\)"):
        mine.read("a/x")
