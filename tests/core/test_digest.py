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
    assert LATE.digest() == "74f8a5e0c6015236ff4f72906763fa9b85f9e9ed09aa0628b4a1df04ed87fab5"


@pytest.mark.parametrize(
    ("spec", "branch", "digest"),
    [
        (LATE, "ticket", "d8ded4d5ecb97399eee07acdd14ac473d64c9591ef8ac8cad8ce1220e3b746df"),
        (LATE, "reinit", "0e5f2eeb017deab553ff9559b47c99c04ba021d66c06570c61340c2f3da9fc2b"),
        (LATE, "random_mask", "45869b102e5cbc6353ad298af5d93064f69a3e0484c60c8089702760672d987b"),
        (LATE, "finetune", "b4d8f7c30f33dc1f6a06cfef61d3eee43caf630438158b30b721ac639302c1ff"),
        (GROWN, "ticket", "f2f79db42217d3839cd0328b8d86b8b27b31d40effaaa1578368431b2ff7286d"),
        (GROWN, "trained", "0c0ccb6e2ad3ec3c9c59bd93416dd1f2c6a82f2857e6c9b3b45c4e8ff073b417"),
        (GROWN, "shuffled_mask", "b20436b99a7d75cf245ae737d03f1d80f30dd4cfa1ca72afbba8ddabb136daca"),
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
