"""Overlaps of masks between seeds, between methods, and with the previous level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lth_core.analysis.groups import free_axes, group_by, key_of, values_of
from lth_core.columns import Record
from lth_core.jobs.branches import RETRAINED
from lth_core.masks import chance_overlap
from lth_core.parallel import map_in_threads


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask as bits.

    bits: (bytes,) uint8, the parameters one after the other.
    layers: (name, weights kept, weights) of each parameter.
    """

    bits: NDArray[np.uint8]
    layers: tuple[tuple[str, int, int], ...]


WITH_OWN_MASK = ("ticket", *RETRAINED)
"""Branches that find masks of their own; others use the ticket's, or an imitation of it."""
MaskOf = Callable[[str], PackedMask | None]
"""A function from a record's `training_digest` to its mask; None where it is missing."""
Masks = dict[str, PackedMask | None]
"""Masks by `training_digest`; None where one is missing."""
Overlap = tuple[float, float]
"""Jaccard overlap of two masks, and the overlap expected by chance."""
Compare = Callable[[Record, Record], Overlap | None]
"""A function from two records to the overlap of their masks; None where one is missing."""


def packed_mask(parameters: Mapping[str, tuple[NDArray[np.uint8], int]]) -> PackedMask:
    """A mask from each parameter's packed bits (n/8 rounded up,) uint8 and number of weights n."""
    named = sorted(parameters.items())
    layers = tuple((name, _ones(bits), weights) for name, (bits, weights) in named)
    nothing = np.zeros(0, np.uint8)
    return PackedMask(np.concatenate([nothing, *(bits for _, (bits, _) in named)]), layers)


def overlap_and_chance(a: PackedMask, b: PackedMask) -> Overlap | None:
    """Overlap and chance level, as in `lth_core.masks`; None where the masks are of different
    networks."""
    if [(name, weights) for name, _, weights in a.layers] != [(n, w) for n, _, w in b.layers]:
        return None
    counts = [
        (kept_a, kept_b, weights)
        for (_, kept_a, weights), (_, kept_b, _) in zip(a.layers, b.layers, strict=True)
    ]
    # Layers that both keep whole are left out.
    both = _ones(a.bits & b.bits) - sum(
        weights for *kept, weights in counts if min(kept) == weights
    )
    either = sum(sum(kept) for *kept, weights in counts if min(kept) < weights) - both
    return both / either if either else 1.0, chance_overlap(counts)


def with_overlaps(records: Sequence[Record], axes: Sequence[str], mask_of: MaskOf) -> list[Record]:
    """The records, with overlaps in those of branches that find masks of their own.

    All overlaps are between masks of one branch. `overlap_seeds` is the mean overlap with the other
    seeds' masks of the cell and level. `overlap_level` is that with the trial's mask of the
    previous level. `overlap_methods` has, for each other method, the overlap with its mask at the
    same seed, level and values of the axes that no method determines. The columns `..._chance` are
    the overlaps expected by chance. Without a mask to compare with, a column is None, or a method
    is missing.
    """
    free, names = free_axes(records, axes), [axis for axis in axes if axis != "seed"]
    by_level: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record["branch"] in WITH_OWN_MASK:
            by_level[record["level"]].append(record)
    overlaps: dict[tuple[str, str, int], Record] = {}
    previous, masks = dict[tuple[str, str], Record](), Masks()
    for level, rows in sorted(by_level.items()):
        masks = _masks([*previous.values(), *rows], masks, mask_of)
        compare = _cached_comparison(masks)
        replicates = _grouped(rows, ["branch", "method", *names])
        rivals = _grouped(rows, ["branch", "seed", *free])
        for row in rows:
            key = row["trial"], row["branch"]
            overlaps[*key, level] = {
                **_between_seeds(row, replicates(row), compare),
                **_between_levels(row, previous.get(key), compare),
                **_between_methods(row, rivals(row), compare),
            }
        previous = {(row["trial"], row["branch"]): row for row in rows}
    return [
        {**record, **overlaps[record["trial"], record["branch"], record["level"]]}
        if record["branch"] in WITH_OWN_MASK
        else record
        for record in records
    ]


def _masks(tickets: Iterable[Record], loaded: Masks, mask_of: MaskOf) -> Masks:
    """Masks of the tickets, and no others: masks of large networks need much memory."""
    digests = {ticket["training_digest"] for ticket in tickets}
    new = digests - loaded.keys()
    needed_again = {digest: loaded[digest] for digest in digests - new}
    return needed_again | dict(zip(new, map_in_threads(mask_of, new), strict=True))


def _between_seeds(ticket: Record, replicates: Iterable[Record], compare: Compare) -> Record:
    others = {other["seed"]: other for other in replicates if other["seed"] != ticket["seed"]}
    overlaps = [overlap for other in others.values() if (overlap := compare(ticket, other))]
    return _columns("overlap_seeds", overlaps)


def _between_levels(ticket: Record, previous: Record | None, compare: Compare) -> Record:
    consecutive = previous is not None and previous["level"] == ticket["level"] - 1
    overlap = compare(ticket, previous) if previous and consecutive else None
    return _columns("overlap_level", [overlap] if overlap else [])


def _between_methods(ticket: Record, rivals: Iterable[Record], compare: Compare) -> Record:
    by_method: dict[str, list[Overlap]] = defaultdict(list)
    for other in rivals:
        if other["method"] != ticket["method"] and (overlap := compare(ticket, other)):
            by_method[other["method"]].append(overlap)
    means = {name: _mean(overlaps) for name, overlaps in by_method.items()}
    return {
        "overlap_methods": {name: overlap for name, (overlap, _) in means.items()},
        "overlap_methods_chance": {name: chance for name, (_, chance) in means.items()},
    }


def _cached_comparison(masks: Masks) -> Compare:
    """A function that compares the masks of two tickets, each pair of masks once."""

    @cache
    def compare_digests(first: str, second: str) -> Overlap | None:
        a, b = masks[first], masks[second]
        return overlap_and_chance(a, b) if a and b else None

    def compare(ticket: Record, other: Record) -> Overlap | None:
        first, second = sorted((ticket["training_digest"], other["training_digest"]))
        return compare_digests(first, second)

    return compare


def _grouped(tickets: Sequence[Record], fields: Sequence[str]) -> Callable[[Record], list[Record]]:
    """A function from a ticket to the tickets with the same values of the given fields."""
    key = values_of(fields)
    groups = group_by(tickets, key)
    return lambda ticket: groups[key_of(key(ticket))]


def _columns(name: str, overlaps: Sequence[Overlap]) -> Record:
    overlap, chance = _mean(overlaps) if overlaps else (None, None)
    return {name: overlap, f"{name}_chance": chance}


def _mean(overlaps: Sequence[Overlap]) -> Overlap:
    return fmean(overlap for overlap, _ in overlaps), fmean(chance for _, chance in overlaps)


def _ones(bits: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(bits).sum())
