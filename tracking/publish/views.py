"""Saved views of a study's experiment: which runs, columns and charts MLflow's page of runs shows.

MLflow's UI lists them under "Views" and opens one by `?viewStateShareKey=KEY`. The format is that
of MLflow 3.17's page, which ignores what it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tracking.publish import names

CELLS, TRIALS = "cells", "trials"
"""Keys of the views."""
_ACCURACY = names.BRANCH_METRICS["final_test_accuracy"]
_TABLE = [
    f"tags.`{names.VERDICT}`",
    *(
        f"metrics.`{name}`"
        for name in (
            names.SPARSEST_WINNING,
            names.SPARSEST_MATCHING,
            names.DENSE_ACCURACY,
            names.TICKET_ACCURACY,
        )
    ),
]
"""Columns that a reader looks for, by the page's names."""


def views(branches: Sequence[str], axes: Sequence[str], stamp: int) -> dict[str, str]:
    """Tags of an experiment with its views: cells with the paper's figure, and trials.

    Args:
        branches: names of the branches whose accuracies are drawn.
        axes: dotted names of the study's axes.
        stamp: time of the views in ms since 1970.
    """
    params = [f"params.`{names.entry_name(axis)}`" for axis in axes if axis != "seed"]
    seed = ["params.`seed`"]
    return {
        f"{names.VIEW}{CELLS}": _saved(
            "Cells: means over seeds", stamp, names.CELL, [*_TABLE, *params], branches
        ),
        f"{names.VIEW}{TRIALS}": _saved(
            "Trials: each seed", stamp, names.KEY, [*_TABLE, *seed, *params], branches
        ),
    }


def _saved(
    title: str, stamp: int, tag: str, columns: Sequence[str], branches: Sequence[str]
) -> str:
    """A saved view of the current runs with a tag, sparsest matching ticket first.

    Runs that are sorted by a metric are not nested.
    """
    state = {
        "searchFilter": f"tags.`{tag}` != '' and tags.`{names.SETTINGS}` = '{names.CURRENT}'",
        "orderByKey": f"metrics.`{names.SPARSEST_MATCHING}`",
        "orderByAsc": True,
        "selectedColumns": list(columns),
        "columnOrder": [],
        "compareRunCharts": [_accuracy_chart(branches)],
        "compareRunSections": [{
            # MLflow adds its own charts of accuracies to the section of their prefix.
            "uuid": "accuracy", "name": _ACCURACY, "display": True, "isReordered": True,
            "deleted": False, "isGenerated": True, "columns": 2, "cardHeight": 460,
        }],
    }  # fmt: skip
    envelope = {"name": title, "createdAt": stamp, "updatedAt": stamp, "state": json.dumps(state)}
    return json.dumps(envelope)


def _accuracy_chart(branches: Sequence[str]) -> dict[str, Any]:
    """A chart of the accuracy of all branches against the level."""
    keys = [f"{_ACCURACY}/{branch}" for branch in branches]
    return {
        "type": "LINE", "uuid": "accuracy-level", "metricSectionId": "accuracy",
        "isGenerated": False, "deleted": False, "displayName": "Test accuracy against level",
        "metricKey": keys[0], "selectedMetricKeys": keys, "xAxisKey": "step",
        "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0, "range": {},
        "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [],
        "ignoreOutliers": False, "useGlobalXaxisKey": False, "useGlobalLineSmoothing": False,
    }  # fmt: skip
