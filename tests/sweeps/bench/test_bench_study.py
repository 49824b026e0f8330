from dataclasses import replace
from math import prod
from types import SimpleNamespace

import pytest

from lth_core.lottery import levels
from sweeps.bench import benchmarks, study, sweep
from sweeps.bench.benchmarks import BENCHMARKS
from sweeps.bench.study import STANDARD, StudyBench, bench_study
from sweeps.plan.plan import make_plan
from sweeps.studies.reader import parse_study

FOUND = StudyBench(
    steps=2000, trainings=20, unique_steps=1000, unique_trainings=10, textbook=8.0, fp32=2.0,
    bf16=1.0, length=100, sweep=12.0, outside=4.0, alone=1.5, pack=1, images="MNIST",
)  # fmt: skip
"""A script of 160 s, a sweep of 12 s, of which 4 s lie outside training."""


def test_sweep_is_compared_with_all_trainings_of_the_script() -> None:
    assert FOUND.script_seconds() == 160
    assert FOUND.sweep_seconds() == 12
    assert FOUND.times() == pytest.approx(160 / 12)


def test_time_outside_training_stays_where_trainings_are_longer() -> None:
    assert FOUND.sweep_seconds(10) == 10 * 8 + 4
    assert FOUND.times(10) == pytest.approx(1600 / 84)


@pytest.mark.parametrize("longer", [1, 10])
def test_speed_is_the_product_of_its_parts(longer: int) -> None:
    assert prod(FOUND.factors(longer).values()) == pytest.approx(FOUND.times(longer))


def test_parts_are_loop_precision_sharing_packs_and_the_rest() -> None:
    assert list(FOUND.factors().values()) == pytest.approx([4, 2, 2, 10 / 8, 8 / 12])


def test_share_outside_training_is_of_the_sweeps_whole_time() -> None:
    assert FOUND.outside_share(30) == 4 / (4 + 300)


def test_rows_name_how_the_script_was_measured_and_have_the_limits(monkeypatch) -> None:
    monkeypatch.setattr(benchmarks, "bench_study", lambda: FOUND)
    rows = list(BENCHMARKS["study"]())
    assert rows[0].measured == 1.5 * FOUND.times(10)
    assert rows[0].at_least == 10
    assert "extrapolated" in rows[1].figure
    assert rows[1].figure.endswith("; MNIST")
    assert rows[-1].at_most == 0.05
    assert rows[-1].measured == 4 / 304


@pytest.mark.slow  # reads MNIST
def test_study_has_the_standard_shape() -> None:
    """Rewind points share the dense run, and the first mask's training from fresh weights."""
    plan = make_plan(parse_study(STANDARD))
    assert len(plan.trials) == 3 * 2
    assert plan.counts.trainings == 6 * (1 + 12 * 3)
    assert plan.counts.unique_trainings == 3 * (1 + 2 * 12 * 3 - 1)


def _tiny() -> dict:
    train = {**STANDARD["base"]["train"], "batch_size": 400}
    base = {**STANDARD["base"], "data": {"name": "digits"}, "train": train, "levels": 1}
    axes = {"seed": [0, 1, 2], "rewind": ["0it", "50%"]}
    return {**STANDARD, "base": base, "axes": axes}


def test_each_loop_trains_the_same_job(monkeypatch) -> None:
    monkeypatch.setattr(study, "ROUNDS", 1)
    monkeypatch.setattr(study, "MEASURED", 2)
    monkeypatch.setattr(study, "usable_cpus", lambda: 1)
    job = next(levels(make_plan(parse_study(_tiny())).trials[0].spec))["dense"]
    found = study._training_seconds(job, replace(job, train=replace(job.train, steps="2it")))
    assert all(seconds > 0 for seconds in found.values())


def test_script_that_all_cores_make_slower_would_use_one() -> None:
    assert study.loss_of_one_at_a_time(one=1.0, together=0.8, cpus=2) == pytest.approx(1.6)
    assert study.loss_of_one_at_a_time(one=1.0, together=3.0, cpus=2) == 2


def test_short_study_has_as_many_trainings_each_of_one_or_two_steps() -> None:
    """Without steps one would be evaluated on the training images too."""
    whole, short = (make_plan(parse_study(f)) for f in (_tiny(), study.shortened(_tiny())))
    assert short.counts.unique_trainings == whole.counts.unique_trainings
    jobs = [job for t in short.trials for level in levels(t.spec) for job in level.values()]
    assert {job.last - job.first for job in jobs} == {1, 2}


def test_evaluations_of_the_short_study_are_not_outside_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps = iter([100.0, 40.0])
    took = {"textbook": 8.0, "fp32": 2.0, "bf16": 1.0, "short": 0.5, "alone": 1.5}
    training = SimpleNamespace(made_with={})
    monkeypatch.setattr(study, "_training_seconds", lambda job, short: took)
    monkeypatch.setattr(study, "sweep_cpu_seconds", lambda folder, fields: next(sweeps))
    monkeypatch.setattr(study, "trainings", lambda folder: [training])
    found = bench_study(_tiny())
    assert (found.sweep, found.outside) == (100, 40 - 0.5 * found.unique_trainings)


@pytest.mark.long
def test_tiny_study_is_swept_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray, whose start takes most of the time."""
    started = sweep.lth
    monkeypatch.setattr(sweep, "lth", lambda *command: started(*command, "--serial"))
    found = bench_study(_tiny())
    assert found.trainings == 6 * (1 + 3)
    assert found.outside > 1  # CPU seconds of imports and the report
    assert found.pack >= 1
