"""`lth report --json` prints the records of the trainings, in their order."""

import json

import pytest
from tiny import Lth, StudyOf, search, timeless

from lth_core import Trainer
from lth_core.store import open_store
from sweeps.store.records import register
from sweeps.studies.find import save_swept


@pytest.mark.slow
def test_report_prints_the_records_that_training_gave(tiny: StudyOf, lth: Lth) -> None:
    """The layers of an LSTM are not in alphabetical order: its output is the first there."""
    changes = {
        "base.model": {"name": "lstm", "width": 0.2},
        "base.train.steps": "4it",
        "base.levels": 1,
        "axes.seed": [0],
        "axes.prune.layer_fractions": [{"rows.*": 0.3, "output": 0.2}, {}],
        "axes.prune.ignore": [[], ["output"]],
    }
    study = tiny(changes)
    store = open_store(study.store)
    register(store, study)
    trained = [row for _, rows in search(study, Trainer(store)) for row in rows]
    save_swept(study)
    called = lth("report", "tiny", "--json")
    assert called.code == 0, called
    printed = [json.loads(line) for line in called.out.splitlines()]
    compared = ("verdict", "replicates_planned")
    printed = [{k: v for k, v in row.items() if k not in compared} for row in timeless(printed)]
    # As text: the order of columns, of layers and of axes counts too.
    assert json.dumps(printed) == json.dumps(timeless(trained))
    assert list(printed[0]["layer_density"])[-1] == "output"
