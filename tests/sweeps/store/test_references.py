"""What studies need, where entries are of another hand: not known, and gc stops."""

from typing import Any

import pytest
from tiny import tiny_fields

from lth_core.errors import StoreError
from lth_core.store import Store
from sweeps.plan.plan import make_plan
from sweeps.store.garbage import collect
from sweeps.store.records import register, save_records
from sweeps.store.references import find_needs, recipes
from sweeps.store.usage import usage
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study


@pytest.fixture
def study() -> Study:
    return parse_study(tiny_fields({"axes.seed": [0]}))


@pytest.fixture
def store(study: Study) -> Store:
    store = Store()
    register(store, study)
    save_records(store, "lost", study.digest(), make_plan(study).trials[0], [])
    return store


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("studies", {"schema": None}),
        ("studies", {"study": 3}),
        ("studies", {"study": {}}),
        ("studies", {"pins": None}),
        ("studies", {"order": ["axes"]}),
        ("studies", {"order": {"axes": ["nobodys"]}}),
        ("studies", {"order": {"nobodys": ["axes"]}}),
        ("studies", {"pins": {"data": [], "sources": {"own:net": 3}}}),
        ("studies", {"pins": {"data": [{"spec": {}, "fingerprint": "x"}], "sources": {}}}),
        (
            "studies",
            {
                "pins": {
                    "data": [{"spec": {"nobodys": 1}, "fingerprint": "", "examples": 1}],
                    "sources": {},
                }
            },
        ),
        ("trials", {"fields": None}),
        ("trials", {"spec": []}),
        ("trials", {"spec": {"branches": ["ticket", "nobodys"]}}),
        ("trials", {"spec": {"levels": "many"}}),
    ],
)
def test_entry_of_another_hand_is_unread_and_gc_names_it(
    store: Store, kind: str, change: dict[str, Any]
) -> None:
    assert not find_needs(store).unread
    (key,) = store.digests(kind)
    store.put(kind, key, {**store.get(kind, key).meta, **change})  # type: ignore[union-attr]
    needs = find_needs(store)
    assert list(needs.unread) == [(kind, key)]
    assert {row.name for row in usage(store, needs) if row.by == "study"} == {"tiny", "lost"}
    with pytest.raises(StoreError, match=rf"{kind}/{key} cannot be read .*--forget"):
        collect(store, 0)


@pytest.mark.parametrize("tolerance", [None, 0.0, 0.02])
def test_entry_of_a_study_that_had_a_tolerance_is_read_whatever_its_number_of_seeds(
    store: Store, tolerance: float | None
) -> None:
    needs, (key,) = find_needs(store), store.digests("studies")
    content: dict[str, Any] = {**store.get("studies", key).meta}  # type: ignore[union-attr]
    older = {field: value for field, value in content["study"].items() if field != "verdict"}
    store.put("studies", key, {**content, "study": {**older, "tolerance": tolerance}})
    assert find_needs(store) == needs
    assert not needs.unread


@pytest.mark.parametrize("kind", ["studies", "trials"])
def test_entry_without_anything_is_unread(store: Store, kind: str) -> None:
    (key,) = store.digests(kind)
    store.put(kind, key, {})
    assert list(find_needs(store).unread) == [(kind, key)]


def test_needs_of_a_search_of_a_thousand_levels_are_found(study: Study) -> None:
    (trial,) = make_plan(parse_study(tiny_fields({"axes.seed": [0], "base.levels": 1000}))).trials
    assert len(recipes([trial])) > 1000 * len(trial.spec.branches)
