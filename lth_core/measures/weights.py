"""Measures of masks, and of the distance that training moved the weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from lth_core.jobs.recipes import Context, Job, MaskRecipe, Measure
from lth_core.masks import (
    Mask,
    State,
    chance_overlap,
    counts,
    layer_of,
    masked,
    overlap,
    parameter_of,
)
from lth_core.prune import groups
from lth_core.spec import PruneBase, added_later


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskAndTravel(Measure):
    """The mask's overlap with another mask, and the distance that training moved the weights.

    A weight that grew back during training started at 0, and had no sign.
    """

    kind = "MaskAndTravel.2"  # that of older stores counts layers that are not pruned
    columns = (
        "mask_overlap", "mask_overlap_chance", "travel", "travel_inside", "travel_outside",
        "sign_agreement",
    )  # fmt: skip

    job: Job
    like: MaskRecipe | None
    """The mask to compare with; None: the job's own, whose overlap is 1."""
    dense: Job | None
    """The dense run whose weights' travel is split by the job's mask. None: the job is the dense
    run, or the network has another width."""
    ignore: tuple[str, ...] = field(default=(), metadata=added_later(implied=()))
    """Layers (names or patterns) that are not pruned, and whose weights are not counted."""

    def take(self, context: Context) -> dict[str, float | None]:
        job = self.job
        start, first = context.start(job), context.mask(job.mask, job)
        end, mask = context.final(job)
        like = context.mask(self.like, job) if self.like else mask
        shapes = {layer_of(name): tuple(m.shape) for name, m in mask.items()}
        counted = [n for names, _ in groups(shapes, PruneBase(ignore=self.ignore)) for n in names]
        mask = {name: mask[name] for name in map(parameter_of, counted)}
        # Weights kept from start to end: a weight that grew back is kept only at the end.
        stayed = {name: m & first[name] for name, m in mask.items()}
        inside = outside = None
        if self.dense:
            inside, outside = travel_by_mask(
                context.start(self.dense), context.final(self.dense)[0], mask
            )
        elif not job.level:
            inside = travel(masked(start, mask), end, mask)
        return {
            "mask_overlap": overlap(mask, like),
            "mask_overlap_chance": chance_overlap(counts(mask, like)),
            "travel": travel(masked(start, stayed), end, mask),
            "travel_inside": inside,
            "travel_outside": outside,
            "sign_agreement": sign_agreement(start, end, stayed),
        }


def travel(start: State, end: State, mask: Mask) -> float | None:
    """Mean |end - start| of the kept weights; None where none are kept.

    Args:
        start, end: a tensor in each weight's shape, by parameter name.
        mask: bool, in the same shapes; True = kept.
    """
    moved = torch.cat([(end[name] - start[name])[m].abs() for name, m in mask.items()])
    return float(moved.double().mean()) if len(moved) else None


def travel_by_mask(start: State, end: State, mask: Mask) -> tuple[float | None, float | None]:
    """Mean |end - start| of the weights that a mask keeps, and of those that it prunes.

    Some layers move further than others, and masks keep more of some layers. So both means weight
    each layer by its kept weights. A layer without kept or without pruned weights is left out.

    Args:
        start, end, mask: as in `travel`.
    """
    inside = outside = 0.0
    kept = 0
    for name, m in mask.items():
        count = int(m.sum())
        if 0 < count < m.numel():
            moved = (end[name] - start[name]).abs().double()
            inside += count * float(moved[m].mean())
            outside += count * float(moved[~m].mean())
            kept += count
    return (inside / kept, outside / kept) if kept else (None, None)


def sign_agreement(start: State, end: State, mask: Mask) -> float | None:
    """Share of the kept weights with the same sign at start and end; None where none are kept.

    Args:
        start, end, mask: as in `travel`.
    """
    same = torch.cat([(end[name].sign() == start[name].sign())[m] for name, m in mask.items()])
    return float(same.double().mean()) if len(same) else None
