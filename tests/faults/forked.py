"""`lth` in processes forked from one that has imported torch: each saves the time of the import."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "lth_core.train", "sweeps.run.launch"])
"""Neither Ray nor MLflow nor matplotlib, which read the environment as they are imported."""


TESTS = Path(__file__).parents[1]


class Forked:
    """A command in a session of its own, as `subprocess.Popen` has it."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, env: Mapping[str, str], log: Path
    ) -> None:
        work = list(arguments), str(folder), dict(env), str(log)
        self._process: ForkServerProcess = CONTEXT.Process(target=_run, args=work)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lth", timeout or 0)
        return self._process.exitcode


def _run(arguments: list[str], folder: str, env: dict[str, str], log: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may be another
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    faulthandler.enable()
    # The folder's own module `counted`, not that of the tests.
    sys.path[:] = [path for path in sys.path if not Path(path).is_relative_to(TESTS)]
    sys.argv = ["lth", *arguments]
    from sweeps.cli import run

    run()
