"""Overlaps of masks between seeds, between methods, and with the previous level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lth_core.analysis.cells import free_axes
from lth_core.analysis.groups import group_by, key_of, values_of
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


FINDING = ("ticket", *RETRAINED)
"""Branches that find masks; the other branches use the ticket's, or an imitation of it."""
MaskOf = Callable[[str], PackedMask | None]
"""A function from a record's `training_digest` to its mask; None where it is missing."""
Masks = dict[str, PackedMask | None]
"""Masks by `training_digest`; None where one is missing."""
Shared = tuple[float, float]
"""Jaccard overlap of two masks, and the overlap expected by chance."""
Compare = Callable[[Record, Record], Shared | None]


def packed_mask(parameters: Mapping[str, tuple[NDArray[np.uint8], int]]) -> PackedMask:
    """A mask from each parameter's packed bits (n/8 rounded up,) uint8 and number of weights n."""
    named = sorted(parameters.items())
    layers = tuple((name, _ones(bits), weights) for name, (bits, weights) in named)
    nothing = np.zeros(0, np.uint8)
    return PackedMask(np.concatenate([nothing, *(bits for _, (bits, _) in named)]), layers)


def shared(a: PackedMask, b: PackedMask) -> Shared | None:
    """Overlap and chance level; None where the masks are of different networks."""
    if [(name, weights) for name, _, weights in a.layers] != [(n, w) for n, _, w in b.layers]:
        return None
    counts = [
        (ours, theirs, weights)
        for (_, ours, weights), (_, theirs, _) in zip(a.layers, b.layers, strict=True)
    ]
    both = _ones(a.bits & b.bits)
    either = sum(ours + theirs for ours, theirs, _ in counts) - both
    return both / either if either else 1.0, chance_overlap(counts)


def with_overlaps(records: Sequence[Record], axes: Sequence[str], mask_of: MaskOf) -> list[Record]:
    """The records, with overlaps in those of branches that find masks.

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
        if record["branch"] in FINDING:
            by_level[record["level"]].append(record)
    overlaps: dict[tuple[str, str, int], Record] = {}
    before, masks = dict[tuple[str, str], Record](), Masks()
    for level, rows in sorted(by_level.items()):
        masks = _masks([*before.values(), *rows], masks, mask_of)
        compare = _comparing(masks)
        seeds = _grouped(rows, ["branch", "method", *names])
        rivals = _grouped(rows, ["branch", "seed", *free])
        for row in rows:
            at = row["trial"], row["branch"]
            overlaps[*at, level] = {
                **_between_seeds(row, seeds(row), compare),
                **_between_levels(row, before.get(at), compare),
                **_between_methods(row, rivals(row), compare),
            }
        before = {(row["trial"], row["branch"]): row for row in rows}
    return [
        {**record, **overlaps[record["trial"], record["branch"], record["level"]]}
        if record["branch"] in FINDING
        else record
        for record in records
    ]


def _masks(tickets: Iterable[Record], loaded: Masks, mask_of: MaskOf) -> Masks:
    """The masks of some tickets, and no others: masks of large networks need much memory."""
    digests = {ticket["training_digest"] for ticket in tickets}
    new = digests - loaded.keys()
    kept = {digest: loaded[digest] for digest in digests - new}
    return kept | dict(zip(new, map_in_threads(mask_of, new), strict=True))


def _between_seeds(ticket: Record, replicates: Iterable[Record], compare: Compare) -> Record:
    others = {other["seed"]: other for other in replicates if other["seed"] != ticket["seed"]}
    pairs = [pair for other in others.values() if (pair := compare(ticket, other))]
    return _columns("overlap_seeds", pairs)


def _between_levels(ticket: Record, before: Record | None, compare: Compare) -> Record:
    pair = compare(ticket, before) if before and before["level"] == ticket["level"] - 1 else None
    return _columns("overlap_level", [pair] if pair else [])


def _between_methods(ticket: Record, rivals: Iterable[Record], compare: Compare) -> Record:
    by_method: dict[str, list[Shared]] = defaultdict(list)
    for other in rivals:
        if other["method"] != ticket["method"] and (pair := compare(ticket, other)):
            by_method[other["method"]].append(pair)
    means = {name: _mean(pairs) for name, pairs in by_method.items()}
    return {
        "overlap_methods": {name: overlap for name, (overlap, _) in means.items()},
        "overlap_methods_chance": {name: chance for name, (_, chance) in means.items()},
    }


def _comparing(masks: Masks) -> Compare:
    """A function that compares the masks of two tickets, each pair of masks once."""

    @cache
    def of_digests(one: str, other: str) -> Shared | None:
        a, b = masks[one], masks[other]
        return shared(a, b) if a and b else None

    def compare(ticket: Record, other: Record) -> Shared | None:
        one, two = sorted((ticket["training_digest"], other["training_digest"]))
        return of_digests(one, two)

    return compare


def _grouped(tickets: Sequence[Record], fields: Sequence[str]) -> Callable[[Record], list[Record]]:
    """A function from a ticket to the tickets that have its values in some fields."""
    key = values_of(fields)
    groups = group_by(tickets, key)
    return lambda ticket: groups[key_of(key(ticket))]


def _columns(name: str, pairs: Sequence[Shared]) -> Record:
    overlap, chance = _mean(pairs) if pairs else (None, None)
    return {name: overlap, f"{name}_chance": chance}


def _mean(pairs: Sequence[Shared]) -> Shared:
    return fmean(overlap for overlap, _ in pairs), fmean(chance for _, chance in pairs)


def _ones(bits: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(bits).sum())
