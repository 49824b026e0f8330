"""docs/own-code.md: its network is planned, swept and pruned as it says."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from tiny import Lth

PAGE = Path(__file__).parents[3] / "docs" / "own-code.md"


BLOCKS = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.long
def test_the_pages_network_is_planned_and_swept(lth: Lth, here: Path) -> None:
    code, study = BLOCKS[:2]
    sys.modules.pop("mine", None)  # other tests have a file of that name
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
    del sys.modules["mine"]


@pytest.mark.slow
def test_the_pages_embedding_is_planned_and_swept(lth: Lth, here: Path) -> None:
    *_, code, study = BLOCKS
    (here / "words.py").write_text(code)
    fields = yaml.safe_load(study)
    (here / "words.yaml").write_text(yaml.safe_dump({**fields, "tracking": {"uri": None}}))
    planned = lth("plan", "words.yaml")
    assert planned.code == 0, planned.err
    assert "words:net on words:data: 3,232 of 3,234 parameters are prunable" in planned.out
    left_out = lth("plan", "words.yaml", "prune.include=[]")
    assert "32 of 3,234 parameters are prunable (not: words 3,200, biases" in left_out.out
    assert lth("sweep", "words.yaml", "--serial").code == 0
    rows = [json.loads(line) for line in lth("report", "words", "--json").out.splitlines()]
    assert [row["layer_density"]["words"] for row in rows if row["branch"] == "ticket"] == [
        0.8,
        0.64,
    ]
    assert {row["weights_prunable"] for row in rows} == {3232}
    refused = lth("plan", "words.yaml", "prune.include=[wrds]")
    assert refused.code == 2
    assert "prune.include: must match an embedding" in refused.err
    assert "known: words, output" in refused.err
    del sys.modules["words"]
