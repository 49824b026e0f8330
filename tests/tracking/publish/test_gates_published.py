"""MLflow's run of a trial whose structure was found by gates in a widened network."""

import json
from pathlib import Path

import pytest
from test_publish import only_trial, publish

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, TrainSpec, find_tickets
from tracking.publish.publisher import open_publisher


@pytest.mark.mlflow
@pytest.mark.long
def test_trial_with_gates_and_numbers_that_are_not_defined_is_published(tmp_path: Path) -> None:
    spec = TicketSpec(
        data=DataSpec(fraction=0.2), model=ModelSpec(name="resnet-8", width=0.25),
        train=TrainSpec(steps=8, evaluate_every=4, batch_size=32), levels=1,
        prune=PruneSpec(when="gates", structure="channels", scope="global", expand=2.0,
                        budget={"flops": 0.6}, gate_steps=4, gate_every=2),
        branches=("ticket", "scratch_b"),
    )  # fmt: skip
    levels = list(find_tickets(spec))
    publisher = open_publisher(f"sqlite:///{tmp_path}/mlflow.db", "gates", "about it")
    publish(publisher, levels)
    status, params, histories, files = only_trial(publisher)
    assert (status, params["prune.budget"]) == ("FINISHED", "{'flops': 0.6}")
    rows = {row["branch"]: row for level in levels for row in level.records}
    assert set(rows) == {"dense", "gates", "ticket", "scratch_b"}
    assert [(s, v) for s, _, v in histories["flops"]] == [
        (0, rows["dense"]["flops"]), (1, rows["ticket"]["flops"])
    ]  # fmt: skip
    assert "requested_density" not in histories
    assert "level_01/ticket.safetensors" in files
    first, second = (json.loads(next(tmp_path.rglob(f"{name}/curves.json")).read_text())
                     for name in ("level_00", "level_01"))  # fmt: skip
    assert first["curves"]["gates"]["step"] == [2, 4]
    for row in second["records"]:
        assert row["travel_outside"] is None
        assert row["search_flops"] == rows[row["branch"]]["search_flops"]
