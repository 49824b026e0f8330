"""Size of a study in words: trials, levels, seeds, and what varies between them."""

from __future__ import annotations

from collections.abc import Sequence

from lth_core.analysis.cells import value_text
from lth_core.analysis.groups import distinct, free_axes, group_by, key_of, methods
from lth_core.columns import Record
from tracking.report.verdict_table import NO_RECORDS
from tracking.text import count, density_text

NOUNS = {
    "data.name": "dataset",
    "model.depth": "depth",
    "model.init": "initialization",
    "model.name": "network",
    "model.width": "width",
    "prune.fraction": "prune fraction",
    "prune.score": "score",
    "rewind": "rewind point",
    "train.batch_size": "batch size",
    "train.lr": "learning rate",
    "train.optimizer": "optimizer",
}
"""Nouns for values of axes; an axis without one is named by its field."""
MOST_VALUES, LONGEST = 4, 12
"""Largest number of an axis's values that are listed, and most characters of a listed value."""


def scope_text(records: Sequence[Record], axes: Sequence[str], planned: int | None = None) -> str:
    """Counts of what was run: `Records of 18 of 18 trials, 12 levels, 3 seeds; ...`.

    Args:
        records, axes: as in `tracking.report.html.write_report`.
        planned: number of planned trials, where it is known.
    """
    if not records:
        return NO_RECORDS
    trials = len({record["trial"] for record in records})
    ran = count(trials, "trial")
    if planned is not None:
        ran = f"Records of {trials} of {count(planned, 'trial')}"
    seeds = count(len({record["seed"] for record in records}), "seed")
    text = ", ".join([ran, _levels_text(records), seeds])
    if varied := _varied(records, axes):
        text += f"; {', '.join(varied)}"
    density = min(record["density"] for record in records)
    return f"{text}; down to {density_text(density)} of the weights."


def _levels_text(records: Sequence[Record]) -> str:
    """`12 levels`, or `4 to 10 levels` where trials have different numbers of them."""
    by_trial = group_by(records, lambda record: record["trial"]).values()
    numbers = {max(record["level"] for record in rows) for rows in by_trial}
    least = f"{min(numbers)} to " if len(numbers) > 1 else ""
    return f"{least}{count(max(numbers), 'level')}"


def _varied(records: Sequence[Record], axes: Sequence[str]) -> list[str]:
    """Counts of methods and of values of axes; of axes that vary together, the first counts."""
    compared, words = len(methods(records)), list[str]()
    if compared > 1:
        words.append(count(compared, "method"))
        axes = free_axes(records, axes)
    seen = set[tuple[int, ...]]()
    for axis in axes:
        if axis == "seed":
            continue
        values = distinct(record.get(axis) for record in records)
        order = {key: i for i, key in enumerate(values)}
        partition = tuple(order[key_of(record.get(axis))] for record in records)
        if len(values) > 1 and partition not in seen:
            seen.add(partition)
            words.append(_values_text(axis, list(values.values())))
    return words


def _values_text(axis: str, values: Sequence[object]) -> str:
    noun = NOUNS.get(axis)
    text = count(len(values), noun) if noun else f"{len(values)} values of {axis}"
    listed = [value_text(value) for value in values]
    if len(listed) <= MOST_VALUES and all(len(value) <= LONGEST for value in listed):
        text += f" ({', '.join(listed)})"
    return text
