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
    added_later,
    canonical_json,
    describe,
    said,
    sha256,
    with_implied,
)

LATE = TicketSpec(
    levels=2, rewind="7it", branches=("ticket", "reinit", "random_mask", "finetune", "lr_rewind")
)
GROWN = TicketSpec(
    levels=1, branches=("ticket", "trained", "shuffled_mask"),
    prune=PruneSpec(when="during", grow="gradient", layer_fractions={"fc*": 0.25}),
)  # fmt: skip


def plain_digest(recipe: Recipe) -> str:
    """The definition, with nothing kept."""
    parts: dict[str, Any] = {}
    for f in dataclasses.fields(recipe):
        value = getattr(recipe, f.name)
        if not f.metadata.get("where"):
            parts[f.name] = plain_digest(value) if isinstance(value, Recipe) else describe(value)
    return sha256({"schema": SCHEMA, "kind": recipe.kind, **parts})


def test_digests_of_specs_stay_what_they_are() -> None:
    assert LATE.digest() == "2ed1a1f61576d1398bcd1823e56c654136aef42ca628ae69bcc62205ee4f0dc3"


@pytest.mark.parametrize(
    ("spec", "branch", "digest"),
    [
        (LATE, "ticket", "9d4358a78a0809507751525977491b51c225b934d4b21466868ed34bb18a9942"),
        (LATE, "reinit", "66d0f4d46c9e46084edd6d1543ae0f6b7947b7531152c12da7de18f07183d4f5"),
        (LATE, "random_mask", "74b49393c26e9ebed17540b19455dc74236b902a59175a1ab32628744a2bb895"),
        (LATE, "finetune", "ba5d9b27174872ebbc46a673cbed056cba9e7cdb8b408048c578e9061be67873"),
        (GROWN, "ticket", "abe22ee447e4ea7de403ccc0ddcbff840a1a78f92a4e80164c8070be266632a5"),
        (GROWN, "trained", "9d76445f573c101b6e4b1c4713bd2173202f59d1f1212cfe40d58f242e27b083"),
        (GROWN, "shuffled_mask", "8f113db6c9245c8fc5ce1b3a4a3b11d030e6ba89f859be56106d07001c91ebff"),
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
    assert said(spec) == canonical_json(describe(spec)) == said(spec)
    changed = replace(spec, fraction=0.3)
    assert said(changed) == canonical_json(describe(changed)) != said(spec)
    for again in (deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert again == spec
        assert said(again) == said(spec)


def test_equal_specs_hash_alike_and_say_the_same() -> None:
    pairs = [
        (TrainSpec(weight_decay=-0.0), TrainSpec(weight_decay=0)),
        (PruneSpec(layer_fractions={"b": 0.1, "a": 0.2}),
         PruneSpec(layer_fractions={"a": 0.2, "b": 0.1})),
        (DataSpec(validation=5), DataSpec(validation=5.0)),
    ]  # fmt: skip
    for one, other in pairs:
        assert one == other
        assert hash(one) == hash(other)
        assert said(one) == said(other)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlurredData(DataSpec):
    """DataSpec as a later version may have it: images may be blurred, and are by default."""

    blur: float = field(default=1.0, metadata=added_later(implied=0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterSpec(TicketSpec):
    """TicketSpec of that version."""

    data: BlurredData = field(default_factory=BlurredData)


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
        "levels": 2, "data": {"name": "digits", "blur": 0.0}
    }  # fmt: skip
    assert with_implied(LaterSpec, {"data": {"blur": 2.0}}) == {"data": {"blur": 2.0}}
