"""References from studies to stored results: every recipe that their trials depend on.

A store has an entry for each study that was swept into it, and one for each trial with records. The
trials include those of searches, of `lth rewind`, and of studies whose axes have changed since. No
module that an entry names is imported, and no data are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lth_core.errors import CorruptEntryError, LthError, SpecError
from lth_core.jobs.recipes import Job, Pruned, Recipe, latencies_of
from lth_core.lottery import levels
from lth_core.parallel import map_in_threads
from lth_core.resolve import Pins
from lth_core.results import measures
from lth_core.spec import SCHEMA, DataSpec, ModelSpec
from lth_core.store import Store
from lth_core.store.decode import check, decoding
from sweeps.plan.plan import Trial, make_plan
from sweeps.store.records import STUDIES, TRIALS
from sweeps.studies.pins import pins_from_json
from sweeps.studies.reader import get_field, parse_stored_spec, parse_study, set_field

Key = tuple[str, str]
"""Kind and digest of an entry."""


@dataclass
class Needs:
    """Digests that the studies of a store need."""

    digests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Digests of trainings, rewind points, masks and measures, by the study's name."""
    unread: dict[Key, str] = field(default_factory=dict)
    """Read errors of studies and trials, by entry; the needs of these entries are unknown."""

    def all(self) -> set[str]:
        """Digests that any study needs."""
        return set[str]().union(*self.digests.values())


def study_of(key: str) -> str:
    """Name of the study in an entry's key; it may contain dots."""
    return key.rpartition(".")[0]


def find_needs(store: Store, without: Collection[Key] = ()) -> Needs:
    """Digests that the studies of a store need.

    Args:
        without: entries of studies and trials to ignore.
    """
    needs, planned = Needs(), set[str]()
    for kind, trials_of in ((STUDIES, _planned_trials), (TRIALS, _recorded_trials)):
        keys = [
            key for key in store.digests(kind) if (kind, key) not in without and key not in planned
        ]
        for key, content in zip(keys, _read(store, kind, keys), strict=True):
            try:
                with decoding(f"{kind}/{key}"):
                    trials = trials_of(content)
                    needed = recipes(trials)
            except LthError as error:
                needs.unread[kind, key] = str(error)
                continue
            needs.digests[study_of(key)] |= needed
            planned |= {f"{study_of(key)}.{trial.digest}" for trial in trials}
    return needs


def entries_of(store: Store, study: str) -> list[Key]:
    """Keys of a study's entries, given its name, or its name and digest where it has several.

    Raises:
        SpecError: the store has no such study.
    """
    entries = [(STUDIES, key) for key in store.digests(STUDIES) if study in (key, study_of(key))]
    keys = store.digests(TRIALS)
    for key, content in zip(keys, _read(store, TRIALS, keys), strict=True):
        digest = "" if isinstance(content, LthError) else content.get("study_digest")
        if study in (study_of(key), f"{study_of(key)}.{digest}"):
            entries.append((TRIALS, key))
    if not entries:
        known = {study_of(key) for kind in (STUDIES, TRIALS) for key in store.digests(kind)}
        raise SpecError("--forget", "must be a study of the store", study, sorted(known))
    return entries


def recipes(trials: Iterable[Trial]) -> set[str]:
    """Digests of every training, rewind point, mask and measure that trials depend on."""
    digests, seen = set[str](), set[tuple[str, ModelSpec | None, DataSpec | None]]()
    for trial in trials:
        # Level by level: a digest computes its parents', and thousands at once exceed the stack.
        for level_recipe in _level_recipes(trial):
            todo: list[tuple[Recipe, Job | None]] = [(level_recipe, None)]
            while todo:
                recipe, job = todo.pop()
                job = recipe if isinstance(recipe, Job) else job
                # A mask that is made from no training is one recipe for all networks.
                key = recipe.digest, job.model if job else None, job.data if job else None
                if key not in seen:
                    seen.add(key)
                    digests.add(recipe.digest)
                    if job and isinstance(recipe, Pruned):
                        digests.add(latencies_of(recipe, job).digest)
                    todo += [(part, job) for part in recipe.parts]
    return digests


def _level_recipes(trial: Trial) -> Iterator[Recipe]:
    """Trainings and measures of a trial, level by level."""
    for branches in levels(trial.spec):
        yield from branches.values()
        for branch in branches:
            yield from measures(trial.spec, branch, branches)


def _planned_trials(content: dict[str, Any] | LthError) -> Iterable[Trial]:
    if isinstance(content, LthError):
        raise content
    if content["schema"] != SCHEMA:
        raise SpecError("schema", "is another version's", content["schema"], [str(SCHEMA)])
    check(content["study"], dict, "study")
    order = content.get("order", {})
    check(order, dict[str, list[str]], "order")
    for path, names in order.items():
        values = get_field(content["study"], path, "study")
        set_field(content["study"], path, {name: values[name] for name in [*names, *values]})
    # Older entries have no pins; a study needs pins only where it names the user's own code.
    pins = pins_from_json(content["pins"]) if "pins" in content else Pins()
    study = parse_study(content["study"])
    if study.search.algorithm == "optuna":  # no plan tells its samples, only their records do
        return ()
    return make_plan(study, pins).trials


def _recorded_trials(content: dict[str, Any] | LthError) -> Iterable[Trial]:
    if isinstance(content, LthError):
        raise content
    check(content["fields"], dict, "fields")
    check(content["spec"], dict, "spec")
    return [Trial(content["fields"], parse_stored_spec(content["spec"]))]


def _read(store: Store, kind: str, keys: list[str]) -> Iterator[dict[str, Any] | LthError]:
    """Content of each entry, or the error of reading it; several are read at a time."""

    def read(key: str) -> dict[str, Any] | LthError:
        try:
            entry = store.get(kind, key)
        except CorruptEntryError as error:
            return error
        return entry.meta if entry else CorruptEntryError(f"{kind}/{key}: is empty")

    yield from map_in_threads(read, keys)
