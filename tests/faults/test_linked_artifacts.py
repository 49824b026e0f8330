"""MLflow's artifacts behind a symbolic link to another disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from in_process import start
from swept import Swept

pytestmark = pytest.mark.mlflow


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of a file system other than that of the tests, where Linux has the one in memory."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="lth-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_artifacts_behind_a_link_are_published_and_none_is_deleted(
    study: Callable[..., Swept], other_disk: Path
) -> None:
    swept = study(axes={"seed": [0]}, tracking={"uri": "sqlite:///mlflow.db"})
    link = swept.folder / "mlartifacts"
    link.symlink_to(other_disk)
    theirs = other_disk / "hit" / "theirs" / "ticket.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"another sweep's")

    process = start(swept)
    process.join()
    assert process.exitcode == 0
    trained = files(other_disk)
    levels = [
        f"level_{level:02}/{name}.safetensors" for level in range(3) for name in ("mask", "ticket")
    ]
    for name in levels:
        assert [path for path in trained if str(path).endswith(name)], name

    assert "lth sync" not in swept.lth("report", "hit.yaml"), "MLflow has all of it"
    reported = files(other_disk)
    assert reported.items() >= trained.items()
    assert {path.name for path in reported.keys() - trained} >= {"report.html", "accuracy.svg"}

    swept.lth("store", "gc", str(swept.store), "--older", "0s")
    (swept.folder / "mlflow.db").unlink()  # so that all is published again, under other names
    assert swept.lth("sync", "hit.yaml") == "hit: 1 trial is in MLflow\n"
    assert link.is_symlink()
    synced = files(other_disk)
    assert synced.items() >= reported.items()
    assert len([path for path in synced if path.name == "ticket.safetensors"]) == 1 + 2 * 3
