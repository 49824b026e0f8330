"""Names of metrics, tags and folders in MLflow."""

from __future__ import annotations

import re

from lth_core.columns import charts
from lth_core.spec import sha256

KEY = "lth.spec_digest"
"""Tag of a trial's run: the spec's digest, by which a publisher finds the run."""
CELL = "lth.cell"
"""Tag of a cell's run: its key, by which a publisher finds the run."""
STUDY = "lth.study"
"""Tag of a study's run: the study's name."""
STORE = "lth.store"
"""Tag of a study's run on a server: address of the store whose sweep or report wrote it last."""
LEVELS = "lth.levels"
"""Tag of a trial's run: a digest of each level published so far, the dense run's first. By it a
publisher finds out that the level has other results now."""
UNKNOWN = "?"
"""Digest of a level that a version published which did not keep digests."""
LEVEL_DIGEST = 6
"""Number of characters of a level's digest; those of 1,001 levels fit into a tag."""
TRAINED = "lth.trained_until"
"""Tag of a trial's run: end of its latest published training, in ms since 1970."""
METHOD = "method"
"""Tag of a trial's run: short name of its pruning method, to filter runs by."""
SETTINGS, CURRENT, EARLIER = "settings", "current", "earlier"
"""Tag of a cell's and a trial's run, and its values: whether it belongs to the study as it was last
published, or to earlier settings of the study. Saved views show current runs."""
VERDICT = "verdict"
"""Tag of a study's, a cell's and a trial's run: the best verdict over the levels of its cell; on a
cell's run, with `.level_NN`, the verdict on one level. Also the prefix of the verdicts' metrics."""
COMPARED = "lth.compared"
"""Tag: number of times that comparisons or the report were written to a run, and the digest of the
last. Equal ones are written once."""
FAILURE = "lth.failure"
"""Tag of a failed trial's run: the reason."""
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
MODEL_VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model: its registered versions, which the UI shows beside the run."""
DESCRIPTION = "mlflow.note.content"
"""Tag of a run and of an experiment: Markdown that the UI shows."""
VIEW = "mlflow.sharedViewState."
"""Prefix of the tags of an experiment with saved views of its page of runs."""
SOURCE, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
COMMIT = "mlflow.source.git.commit"
USER = "mlflow.user"
SPLIT = "mlflow.data.context"
"""Tag of a run's dataset: the part that is used."""

TRAINING = "workflowType=machine_learning"
"""Parameter of an address without which the UI opens its pages for traces of language models."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags by which the UI shows runs, metrics and artifacts, not its pages for language models."""

LEVEL_METRICS = charts("level")
"""Metric, with step = level, of each record field that all branches of a level share."""

BRANCH_METRICS = charts("branch")
"""Metric `METRIC/BRANCH`, with step = level, of record fields of each branch that are not None."""

STUDY_METRICS = charts("branch", study=True)
"""Metric `METRIC/BRANCH`, with step = level, of record fields that the study's other trials or its
end give. All of a record's own fields are in the artifact `level_NN/curves.json`, and all fields in
`lth report --json`."""

INTERVAL = "interval"
"""Prefix of the ends of 95% intervals over seeds: `interval/BRANCH_low`, `interval/BRANCH_high`."""
DENSE_ACCURACY, TICKET_ACCURACY = "dense_accuracy", "ticket_accuracy"
"""Metrics for the table of runs, at the sparsest matching level, or the last where none matches."""
SPARSEST_MATCHING, SPARSEST_WINNING = "sparsest_matching", "sparsest_winning"
"""Metrics for the table of runs: lowest density with the verdict."""
COMPARED_METRICS = frozenset({SPARSEST_MATCHING, SPARSEST_WINNING, DENSE_ACCURACY, TICKET_ACCURACY,
                              *STUDY_METRICS.values()})  # fmt: skip
"""First parts of the names of metrics that a trial has only from comparisons with others."""
CELL_METRICS = COMPARED_METRICS | {VERDICT, INTERVAL, *LEVEL_METRICS.values(),
                                   *BRANCH_METRICS.values()}  # fmt: skip
"""Those of metrics of a cell and of a study. One that no longer holds becomes NaN: MLflow deletes
no metric of a run."""

CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
"""Learning curves; with `tracking.curves` metrics `level_NN/BRANCH/NAME`, step = iteration."""


LONGEST = 250
"""Largest number of characters of a metric's, param's or tag's name."""
LONGEST_PARAM, LONGEST_TAG = 6000, 8000
"""Largest number of characters of a param's and of a run's tag's value."""
DATA_DIGEST = 8
"""Number of characters of a dataset's digest; the table of runs shows all, and MLflow takes 36."""
LONGEST_NOTE = 5000
"""Largest number of characters of an experiment's tag's value."""

# MLflow accepts a colon too, but not from a server on Windows.
_ACCEPTED = re.compile(r"[\w.\-/ ]+")
_DIGITS = 16
_DIGEST = re.compile(rf"-[0-9a-f]{{{_DIGITS}}}$")
"""End of a name that replaces another."""


def level_folder(level: int) -> str:
    """Folder of a level's artifacts, and prefix of its curves."""
    return f"level_{level:02d}"


def entry_name(name: str) -> str:
    """Name under which MLflow takes a metric, param or tag.

    A name that MLflow refuses is replaced by a readable one that ends with a digest of it, so that
    no two names get the same one.
    """
    if _is_accepted(name) and not _DIGEST.search(name):
        return name
    digest = f"-{sha256(name)[:_DIGITS]}"
    parts = ("".join(c if _ACCEPTED.fullmatch(c) else "_" for c in p) for p in name.split("/"))
    readable = "/".join(part if part.strip(".") else "_" for part in parts)
    return re.sub(r"^\.\.", "_", readable)[: LONGEST - len(digest)] + digest


def _is_accepted(name: str) -> bool:
    """Whether MLflow takes a name as it is: it must be a normalized relative path."""
    return (
        len(name) <= LONGEST
        and bool(_ACCEPTED.fullmatch(name))
        and not name.startswith("..")
        and all(part not in ("", ".", "..") for part in name.split("/"))
    )
