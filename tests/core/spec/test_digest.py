"""Digests name what is in users' stores: how fast they are made may change, they may not."""

import dataclasses
import pickle
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from toys import jobs_of

from lth_core import DataSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.jobs.recipes import Recipe
from lth_core.spec import (
    SCHEMA,
    PruneAfter,
    PruneDuring,
    added_later,
    canonical_json,
    describe,
    sha256,
    spec_json,
    with_implied,
)

TRAIN = TrainSpec(evaluate_every="20it")
LATE = TicketSpec(
    levels=2, rewind="7it", train=TRAIN,
    branches=("ticket", "reinit", "random_mask", "finetune", "lr_rewind"),
)  # fmt: skip
GROWN = TicketSpec(
    levels=1, train=TRAIN, branches=("ticket", "trained", "shuffled_mask"),
    prune=PruneSpec(when="during", grow="gradient", every="6it", layer_fractions={"fc*": 0.25}),
)  # fmt: skip


def plain_digest(recipe: Recipe) -> str:
    """The definition, with nothing kept."""
    parts: dict[str, Any] = {}
    for f in dataclasses.fields(recipe):
        value = getattr(recipe, f.name)
        if f.metadata.get("decides", True) and f.metadata.get("implied", ...) != value:
            parts[f.name] = plain_digest(value) if isinstance(value, Recipe) else describe(value)
    return sha256({"schema": SCHEMA, "kind": recipe.kind, **parts})


def test_digests_of_specs_stay_what_they_are() -> None:
    assert LATE.digest() == "b63af044abba41b69095a3de5b7bffce62f842fd6ceeac44a92e51f17a9fec75"


@pytest.mark.parametrize(
    ("spec", "branch", "digest"),
    [
        (LATE, "ticket", "6ea70199129b0c2ccf59329313ce056ede282ad67dd086f9266d68f03590200d"),
        (LATE, "reinit", "c8cdaf0ee9ecfba9d025bf4d318c4d3a8fcd98b52f312d40b1b2053921c23a5f"),
        (LATE, "random_mask", "701778fd76cd20009cfb8608615818a6a51c37cc479bbf203ee54ea795671c32"),
        (LATE, "finetune", "09393b2fc33b2856dd9f95f8f1bfe2dbb768ecf33e72a82b3da588f31b102929"),
        (GROWN, "ticket", "f3f0bcff0a7da2fb72b7e4d8f7f1e51e74205f6c9d7b02a47c23cb072051cf55"),
        (GROWN, "trained", "340c4b1a1a4e30add2558b9462974fb8abf391a7ed0eacc4be26eff19cc83562"),
        (GROWN, "shuffled_mask", "b81540f4a9a8f1688aa3d8dc6e4ba9b44a2dea92b6302e6fc1178456f1dc8c0b"),
    ],
)  # fmt: skip
def test_digests_of_trainings_stay_what_they_are(
    spec: TicketSpec, branch: str, digest: str
) -> None:
    assert jobs_of(spec)[-1][branch].digest == digest


@pytest.mark.parametrize("spec", [LATE, GROWN])
def test_digest_is_that_of_the_whole_spelled_at_once(spec: TicketSpec) -> None:
    assert spec.digest() == sha256({"schema": SCHEMA, "kind": "ticket_spec", **describe(spec)})
    for branches in jobs_of(spec):
        for job in branches.values():
            assert job.digest == plain_digest(job)
            assert job.mask.digest == plain_digest(job.mask)


def test_what_a_spec_keeps_of_itself_goes_into_no_other() -> None:
    spec = PruneSpec(layer_fractions={"fc1": 0.1})
    assert spec_json(spec) == canonical_json(describe(spec)) == spec_json(spec)
    changed = replace(spec, fraction=0.3)
    assert spec_json(changed) == canonical_json(describe(changed)) != spec_json(spec)
    for again in (deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert again == spec
        assert spec_json(again) == spec_json(spec)


def test_equal_specs_have_equal_hashes_and_texts() -> None:
    pairs = [
        (TrainSpec(weight_decay=-0.0), TrainSpec(weight_decay=0)),
        (PruneSpec(layer_fractions={"b": 0.1, "a": 0.2}),
         PruneSpec(layer_fractions={"a": 0.2, "b": 0.1})),
        (DataSpec(validation=5), DataSpec(validation=5.0)),
    ]  # fmt: skip
    for one, other in pairs:
        assert one == other
        assert hash(one) == hash(other)
        assert spec_json(one) == spec_json(other)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlurredData(DataSpec):
    """DataSpec as a later version may have it: images may be blurred, and are by default."""

    blur: float = field(default=1.0, metadata=added_later(implied=0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterSpec(TicketSpec):
    """TicketSpec of that version."""

    data: BlurredData = field(default_factory=BlurredData)


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmDuring(PruneDuring):
    """PruneDuring of that version."""

    warm: int = field(default=5, metadata=added_later(implied=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowingLater(TicketSpec):
    """TicketSpec of that version, whose pruning has a further field during training."""

    prune: PruneAfter | WarmDuring = field(default_factory=PruneAfter)


def test_added_field_with_the_implied_value_leaves_every_digest_as_it_was() -> None:
    later = replace(LATE, data=BlurredData(blur=0))
    assert later.digest() == LATE.digest()
    for ours, theirs in zip(jobs_of(LATE), jobs_of(later), strict=True):
        assert {name: job.digest for name, job in ours.items()} == {
            name: job.digest for name, job in theirs.items()
        }


def test_added_field_with_another_value_is_another_spec_and_another_training() -> None:
    later = replace(LATE, data=BlurredData())
    assert later.digest() != LATE.digest()
    assert jobs_of(later)[0]["dense"].digest != jobs_of(LATE)[0]["dense"].digest
    assert describe(later)["data"]["blur"] == 1.0


def test_stored_spec_without_an_added_field_has_the_implied_value_not_the_default() -> None:
    stored = {"levels": 2, "data": {"name": "digits"}}
    assert with_implied(LaterSpec, stored) == {
        "levels": 2, "restart_schedule": False, "ticket": None,
        "data": {"name": "digits", "alpha": "black", "normalize": "dataset", "blur": 0.0},
    }  # fmt: skip
    blurred = {
        "restart_schedule": True, "data": {"alpha": "white", "normalize": "per_image", "blur": 2.0}
    }  # fmt: skip
    assert with_implied(LaterSpec, blurred) == {**blurred, "ticket": None}


def test_stored_pruning_is_completed_by_its_own_when() -> None:
    stored = {"prune": {"when": "during", "grow": "random"}, "restart_schedule": True}
    completed = {**stored["prune"], "include": (), "budget": {}}
    assert with_implied(TicketSpec, stored) == {**stored, "ticket": None, "prune": completed}
    assert with_implied(GrowingLater, stored)["prune"] == {**completed, "warm": 1}
    after = {"fraction": 0.5, "include": (), "budget": {}}
    assert with_implied(GrowingLater, {"prune": {"fraction": 0.5}})["prune"] == after
