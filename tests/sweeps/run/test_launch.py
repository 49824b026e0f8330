"""Real sweeps on a real Ray: on this machine as a user starts it, and on a cluster of one node."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import Lth, Record, StudyFile, search, timeless, tiny_fields

from lth_core import Trainer
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

pytestmark = pytest.mark.ray

LTH = Path(sys.executable).with_name("lth")
PATIENCE = 600
"""Seconds for what takes about 20 on a machine with nothing else to do."""


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Ray's folder; its sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def undisturbed(changes: Mapping[str, Any]) -> list[Record]:
    """The study's records, searched in this process."""
    found = search(parse_study(tiny_fields(changes)), Trainer())
    return [row for _, rows in found for row in rows]


def reported(lth: Lth, *overrides: str) -> list[Record]:
    """The study's records as `lth report --json` tells them, verdicts aside."""
    rows = [
        json.loads(line) for line in lth("report", "tiny", *overrides, "--json").out.splitlines()
    ]
    return [{k: v for k, v in row.items() if k != "verdict"} for row in rows]


def wait_for(what: Callable[[], object], seconds: float, why: str) -> None:
    begun = time.monotonic()
    while not what():
        if time.monotonic() - begun > seconds:
            pytest.fail(f"waited {seconds} s for {why}")
        time.sleep(0.05)


# On this machine, as a user starts it


class Swept:
    """`lth sweep tiny.yaml` in a session of its own, so that all it starts can be told by it."""

    def __init__(self, ray_folder: Path, here: Path) -> None:
        env = {**os.environ, "RAY_TMPDIR": str(ray_folder), "TMPDIR": str(ray_folder)}
        self.log = here / "log.txt"
        with self.log.open("w") as log:
            self.driver = subprocess.Popen(
                [LTH, "sweep", "tiny.yaml"], cwd=here, env=env, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> tuple[int, str]:
        code = self.driver.wait(PATIENCE)
        return code, self.log.read_text()

    def processes(self) -> dict[int, str]:
        """What of the session is left: process id -> name."""
        found = {}
        for path in Path("/proc").iterdir():
            try:
                _, _, stat = (path / "stat").read_text().rpartition(") ")
                if int(stat.split()[3]) == self.driver.pid and stat[0] != "Z":
                    found[int(path.name)] = (path / "comm").read_text().strip()
            except (OSError, ValueError, IndexError):
                continue
        return found

    def end(self) -> None:
        """End what is left of the session, by process id."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.driver.wait()


@pytest.fixture
def sweep(ray_folder: Path, here: Path) -> Iterator[Callable[[], Swept]]:
    begun: list[Swept] = []

    def start() -> Swept:
        begun.append(Swept(ray_folder, here))
        return begun[-1]

    yield start
    for swept in begun:
        swept.end()


def test_sweep_trains_tracks_reports_and_leaves_no_process(
    sweep: Callable[[], Swept], tiny_file: StudyFile, here: Path, lth: Lth
) -> None:
    changes = {"axes.seed": [0, 1, 2], "tracking.uri": "sqlite:///mlflow.db"}
    tiny_file(changes)
    swept = sweep()
    code, log = swept.wait()
    assert code == 0, log
    wait_for(lambda: not swept.processes(), PATIENCE, "Ray to be gone")

    rows = reported(lth)
    assert timeless(rows) == timeless(undisturbed(changes))
    assert not any(row["reused"] for row in rows)
    folder = here / "lth-studies" / "tiny"
    assert "</html>" in (folder / "report.html").read_text()
    assert list((folder / "figures").glob("*.svg"))
    assert "Traceback" not in log
    assert "9/9 levels" in log
    assert f"report: {folder / 'report.html'}" in log
    assert "lth ui tiny" in log

    with sqlite3.connect(here / "mlflow.db") as database:
        runs = database.execute(
            "select count(*) from runs join experiments using (experiment_id) "
            "where experiments.name = 'tiny' and status = 'FINISHED'"
        ).fetchone()
    database.close()
    assert runs == (1 + 1 + 3,), "the study, its cell, the trials"

    entries = stamps(here)
    called = lth("sweep", "tiny.yaml", "tracking.uri=null")
    assert called.code == 0
    assert not re.search(r"\d+/\d+ levels", called.out)  # nothing is missing: Ray is not started
    assert stamps(here) == entries
    assert all(row["reused"] for row in reported(lth))


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each finished training was written, and what it says."""
    found = (folder / "lth-store" / "trainings").glob("*/entry.json")
    return {path.parent.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.mark.long
def test_sweep_into_s3_is_reported_watched_and_gone_on_with(
    s3: str, tiny_file: StudyFile, lth: Lth, here: Path, ray_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """This machine's workers have its keys; those of a cluster have their own."""
    monkeypatch.setenv("RAY_TMPDIR", str(ray_folder))
    changes = {"store": s3, "base.levels": 1, "base.branches": ["ticket"]}
    path = tiny_file(changes)
    assert lth("sweep", path).code == 0
    rows = reported(lth)
    assert timeless(rows) == timeless(undisturbed(changes))
    assert not any(row["reused"] for row in rows)
    said = json.loads(lth("status", "tiny", "--json").out)
    assert (said["state"], said["done"], said["levels_done"]) == ("finished", 2, 4)
    assert lth("sweep", path, "base.levels=2", "--serial").code == 0
    assert [row["reused"] for row in reported(lth)] == [True, True, False] * 2
    assert not (here / "lth-store").exists()


# On a cluster


@pytest.fixture(scope="module")
def cluster(ray_folder: Path) -> Iterator[str]:
    """The address of a cluster of one node with one CPU, started apart from the sweeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(ray_folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=node)
        yield made.address
        made.shutdown()


@pytest.fixture
def mishaps(here: Path) -> Callable[[str], str]:
    """The misbehaving networks as a module of the user's, under a name of its own."""

    def place(module: str) -> str:
        shutil.copy(Path(__file__).with_name("accidents.py"), here / f"{module}.py")
        (here / "driver").write_text(str(os.getpid()))
        return module

    return place


@pytest.mark.long
def test_short_trials_of_a_random_search_run_two_at_once_on_half_a_cpu_each(
    cluster: str, tiny_file: StudyFile, lth: Lth, mishaps: Callable[[str], str], here: Path
) -> None:
    """They are many and shorter than a worker's start, for the second worker may be long in coming;
    holding the first one up for it would bring it where Tune asks for one trial at a time, too."""
    space = {"train.lr": {"low": 0.001, "high": 0.1, "log": True}}
    changes = {
        "axes.seed": [0], "search": {"algorithm": "random", "trials": 40, "space": space},
        "resources.cpu": 0.5, "base.levels": 1, "base.branches": ["ticket"],
        "base.model": {"name": f"{mishaps('mishap_lingers')}:lingers"},
    }  # fmt: skip
    called = lth("sweep", tiny_file(changes), "--address", cluster)
    assert called.code == 0, called
    assert len(list(here.glob("here-*"))) == 2
    planned = [t.spec.train.lr for t in make_plan(parse_study(tiny_fields(changes))).trials]
    rows = reported(lth)
    assert list(dict.fromkeys(row["train.lr"] for row in rows)) == planned
    assert len(rows) == 40 * 2


@pytest.mark.long
def test_optuna_goes_on_from_its_journal_to_more_trials_and_a_pareto_front(
    cluster: str, tiny_file: StudyFile, lth: Lth
) -> None:
    import optuna

    from sweeps.run.search import open_study

    changes = {
        "axes.seed": [0], "base.levels": 1, "base.branches": ["ticket"],
        "search": {
            "algorithm": "optuna", "trials": 3, "objective": ["final_test_accuracy", "density"],
            "space": {"prune.fraction": {"low": 0.1, "high": 0.9}, "train.lr": [0.001, 0.01]},
        },
    }  # fmt: skip
    study = parse_study(tiny_fields(changes))

    def samples() -> dict[int, Any]:
        states = (optuna.trial.TrialState.COMPLETE,)
        return {t.number: (t.params, t.values) for t in open_study(study).get_trials(states=states)}

    path = tiny_file(changes)
    assert lth("sweep", path, "--serial").code == 0
    first = samples()
    assert len(first) == 3
    orphan = open_study(study).ask().number  # as a killed sweep leaves one

    called = lth("sweep", path, "search.trials=5", "--address", cluster)
    assert called.code == 0, called
    second = samples()
    assert {number: second[number] for number in first} == first
    assert len(second) == 5
    assert orphan not in second
    assert len({params["prune.fraction"] for params, _ in second.values()}) == 5

    rows = [row for row in reported(lth) if row["branch"] == "ticket"]
    values = {(row["final_test_accuracy"], row["density"]) for row in rows}
    assert values == {tuple(said) for _, said in second.values()}
    front = [v for v in values if not any(dominates(other, v) for other in values)]
    best = [line for line in called.out.splitlines() if line.startswith("best: ")]
    expected = {f"final_test_accuracy {a:.4g}, density {d:.4g}" for a, d in front}
    assert {line.removeprefix("best: ").partition("  at  ")[0] for line in best} == expected
    assert all(line.endswith("(1 seed)") for line in best)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether a is no worse than b in accuracy (up) and density (down), and better in one."""
    return a != b and a[0] >= b[0] and a[1] <= b[1]
