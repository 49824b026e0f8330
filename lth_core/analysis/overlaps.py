"""How much masks have in common: with other seeds, other methods, and the level before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lth_core.analysis.cells import free_axes
from lth_core.analysis.groups import group_by, values_of
from lth_core.columns import Record
from lth_core.jobs.branches import RETRAINED
from lth_core.masks import chance_overlap
from lth_core.parallel import map_in_threads


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask as bits.

    bits: (bytes,) uint8, of all parameters one after the other.
    layers: of each parameter its name, the weights kept, and weights in all.
    """

    bits: NDArray[np.uint8]
    layers: tuple[tuple[str, int, int], ...]


FINDING = ("ticket", *RETRAINED)
"""Branches that find masks; the others have the ticket's, or one that imitates it."""
MaskOf = Callable[[str], PackedMask | None]
"""From a record's `training_digest` to its mask, None where it is not at hand."""
Masks = dict[str, PackedMask | None]
"""By `training_digest`."""
Shared = tuple[float, float]
"""Jaccard overlap of two masks, and the level to expect by chance."""
Compare = Callable[[Record, Record], Shared | None]


def packed_mask(parameters: Mapping[str, tuple[NDArray[np.uint8], int]]) -> PackedMask:
    """A mask from the packed bits (as `lth_core.masks.pack_bits`) and weights of each parameter."""
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
    """The records; those of branches that find masks with their overlaps and, as `..._chance`, the
    levels of chance. What is compared is of one branch.

    `overlap_seeds`: mean with the other seeds' masks of its cell and level. `overlap_level`: with
    its trial's mask one level before. `overlap_methods`: by other method, with that one's mask at
    the same seed, level, and values of the axes that no method determines. None, or nothing by
    method, where there is none to compare with.
    """
    free, names = free_axes(records, axes), [axis for axis in axes if axis != "seed"]
    by_level: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record["branch"] in FINDING:
            by_level[record["level"]].append(record)
    found: dict[tuple[str, str, int], Record] = {}
    before, masks = dict[tuple[str, str], Record](), Masks()
    for level, rows in sorted(by_level.items()):
        masks = _masks([*before.values(), *rows], masks, mask_of)
        compare = _comparing(masks)
        seeds = _grouped(rows, ["branch", "method", *names])
        rivals = _grouped(rows, ["branch", "seed", *free])
        for row in rows:
            at = row["trial"], row["branch"]
            found[*at, level] = {
                **_between_seeds(row, seeds(row), compare),
                **_between_levels(row, before.get(at), compare),
                **_between_methods(row, rivals(row), compare),
            }
        before = {(row["trial"], row["branch"]): row for row in rows}
    return [
        {**record, **found[record["trial"], record["branch"], record["level"]]}
        if record["branch"] in FINDING
        else record
        for record in records
    ]


def _masks(tickets: Iterable[Record], held: Masks, mask_of: MaskOf) -> Masks:
    """The masks of some tickets, and no others: those of large networks take room."""
    digests = {ticket["training_digest"] for ticket in tickets}
    new = digests - held.keys()
    kept = {digest: held[digest] for digest in digests - new}
    return kept | dict(zip(new, map_in_threads(mask_of, new), strict=True))


def _between_seeds(ticket: Record, replicates: Iterable[Record], compare: Compare) -> Record:
    others = {other["seed"]: other for other in replicates if other["seed"] != ticket["seed"]}
    both = [said for other in others.values() if (said := compare(ticket, other))]
    return _said("overlap_seeds", both)


def _between_levels(ticket: Record, before: Record | None, compare: Compare) -> Record:
    said = compare(ticket, before) if before and before["level"] == ticket["level"] - 1 else None
    return _said("overlap_level", [said] if said else [])


def _between_methods(ticket: Record, rivals: Iterable[Record], compare: Compare) -> Record:
    by_method: dict[str, list[Shared]] = defaultdict(list)
    for other in rivals:
        if other["method"] != ticket["method"] and (said := compare(ticket, other)):
            by_method[other["method"]].append(said)
    means = {name: _mean(said) for name, said in by_method.items()}
    return {
        "overlap_methods": {name: overlap for name, (overlap, _) in means.items()},
        "overlap_methods_chance": {name: chance for name, (_, chance) in means.items()},
    }


def _comparing(masks: Masks) -> Compare:
    """Compares two tickets by their masks, each pair of masks once."""

    @cache
    def of_digests(one: str, other: str) -> Shared | None:
        a, b = masks[one], masks[other]
        return shared(a, b) if a and b else None

    def compare(ticket: Record, other: Record) -> Shared | None:
        one, two = sorted((ticket["training_digest"], other["training_digest"]))
        return of_digests(one, two)

    return compare


def _grouped(tickets: Sequence[Record], fields: Sequence[str]) -> Callable[[Record], list[Record]]:
    """From a ticket to those that have the same values in some fields."""
    key = values_of(fields)
    groups = group_by(tickets, key)
    return lambda ticket: groups[repr(key(ticket))]


def _said(name: str, both: Sequence[Shared]) -> Record:
    overlap, chance = _mean(both) if both else (None, None)
    return {name: overlap, f"{name}_chance": chance}


def _mean(both: Sequence[Shared]) -> Shared:
    return fmean(overlap for overlap, _ in both), fmean(chance for _, chance in both)


def _ones(bits: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(bits).sum())
