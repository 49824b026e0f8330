import pytest
from hand_made import WAYS, record, taxonomy

from lth_core.analysis.cells import cells
from lth_core.analysis.families import Variant, by_family, variant_verdicts, variants
from lth_core.analysis.groups import free_axes, methods
from lth_core.analysis.verdict_rule import DEFAULT_RULE

SCORES = ["seed", "prune.score"]


def test_ways_are_tickets_and_retrainings_but_no_controls():
    records = [record(0, branch, 1, 0.9) for branch in ("reinit", "trained", "ticket", "dense")]
    assert [way.name for way in variants(records)] == ["imp", "imp trained"]


def test_ways_go_by_family_then_in_the_records_order():
    backwards = list(reversed(taxonomy(seeds=1, levels=1)))
    assert [way.when for way in variants(backwards)] == sorted(
        (way.when for way in variants(backwards)), key=list(WAYS).index
    )
    named = [way.method for way in variants(backwards) if way.when == "before"]
    assert named == WAYS["before"][::-1]


def test_masks_that_were_learned_and_then_trained_under_are_a_family_of_their_own():
    records = [
        record(0, branch, 1, 0.9, method=method, when=when)
        for method, when in (("edge-popup", "never"), ("gmp", "during"), ("supermask", "never"))
        for branch in ("ticket", "trained")
    ]
    families = {
        family: [variant.name for variant in found]
        for family, found in by_family(variants(records)).items()
    }
    assert families == {
        "During training": ["gmp", "gmp trained"],
        "Never trained": ["edge-popup", "supermask"],
        "Mask learned, then trained": ["edge-popup trained", "supermask trained"],
    }
    assert list(families) == ["During training", "Never trained", "Mask learned, then trained"]


def test_a_family_that_is_not_known_comes_last_under_its_own_name():
    known, unknown = Variant("imp", "ticket", "after"), Variant("x", "ticket", "at noon")
    records = [record(0, "ticket", 1, 0.9, method=w.method, when=w.when) for w in (unknown, known)]
    assert variants(records) == [known, unknown]
    assert by_family([known, unknown]) == {"After training": [known], "at noon": [unknown]}


def test_an_axis_that_is_one_value_within_each_method_is_not_free():
    assert free_axes(taxonomy(levels=1), SCORES) == []
    wide = [r for w in (1, 2) for r in taxonomy(levels=1, **{"model.width": w})]
    assert free_axes(wide, [*SCORES, "model.width"]) == ["model.width"]


def test_an_axis_that_varies_within_one_method_alone_is_free():
    rewound = [{**r, "rewind": 0} for r in taxonomy(levels=1)]
    rewound += [{**r, "rewind": 500} for r in rewound if r["method"] == "imp"]
    assert free_axes(rewound, ["rewind"]) == ["rewind"]


@pytest.mark.parametrize("axes", [SCORES, ["prune.score"]])
def test_cells_of_several_methods_are_labelled_by_method_in_the_records_order(axes):
    records = taxonomy(seeds=1, levels=1)
    assert [cell.label for cell in cells(records, axes)] == methods(records)


def test_cells_of_one_method_are_labelled_by_their_axes():
    (cell,) = cells([record(0, "ticket", 1, 0.9, rewind="0it")], ["rewind"])
    assert cell.label == "rewind=0it"


def test_numbers_that_a_search_drew_are_short_unless_labels_would_be_equal():
    drawn = (0.13130280658593, 1234567.0, 0.25)
    labels = [c.label for c in cells([record(0, "ticket", 1, 0.9, lr=v) for v in drawn], ["lr"])]
    assert labels == ["lr=0.131303", "lr=0.25", "lr=1234567.0"]
    near = [record(0, "ticket", 1, 0.9, lr=v) for v in (0.1313028065, 0.1313028066)]
    assert [c.label for c in cells(near, ["lr"])] == ["lr=0.1313028065", "lr=0.1313028066"]


def test_labels_of_several_methods_name_free_axes_too():
    wide = [r for w in (1, 2) for r in taxonomy(levels=1, **{"model.width": w})]
    labels = [cell.label for cell in cells(wide, [*SCORES, "model.width"])]
    assert labels[:2] == ["random, model.width=1", "random, model.width=2"]
    assert len(set(labels)) == 36


def test_masks_that_are_learned_over_random_weights_and_then_trained_are_trained():
    records = [
        record(seed, branch, level, 0.9 + seed / 100 - level / 50, when="never")
        for seed in range(3)
        for branch, level in [("dense", 0), ("ticket", 1), ("trained", 1)]
    ]
    (cell,) = cells(records, [])
    found = variant_verdicts(cell, variants(records), DEFAULT_RULE)
    assert {way.branch: v.is_trained for way, (v,) in found.items()} == {
        "ticket": False, "trained": True,
    }  # fmt: skip
