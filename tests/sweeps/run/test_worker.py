"""What a worker says of a trial that fails, without a cluster."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import StudyOf, context_of

from lth_core import Trainer
from lth_core.errors import DataError, PreemptedError, StoreError
from sweeps.plan.plan import make_plan
from sweeps.run.worker import item_config, reports

Told = Callable[[Exception], list[dict[str, Any]]]


@pytest.fixture
def told(tiny: StudyOf, monkeypatch: pytest.MonkeyPatch) -> Told:
    """The report of a trial that raises an error."""
    study = tiny({"axes.seed": [0]})
    (trial,) = make_plan(study).trials

    def of(error: Exception) -> list[dict[str, Any]]:
        def raises(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("sweeps.run.trial.find_tickets", raises)
        said = list(reports(item_config([(trial, ())]), context_of(study), Trainer()))
        for report in said:
            assert [name for name, _ in report["failed"]] in ([], [trial.id])
        return said

    return of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("bad shape\nin a layer"), "RuntimeError: bad shape in a layer"),
        (KeyError("conv1"), "KeyError: 'conv1'"),
        (ZeroDivisionError("https://bob:hunter22@h/x"), "ZeroDivisionError: https://***@h/x"),
        (DataError("mnist is not there"), "mnist is not there"),
    ],
)
def test_fault_that_would_come_again_is_reported(
    error: Exception, reason: str, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    (report,) = told(error)
    assert report["done"]
    assert [why for _, why in report["failed"]] == [reason]
    assert ("Traceback" in caplog.text) is not isinstance(error, DataError)
    assert "hunter22" not in caplog.text


def test_store_that_fails_is_reported_as_such(told: Told) -> None:
    assert told(StoreError("no space left")) == [
        {"failed": [], "done": True, "store": "no space left"}
    ]


@pytest.mark.parametrize(
    "error",
    [
        PreemptedError("told to end"), OSError("stale file handle"), MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error"),
    ],
)  # fmt: skip
def test_what_may_pass_in_another_process_is_raised(error: Exception, told: Told) -> None:
    with pytest.raises(type(error)):
        told(error)
