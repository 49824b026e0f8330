"""The example of docs/methods.md, as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.prune.network import from_weights

DOCS = Path(__file__).parents[3] / "docs" / "methods.md"


EXAMPLE, IN_A_NOTEBOOK = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)


def test_the_example_in_the_docs_has_fifteen_lines_at_most() -> None:
    assert len(EXAMPLE.strip().splitlines()) <= 15


def test_the_example_in_the_docs_finds_tickets_from_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    ((score, fraction),) = re.findall(
        r"```yaml\nprune: \{score: (\S+), fraction: (\S+)\}", DOCS.read_text()
    )
    spec = TicketSpec(
        data=DataSpec(name="digits"), model=ModelSpec(widths=(20,)), train=TrainSpec(steps=20),
        prune=PruneSpec(score=score, fraction=float(fraction)), levels=2, branches=("ticket",),
    )  # fmt: skip
    found = list(find_tickets(spec))
    assert found[-1].records[0]["density"] == pytest.approx(0.64, abs=1e-3)
    assert found[-1].spec.prune.fingerprint

    import mine

    w, w0 = {"fc.weight": torch.tensor([-2.0, 3.0])}, {"fc.weight": torch.tensor([1.0, 2.5])}
    assert mine.size_times_travel(from_weights(w, initial=w0))["fc.weight"].tolist() == [6.0, 1.5]


def test_the_example_in_the_docs_is_tried_in_a_notebook() -> None:
    scope = {"model": nn.Linear(2, 3), "x": torch.ones(4, 2), "y": torch.tensor([0, 1, 2, 0])}
    before, _, after = IN_A_NOTEBOOK.partition("...\n")
    exec(EXAMPLE + before, scope)
    scope["model"].weight.data.add_(torch.tensor([0.0, 1.0]))
    exec(after, scope)
    assert (scope["scores"]["weight"] > 0).tolist() == [[False, True]] * 3
