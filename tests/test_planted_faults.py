"""The list of planted faults, held against the code and the table that shows it."""

import pytest
from planted_faults import FAULTS, ROOT, Fault, lost

TABLE = ROOT / "tests" / "README.md"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_can_be_planted_and_its_test_exists(fault: Fault) -> None:
    assert not lost(fault), f"{fault.file} must have this once: {fault.right}"
    assert fault.wrong != fault.right
    assert (ROOT / fault.caught_by).exists()


def test_table_of_planted_faults_has_each_with_its_test() -> None:
    _, _, table = TABLE.read_text().partition("| fault | caught by |")
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert rows == [f"| {fault.name} | `{fault.caught_by}` |" for fault in FAULTS]
