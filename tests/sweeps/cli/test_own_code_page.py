"""docs/own-code.md: its network is planned, swept and pruned as it says."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from tiny import Lth

PAGE = Path(__file__).parents[3] / "docs" / "own-code.md"


@pytest.mark.slow
def test_the_pages_network_is_planned_and_swept(lth: Lth, here: Path) -> None:
    code, study, _ = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (here / "mine.py").write_text(code)
    fields = yaml.safe_load(study)
    fields["base"] |= {"data": {"fraction": 0.1}, "branches": ["ticket", "reinit"]}
    (here / "mine.yaml").write_text(yaml.safe_dump({**fields, "tracking": {"uri": None}}))
    planned = lth("plan", "mine.yaml")
    assert planned.code == 0, planned.err
    # Gates of 16 units: 3 x 16 rows over 8 inputs and 16 states.
    assert f"mine:net (width 0.5) on digits: {48 * (8 + 16) + 160:,} of" in planned.out
    assert lth("sweep", "mine.yaml", "--serial").code == 0
    rows = [json.loads(line) for line in lth("report", "mine", "--json").out.splitlines()]
    assert len(rows) == 2 * 3 * (1 + 2 + 2)
    assert {*rows[0]["layer_density"]} == {"rows.weight_ih_l0", "rows.weight_hh_l0", "output"}
    del sys.modules["mine"]  # other tests have a file of that name
