"""Overlaps on records made by hand, and on masks that a sweep has left in its store."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_core import masks
from lth_core.analysis.overlaps import PackedMask, overlap_and_chance, packed_mask, with_overlaps
from lth_core.masks import chance_overlap

Record = dict[str, Any]
AXES = ["seed", "prune.score"]


def packed(mask: masks.Mask) -> PackedMask:
    return packed_mask({n: (masks.pack_bits(m).numpy(), m.numel()) for n, m in mask.items()})


def keeping(*kept: int, size: int = 10) -> PackedMask:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(kept)] = True
    return packed({"fc.weight": mask})


def ticket(trial: str, mask: PackedMask | None, **more: Any) -> Record:
    row: Record = {
        "trial": trial,
        "branch": "ticket",
        "level": 1,
        "seed": 0,
        "method": "imp",
        **more,
    }
    return {**row, "training_digest": f"{trial}-{row['level']}", "mask": mask}


def overlapped(records: list[Record], axes: list[str] | None = None) -> list[Record]:
    held = {record["training_digest"]: record["mask"] for record in records}
    return with_overlaps(records, axes or AXES, held.get)


@given(st.lists(st.tuples(st.integers(1, 40), st.randoms()), min_size=1, max_size=3))
@pytest.mark.slow
def test_overlap_of_bits_is_that_of_masks(layers: list[Any]) -> None:
    one, other = (
        {f"{i}.weight": torch.tensor([r.random() < 0.4 for _ in range(n)])
         for i, (n, r) in enumerate(layers)}
        for _ in range(2)
    )  # fmt: skip
    counts = [(int(one[n].sum()), int(other[n].sum()), one[n].numel()) for n in one]
    assert overlap_and_chance(packed(one), packed(other)) == pytest.approx(
        (masks.overlap(one, other), chance_overlap(counts))
    )


@pytest.mark.parametrize(
    "changed", [{"fc.weight": 9}, {"fc.weight": 10, "output.weight": 3}, {"x": 10}]
)
def test_masks_of_different_networks_are_not_compared(changed: dict[str, int]) -> None:
    other = {name: torch.ones(size, dtype=torch.bool) for name, size in changed.items()}
    assert overlap_and_chance(keeping(1), packed(other)) is None


def test_overlap_with_seeds_is_the_mean_over_the_others_of_the_cell_and_level() -> None:
    records = [
        ticket("a", keeping(0, 1), seed=0),
        ticket("b", keeping(0, 1), seed=1),
        ticket("c", keeping(1, 2), seed=2),
        ticket("d", keeping(7), seed=3, **{"prune.score": "other"}),
        ticket("a", keeping(8), seed=4, level=2),
    ]
    a, *_, alone, sparser = overlapped(records)
    assert a["overlap_seeds"] == pytest.approx((1 + 1 / 3) / 2)
    assert a["overlap_seeds_chance"] == pytest.approx(0.4 / 3.6)
    assert alone["overlap_seeds"] is alone["overlap_seeds_chance"] is None
    assert sparser["overlap_seeds"] is None


def test_overlap_with_the_level_before_is_that_of_the_same_trial() -> None:
    records = [
        ticket("a", keeping(0, 1, 2, 3), level=1),
        ticket("b", keeping(7), level=1, seed=1),
        ticket("a", keeping(0, 1), level=2),
        ticket("a", keeping(0), level=4),
    ]
    first, _, second, fourth = overlapped(records)
    assert first["overlap_level"] is None
    assert second["overlap_level"] == 0.5
    assert second["overlap_level_chance"] == pytest.approx(0.8 / 5.2)
    assert fourth["overlap_level"] is None  # level 3 is missing


def test_overlap_with_methods_is_at_the_same_seed_level_and_free_axes() -> None:
    records = [
        ticket(f"{method}-{seed}-{width}", keeping(*kept), method=method, seed=seed,
               **{"prune.score": method, "model.width": width})
        for method, kept in (("imp", [0, 1]), ("snip", [1, 2]))
        for seed in (0, 1) for width in (1, 2)
    ]  # fmt: skip
    records[-1]["mask"] = keeping(9)
    found = overlapped(records, [*AXES, "model.width"])
    by_trial = {record["trial"]: record for record in found}
    assert by_trial["imp-0-1"]["overlap_methods"] == {"snip": pytest.approx(1 / 3)}
    assert by_trial["imp-0-1"]["overlap_methods_chance"] == {"snip": pytest.approx(0.4 / 3.6)}
    assert by_trial["imp-1-2"]["overlap_methods"] == {"snip": 0}
    assert by_trial["snip-1-2"]["overlap_methods"] == {"imp": 0}


def test_lost_mask_is_left_out_and_the_others_are_compared() -> None:
    records = [
        ticket("a", keeping(0), seed=0), ticket("b", None, seed=1), ticket("c", keeping(0), seed=2),
        ticket("d", None, seed=0, method="snip"),
    ]  # fmt: skip
    a, b, _, d = overlapped(records)
    assert (a["overlap_seeds"], a["overlap_methods"]) == (1, {})
    assert (b["overlap_seeds"], b["overlap_level"]) == (None, None)
    assert d["overlap_methods"] == d["overlap_methods_chance"] == {}


def test_other_records_stay_as_they_are_and_in_their_places() -> None:
    dense = {"branch": "dense", "level": 0, "method": "imp"}
    control = {"branch": "reinit", "level": 1, "method": "imp"}
    found = with_overlaps([dense, ticket("a", None), control], AXES, lambda digest: None)
    assert (found[0], found[2]) == (dense, control)


def counting(found: Counter[str]) -> Callable[[str], PackedMask]:
    def mask_of(digest: str) -> PackedMask:
        found[digest] += 1
        return keeping(0)

    return mask_of


def test_each_mask_is_read_once() -> None:
    found: Counter[str] = Counter()
    records = [
        ticket(f"{method}-{seed}", None, method=method, seed=seed, level=level)
        for method in "abc" for seed in range(3) for level in (1, 2, 3)
    ]  # fmt: skip
    with_overlaps(records, AXES, counting(found))
    assert len(found) == 27
    assert set(found.values()) == {1}


def test_bits_of_no_layers_are_compared_too() -> None:
    assert overlap_and_chance(packed_mask({}), packed_mask({})) == (1.0, 1.0)
    assert packed_mask({}).bits.dtype == np.uint8
