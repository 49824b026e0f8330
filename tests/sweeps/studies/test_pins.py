"""Housekeeping runs no code that a store's entry names, and reads no data: pins say what it needs."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import Called, Lth, StudyOf, search

from lth_core import Trainer
from lth_core.errors import StoreError
from lth_core.resolve.pins import evaluated_examples, pin_data, pin_model
from lth_core.store import Store, open_store
from sweeps.plan.plan import make_plan
from sweeps.store.garbage import collect
from sweeps.store.records import register
from sweeps.store.references import find_needs, recipes
from sweeps.studies.pins import study_pins
from sweeps.studies.schema import Study

EVIL = """
from pathlib import Path
from torch import nn
from lth_core.data.packaged import digits as data

Path("imported").touch()

def net(spec, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, classes))

def score(network):
    return {name: weights.abs() for name, weights in network.weights.items()}
"""
OWN: dict[str, Any] = {
    "base.data.name": "evil:data", "base.model": {"name": "evil:net"}, "base.levels": 1,
    "base.train.evaluate_every": "auto",
    "axes.prune.score": ["magnitude", "evil:score"], "axes.seed": [0],
}  # fmt: skip
IN_AXES: dict[str, Any] = {
    "base.levels": 1,
    "axes": {
        "seed": [0],
        "data.validation": [0.1, 200],
        "ways": [{"data.name": "evil:data", "model.name": "evil:net"}, {"prune.score": "evil:score"}],
    },
    "base.prune.score": "random",
}  # fmt: skip
SAMPLED: dict[str, Any] = {
    "base.levels": 1,
    "axes.seed": [0],
    "search": {
        "algorithm": "random",
        "trials": 4,
        "space": {"data.name": ["digits", "evil:data"], "model.name": ["evil:net", "mlp"],
                  "data.fraction": {"low": 0.2, "high": 0.9}},
    },
}  # fmt: skip


@pytest.fixture
def evil(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's module in the current folder, which leaves a file when it is imported."""
    (here / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(here)
    yield here
    forget_imports()


def forget_imports() -> None:
    """Forget the module and what was resolved from it, as in a new process."""
    sys.modules.pop("evil", None)
    for cached in (pin_data, pin_model, evaluated_examples):
        cached.cache_clear()


def planned(study: Study) -> set[str]:
    """Digests that a stored study needs, from the code that it names."""
    return recipes(make_plan(study, swept=True).trials)


def gone(evil: Path) -> None:
    """Take the module away."""
    (evil / "evil.py").unlink()
    shutil.rmtree(evil / "__pycache__", ignore_errors=True)
    (evil / "imported").unlink()
    forget_imports()


@pytest.mark.parametrize("changes", [OWN, IN_AXES, SAMPLED], ids=["base", "axes", "space"])
def test_what_a_study_of_own_code_needs_is_known_when_the_code_is_gone(
    changes: dict[str, Any], evil: Path, tiny: StudyOf
) -> None:
    store, study = Store(), tiny(changes)
    needed = planned(study)
    register(store, study)
    gone(evil)
    needs = find_needs(store)
    assert needs.unread == {}
    assert needs.digests == {"tiny": needed}


def test_what_was_swept_is_needed_and_not_what_the_edited_source_would_give(
    evil: Path, tiny: StudyOf
) -> None:
    store, study = Store(), tiny(OWN)
    needed = planned(study)
    register(store, study)
    forget_imports()
    (evil / "evil.py").write_text(EVIL + "\n# edited\n")
    assert not needed <= planned(study)
    forget_imports()
    assert find_needs(store).digests == {"tiny": needed}


def test_study_that_was_stored_before_pins_counted_evaluated_examples_is_read(
    evil: Path, tiny: StudyOf
) -> None:
    store, study = Store(), tiny({**OWN, "base.train.evaluate_every": "20it"})
    needed = planned(study)
    register(store, study)
    (key,) = store.digests("studies")
    meta = store.get("studies", key).meta  # type: ignore[union-attr]
    del meta["pins"]["data"][0]["evaluated"]
    store.put("studies", key, meta)
    forget_imports()
    assert find_needs(store).digests == {"tiny": needed}


def test_images_are_not_read_to_know_what_their_study_needs(here: Path, tiny: StudyOf) -> None:
    for part, name, count in (("train", "a", 9), ("train", "b", 8), ("test", "a", 2)):
        (here / "images" / part / name).mkdir(parents=True)
        for n in range(count):
            Image.new("L", (8, 8), n).save(here / "images" / part / name / f"{n}.png")
    store, study = Store(), tiny({"base.data": {"name": "folder:images", "validation": 2}})
    needed = planned(study)
    register(store, study)
    shutil.rmtree(here / "images")
    forget_imports()
    needs = find_needs(store)
    assert needs.unread == {}
    assert needs.digests == {"tiny": needed}


def files(store: Path) -> list[str]:
    return sorted(str(path) for path in store.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("left", ["there", "gone"])
def test_store_commands_import_no_module_of_a_study_and_keep_what_it_needs(
    left: str, evil: Path, tiny: StudyOf, lth: Lth
) -> None:
    study = tiny(OWN)
    store = open_store(study.store)
    register(store, study)
    for _ in search(study, Trainer(store)):
        pass
    for key in store.digests("trials"):  # which would be needed by their own records
        store.delete("trials", key)
    assert (evil / "imported").exists()
    if left == "there":
        (evil / "imported").unlink()
        forget_imports()
    else:
        gone(evil)
    before = files(evil / "lth-store")
    assert lth("store", "du").code == 0
    for options in (["--dry-run"], []):
        called = lth("store", "gc", "--older", "0s", *options)
        assert called == Called(0, "Nothing to delete.\n", "")
    assert lth("store", "verify") == Called(0, "No entry is faulty.\n", "")
    assert "evil" not in sys.modules
    assert not (evil / "imported").exists()
    assert files(evil / "lth-store") == before


# Entries of versions that kept no pins


def without_pins(store: Store) -> str:
    (key,) = store.digests("studies")
    entry = store.get("studies", key)
    assert entry is not None
    store.put("studies", key, {k: v for k, v in entry.meta.items() if k != "pins"})
    return key


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base.model": {"name": "evil:net"}}, "base.model.name"),
        ({"axes.prune.score": ["magnitude", "evil:score"]}, "axes.prune.score"),
        ({"base.data.name": "evil:data"}, "base.data.name"),
    ],
)
def test_older_entry_that_names_own_code_is_unread_with_its_reason(
    changes: dict[str, Any], field: str, evil: Path, tiny: StudyOf
) -> None:
    store, study = Store(), tiny(changes)
    register(store, study)
    key = without_pins(store)
    forget_imports()
    (evil / "imported").unlink()
    (why,) = find_needs(store).unread.values()
    assert why.startswith(f"{field}: must have a stored fingerprint")
    with pytest.raises(StoreError, match=rf"studies/{key} .*evil:.*sweep it again.*--forget {key}"):
        collect(store, 0)
    assert not (evil / "imported").exists()
    register(store, study)
    assert find_needs(store).unread == {}, "swept again"


def test_older_entry_that_names_only_what_we_ship_is_read(tiny: StudyOf) -> None:
    store, study = Store(), tiny({"axes.prune.score": ["magnitude", "snip"]})
    register(store, study)
    without_pins(store)
    needs = find_needs(store)
    assert needs.unread == {}
    assert needs.digests == {"tiny": planned(study)}


def test_needs_of_samples_are_those_that_were_drawn_in_the_order_of_their_space(
    tiny: StudyOf,
) -> None:
    space = {"train.lr": {"low": 0.01, "high": 0.1}, "model.width": {"low": 0.5, "high": 2}}
    store = Store()
    study = tiny({"search": {"algorithm": "random", "trials": 3, "space": space}})
    register(store, study)
    assert find_needs(store).digests == {"tiny": planned(study)}


def test_needs_of_axes_that_set_one_field_are_those_of_the_later(tiny: StudyOf) -> None:
    """Such a study is refused now; an older version has run some."""
    ways = [{"levels": 1, "rewind": "0it"}, {"levels": 2, "rewind": "10it"}]
    store, study = Store(), tiny({"axes": {"ways": ways, "levels": [3]}})
    register(store, study)
    assert find_needs(store).digests == {"tiny": planned(study)}


def test_study_of_what_we_ship_has_no_pins_however_many_trials_it_has(tiny: StudyOf) -> None:
    pins = study_pins(tiny({"axes.seed": [0, 1], "axes.data.split_seed": list(range(500))}))
    assert (pins.data, pins.sources) == ({}, {})
