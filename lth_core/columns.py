"""Columns of a record: meaning, unit and use of each.

A record has the numbers of one branch at one level; `lth report --json` prints it. A new column is
a row here, and a number in `lth_core.results.record` or in a measure (`lth_core.measures`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Record = dict[str, Any]
"""Values of one branch at one level, by column, and those of the study's axes, by dotted field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Meaning and use of one value of a record."""

    type: Literal["string", "integer", "number", "boolean", "object"] = "number"
    """JSON type; a column that some records lack, or without validation examples, may be null."""
    unit: str = ""
    """Unit of the value; empty for names, counts and shares."""
    per: Literal["level", "branch"] = "branch"
    """level: the ticket's value is published for all branches of its level."""
    better: Literal["max", "min"] | None = None
    """Direction in which a search optimizes the column; None: it is no objective."""
    chart: str = ""
    """Name of its charts in MLflow: the metric ``CHART`` per level, ``CHART/BRANCH`` per branch;
    empty: it is no metric."""
    nullable: bool = False
    """Whether it is null where a spec does not ask for it."""
    needs_validation: bool = False
    """Whether it is of the validation examples, and null where there are none."""
    source: Literal["training", "measure", "study"] = "training"
    """training: every record has it. measure: records of some branches have it. study: `sweeps`
    adds it from the study's finished trials."""
    about: str
    """Meaning in a few words."""

    @property
    def may_be_null(self) -> bool:
        """Whether a record may lack the column, or have null in it."""
        return self.source != "training" or self.needs_validation or self.nullable


def _column(about: str, **fields: Any) -> Column:
    return Column(about=about, **fields)


def _measured(about: str, **fields: Any) -> Column:
    return Column(about=about, source="measure", **fields)


def _compared(about: str, **fields: Any) -> Column:
    return Column(about=about, source="study", **fields)


COLUMNS: dict[str, Column] = {
    "study": _column("the study's name", type="string", source="study"),
    "trial": _column("start of the trial's digest", type="string", source="study"),
    "seed": _column("the replicate", type="integer"),
    "method": _column("short name of the way it prunes", type="string"),
    "when": _column("when it prunes: after, before, during, never, gates", type="string"),
    "branch": _column("dense, ticket, a control, or a copy for barriers", type="string"),
    "level": _column("prunings applied", type="integer"),
    "prune_fraction": _column(
        "share of the surviving weights that one level removes; null beside prune.budget, ticket",
        per="level", nullable=True,
    ),
    "rewind_step": _column("step of the rewind point", type="integer", unit="steps", per="level"),
    "requested_density": _column(
        "share of the prunable weights that the spec asks for; null beside prune.budget or ticket",
        per="level", nullable=True,
    ),
    "density": _column(
        "share of the prunable weights kept", per="level", better="min", chart="density"
    ),
    "weights_kept": _column(
        "prunable weights kept", type="integer", per="level", better="min"
    ),
    "weights_prunable": _column("prunable weights", type="integer", per="level"),
    "parameters": _column("all parameters of the dense network", type="integer", per="level"),
    "kept_parameters": _column(
        "parameters left without pruned weights and removed channels", type="integer", per="level",
        better="min",
    ),
    "flops": _column(
        "forward FLOPs of the kept weights", type="integer", unit="per example", per="level",
        better="min", chart="flops",
    ),
    "dense_flops": _column(
        "forward FLOPs of the dense network", type="integer", unit="per example", per="level",
    ),
    "steps": _column("training steps of this run", type="integer", unit="steps", better="min"),
    "final_test_accuracy": _column(
        "test accuracy after the last step, in [0, 1]", better="max", chart="accuracy"
    ),
    "final_validation_accuracy": _column(
        "validation accuracy after the last step, in [0, 1]", better="max", needs_validation=True
    ),
    "early_stop_step": _column(
        "step with the lowest validation loss, of those with the final density", type="integer",
        unit="steps", better="min", chart="early_stop", needs_validation=True,
    ),
    "early_stop_test_accuracy": _column(
        "test accuracy at the step of the lowest validation loss, in [0, 1]", better="max",
        needs_validation=True,
    ),
    "early_stop_validation_loss": _column(
        "lowest validation loss", unit="nats", better="min", needs_validation=True
    ),
    "collapsed_layers": _column(
        "layers without a kept weight", type="integer", per="level", chart="collapsed_layers"
    ),
    "layer_density": _column("share of the weights kept, by layer", type="object"),
    "layer_outputs": _column("outputs with a kept weight, by layer", type="object"),
    "train_flops": _measured("FLOPs of the training, 3 per FLOP of the forward pass"),
    "search_flops": _measured("FLOPs of the trainings and scores that found the mask"),
    "search_seconds": _measured("duration of the trainings that found the mask", unit="s"),
    "mask_overlap": _measured("Jaccard overlap with the mask that the branch is compared with"),
    "mask_overlap_chance": _measured(
        "expected overlap of random masks with the same layer counts"
    ),
    "travel": _measured("mean distance of the kept weights from start to end"),
    "travel_inside": _measured("mean distance in the dense run of the weights that the mask keeps"),
    "travel_outside": _measured(
        "mean distance in the dense run of the weights that the mask prunes"
    ),
    "sign_agreement": _measured("share of the kept weights that end with the sign of their start"),
    "spec_digest": _column("sha256 of the trial's spec", type="string"),
    "mask_digest": _column("sha256 of the mask", type="string"),
    "ticket_digest": _column("sha256 of the mask and the starting weights", type="string"),
    "training_digest": _column("key of the training in the store", type="string"),
    "reused": _column("whether the training came from the store", type="boolean"),
    "train_seconds": _column("duration of the training", unit="s", better="min"),
    "test_barrier": _measured(
        "test error barrier between two data orders, in [-1, 1]", chart="barrier"
    ),
    "train_barrier": _measured("training error barrier between two data orders, in [-1, 1]"),
    "rewind_distance": _measured(
        "Euclidean distance of the dense run's weights from rewind point to end"
    ),
    "rewind_cosine": _measured("cosine of the dense run's weights at rewind point and end"),
    "rewind_sign_agreement": _measured(
        "share of the dense run's weights with their final sign at the rewind point"
    ),
    "rewind_loss": _measured("training loss at the rewind point", unit="nats"),
    "rewind_gradient_norm": _measured("norm of the training loss's gradient at the rewind point"),
    "rewind_curvature": _measured(
        "Hessian eigenvalue of largest absolute value, of the training loss at the rewind point"
    ),
    "rewind_mask_overlap": _measured(
        "Jaccard overlap of the magnitude masks at rewind point and end"
    ),
    "rewind_mask_overlap_chance": _measured("that overlap for random masks"),
    "overlap_seeds": _compared(
        "mean Jaccard overlap with the masks of other seeds", chart="overlap_seeds"
    ),
    "overlap_seeds_chance": _compared("that overlap for random masks"),
    "overlap_level": _compared("Jaccard overlap with the mask one level before"),
    "overlap_level_chance": _compared("that overlap for random masks"),
    "overlap_methods": _column(
        "Jaccard overlap with each other method's mask", type="object", source="study"
    ),
    "overlap_methods_chance": _column(
        "those overlaps for random masks", type="object", source="study"
    ),
    "latency_ms": Column(
        about="forward pass of 64 examples without the removed channels, on one thread of a CPU or "
        "on a GPU", unit="ms", source="study", chart="latency_ms",
    ),
    "dense_latency_ms": Column(
        about="that of the dense network, measured in turns with it", unit="ms", source="study",
    ),
    "latency_device": _column(
        "processor or GPU on which the latencies were measured", type="string", source="study"
    ),
    "source_ticket": _column(
        "digest of the ticket that `ticket` names; absent without one", type="string",
        source="study",
    ),
    "verdict": _column("verdict on the ticket's cell and level", type="string", source="study"),
    "replicates": _column(
        "replicates that are stored for the cell and level", type="integer", source="study"
    ),
    "replicates_planned": _column(
        "replicates that the study plans", type="integer", source="study"
    ),
}  # fmt: skip
"""Columns by name, in a record's order."""

OBJECTIVES = {name: column.better for name, column in COLUMNS.items() if column.better}
"""Better direction of each column that a search can optimize."""


def charts(per: Literal["level", "branch"], *, study: bool = False) -> dict[str, str]:
    """Names of the charts of the columns that are metrics of each level, or of each branch.

    Args:
        study: True for columns whose source is the study, False for the others.
    """
    return {
        name: column.chart
        for name, column in COLUMNS.items()
        if column.chart and column.per == per and (column.source == "study") == study
    }


def in_order(record: Record) -> Record:
    """The record with its columns in the order of `COLUMNS`, then its other values."""
    return {name: record[name] for name in [*COLUMNS, *record] if name in record}


def descriptions() -> Iterator[tuple[str, str]]:
    """(name, meaning and unit) of each column."""
    for name, column in COLUMNS.items():
        yield name, f"{column.about} ({column.unit})" if column.unit else column.about


def record_schema() -> dict[str, Any]:
    """JSON Schema of a line of `lth report --json`; the study's axes are further properties."""

    def schema_of(column: Column) -> dict[str, Any]:
        types = [column.type, "null"] if column.may_be_null else column.type
        unit = {"unit": column.unit} if column.unit else {}
        return {"type": types, "description": column.about, **unit}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Record",
        "description": "One branch of one trial at one level",
        "type": "object",
        "properties": {name: schema_of(column) for name, column in COLUMNS.items()},
        "required": [name for name, column in COLUMNS.items() if column.source == "training"],
    }
