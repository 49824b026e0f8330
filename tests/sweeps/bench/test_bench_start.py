import pytest

from sweeps.bench.benchmarks import BENCHMARKS
from sweeps.bench.start import COMMANDS, bench_start


@pytest.mark.long
def test_each_command_is_timed_beside_the_import_of_torch() -> None:
    took = bench_start({"--version": None}, rounds=1)
    assert took.torch > 0
    assert took.ratios() == {"--version": took.commands["--version"] / took.torch}


def test_light_commands_plan_and_report_are_measured() -> None:
    assert {"--help", "--version", "list", "schema", "plan digits", "report digits"} < {*COMMANDS}
    assert "start" in BENCHMARKS
