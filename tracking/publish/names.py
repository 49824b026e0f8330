"""Names of metrics, tags and folders in MLflow."""

from __future__ import annotations

from lth_core.columns import metrics

KEY = "lth.spec_digest"
"""Tag of a trial's run: the spec's digest, by which a publisher finds the run."""
STUDY = "lth.study"
"""Tag of a study's run: the study's name."""
LEVELS = "lth.levels"
"""Tag of a trial's run: number of levels published so far, the dense run included."""
COMMIT = "lth.git_commit"
METHOD = "method"
"""Tag of a trial's run: short name of its pruning method, to filter runs by."""
VERDICT = "verdict"
"""Tag of a study's and of a trial's run: the best verdict over the levels of its cell; with
`.level_NN`, the verdict on one level. Also the prefix of the verdicts' metrics."""
COMPARED = "lth.compared"
"""Tag: number of times that verdicts and overlaps were written to a trial's run, or the report to a
study's run, and the digest of the last. Equal ones are written once."""
FAILURE = "lth.failure"
"""Tag of a failed trial's run: the reason."""
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags by which the UI shows runs, metrics and artifacts, not its pages for language models."""

LEVEL_METRICS = metrics("level")
"""Record fields that all branches of a level share, as metrics with step = level."""

BRANCH_METRICS = metrics("branch")
"""Record fields of each branch that are not None, as metrics `BRANCH/NAME` with step = level."""

OVERLAPS = metrics("branch", study=True)
"""Record fields of tickets that depend on other trials, as metrics `ticket/NAME` with step = level.
Overlaps with other methods are in the report and in `lth report --json`."""

CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
"""Learning curves, as metrics `level_NN/BRANCH/NAME` with step = iteration."""


def level_folder(level: int) -> str:
    """Folder of a level's artifacts, and prefix of its curves."""
    return f"level_{level:02d}"


def metric(name: str) -> str:
    """Metric name in which characters that MLflow refuses are replaced by `_`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)
