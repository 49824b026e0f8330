"""Digests name what is in users' stores: how fast they are made may change, they may not."""

import dataclasses
import pickle
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from toys import jobs_of

from lth_core import DataSpec, PruneSpec, TicketSpec, TrainSpec
from lth_core.jobs import Recipe
from lth_core.spec import SCHEMA, canonical_json, describe, said, sha256

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
    return sha256({"schema": SCHEMA, "kind": type(recipe).__name__, **parts})


def test_digests_of_specs_stay_what_they_are() -> None:
    assert LATE.digest() == "aad9594d55ac7c2bb88ec6af4580a0ea4f42453748f403a1a73898b7a8f5042a"


@pytest.mark.parametrize(
    ("spec", "branch", "digest"),
    [
        (LATE, "ticket", "05ae8f11a209e5ca9c765cd834f85d43a567ed48946c1403bae32fa6e2a2f1c0"),
        (LATE, "reinit", "7244b04aad7af2884654271ae08123f609ee800a93b0e063dfb2ee4fedc648ff"),
        (LATE, "random_mask", "721fb06ef8c3ad2d38eb192d2aacc9958a39bfab6a733040ec7b00a5cc250b76"),
        (LATE, "finetune", "8a40f0b14fc4c4073ac05770542b2a148a1c55d6edb05cd21351fbdfe4f6fcf3"),
        (GROWN, "ticket", "4b628f1545ec45af3f89328633d5f4b6649e84d5971eb9a2ccdf9d3edc2c303f"),
        (GROWN, "trained", "f07aba8073011a6481b34d34e92cc3372dc91e67e6a2d56cbf0de2ce66b4d6c6"),
        (GROWN, "shuffled_mask", "4d831970649cc8657dadf6159e659e98b28028154e0a27e2f09da678ca627979"),
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
