"""Names of metrics, tags and folders in MLflow."""

from __future__ import annotations

import re

from lth_core.columns import metrics
from lth_core.spec import sha256

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
"""Tag: number of times that verdicts, overlaps and latencies were written to a trial's run, or the
report to a study's run, and the digest of the last. Equal ones are written once."""
FAILURE = "lth.failure"
"""Tag of a failed trial's run: the reason."""
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
MODEL_VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model: its registered versions, which the UI shows beside the run."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags by which the UI shows runs, metrics and artifacts, not its pages for language models."""

LEVEL_METRICS = metrics("level")
"""Record fields that all branches of a level share, as metrics with step = level."""

BRANCH_METRICS = metrics("branch")
"""Record fields of each branch that are not None, as metrics `BRANCH/NAME` with step = level."""

STUDY_METRICS = metrics("branch", study=True)
"""Record fields that the study's other trials or its end give, as metrics `BRANCH/NAME` with step =
level: overlaps with other masks, and latencies. Overlaps with other methods are in the report and
in `lth report --json`."""

CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy")
"""Learning curves, as metrics `level_NN/BRANCH/NAME` with step = iteration."""


LONGEST = 250
"""Largest number of characters of a metric's, param's or tag's name."""
LONGEST_PARAM, LONGEST_TAG = 6000, 8000
"""Largest number of characters of a param's and of a tag's value."""

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
