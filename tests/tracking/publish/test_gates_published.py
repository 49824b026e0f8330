"""MLflow's run of a trial whose structure was found by gates in a widened network."""

from pathlib import Path

import pytest
from test_publish import everything, publish

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
    ((status, params, histories, files),) = [v for v in everything(publisher).values() if v[1]]
    assert (status, params["prune.budget.flops"]) == ("FINISHED", "0.6")
    rows = {row["branch"]: row for level in levels for row in level.records}
    assert set(rows) == {"dense", "gates", "ticket", "scratch_b"}
    for branch in ("ticket", "scratch_b"):
        assert rows[branch]["travel_outside"] is None
        assert [(s, v) for s, _, v in histories[f"{branch}/search_flops"]] == [
            (1, rows[branch]["search_flops"])
        ]
    assert [s for s, _, _ in histories["level_00/gates/train_loss"]] == [2, 4]
    assert "ticket/travel_outside" not in histories
    assert "requested_density" not in histories
    assert files
