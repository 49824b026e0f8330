"""Sweeps of users whose new files nobody else may read, or everybody may write."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from swept import Driver, Swept

pytestmark = [pytest.mark.ray, pytest.mark.mlflow]

PRIVATE, OPEN = 0o077, 0o000


def modes(folder: Path) -> dict[str, int]:
    """Who may do what with each file and folder below, but for Ray's folders.

    Ray lets everybody into its folders, whatever the umask; the files in them are as it says.
    Python's bytecode has its source's mode.
    """
    return {
        str(path.relative_to(folder)): path.lstat().st_mode
        for path in folder.rglob("*")
        if not path.is_symlink()
        and path.suffix != ".pyc"
        and not (path.is_dir() and "ray" in path.relative_to(folder).parts)
    }


def begun(swept: Swept, umask: int) -> Driver:
    return swept.start(before=["sh", "-c", f'umask {umask:o}; exec "$@"', "sh"])


def test_all_that_a_sweep_writes_is_as_the_umask_says_and_serves_the_next_sweep_under_another(
    study: Callable[..., Swept],
) -> None:
    """But for Ray's token, which nobody else may read, and MLflow's database, to which nobody else
    may write: SQLite never lets them."""
    made = {
        umask: study(axes={"seed": [0]}, tracking={"uri": "sqlite:///mlflow.db"})
        for umask in (PRIVATE, OPEN)
    }
    ours = set(modes(made[OPEN].folder)) | {"home", "log.txt"}
    for swept in made.values():
        home = swept.folder / "home"
        home.mkdir(0o700)
        swept.env |= {"HOME": str(home), "TMPDIR": swept.env["RAY_TMPDIR"]}
        swept.env.setdefault("MPLCONFIGDIR", str(home))
        swept.env.pop("RAY_AUTH_MODE", None)
    drivers = {umask: begun(swept, umask) for umask, swept in made.items()}
    for umask, swept in made.items():
        assert swept.wait(drivers[umask]) == 0, swept.log()

    private, open_ = (
        {p: m for p, m in modes(swept.folder).items() if p not in ours} for swept in made.values()
    )
    for found in (private, open_):
        assert {"lth-store", "lth-studies", "mlartifacts", "mlflow.db"} <= found.keys()
        assert stat.S_IMODE(found["home/.ray/auth_token"]) == 0o600
        assert stat.S_IMODE(found["home/.ray"]) & 0o022 == 0, "or the token could be exchanged"
    rays = modes(Path(made[PRIVATE].env["RAY_TMPDIR"]))
    assert any(path.endswith("raylet.out") for path in rays)
    assert [p for p, mode in (private | rays).items() if mode & 0o077] == []
    apart = {"mlflow.db", "home"}
    shared = {p: m for p, m in open_.items() if p.partition("/")[0] not in apart}
    assert {stat.S_IMODE(m) for m in shared.values() if stat.S_ISDIR(m)} == {0o777}
    assert {stat.S_IMODE(m) for m in shared.values() if not stat.S_ISDIR(m)} == {0o666}

    steps = [len(swept.steps()) for swept in made.values()]
    drivers = {umask: begun(swept, OPEN if umask else PRIVATE) for umask, swept in made.items()}
    for umask, swept in made.items():
        assert swept.wait(drivers[umask]) == 0, swept.log()
        assert "sync" not in swept.log(), "MLflow has all of it"
    assert [len(swept.steps()) for swept in made.values()] == steps
