"""Provenance of a study's report: when, where, with what and from which data it was trained."""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import yaml

from lth_core.analysis.cells import evenly_spaced, value_text
from lth_core.columns import Record
from lth_core.data import content_sha256, part_sizes
from lth_core.errors import LthError
from lth_core.models.latency import device_name
from lth_core.parallel import map_in_threads
from lth_core.redaction import without_secrets
from lth_core.spec import DataSpec
from lth_core.spec.fields import Checks
from lth_core.spec.settings import ALWAYS, ALWAYS_OF_SPEC, setting_text, settings
from lth_core.store import Store, existing_store
from lth_core.store.decode import read_entry
from lth_core.train.training import Training
from sweeps.plan.estimate import duration
from sweeps.plan.plan import Plan
from sweeps.report.study_results import StudyResults, varied_values
from sweeps.store.records import swept_rules
from sweeps.studies.schema import Study
from tracking.publish.made_with import git_commit, versions
from tracking.report.html import Provenance
from tracking.text import rule_text

MOST_READ = 500
"""Number of trainings that are read for dates and versions; of more, evenly spaced ones are."""
MOST_VALUES = 8
"""Largest number of an axis's values that are listed."""
SHORT = 16
"""Number of shown characters of a digest."""


class _Made(NamedTuple):
    """When and with what a training was made."""

    finished_at: float
    """Unix time."""
    made_with: dict[str, str]


def provenance(plan: Plan, results: StudyResults) -> Provenance:
    """Provenance of a study's results, from the store, the plan and this machine."""
    study, records = plan.study, results.records
    made = _made(existing_store(study.store), records)
    uri = study.tracking.uri or ""
    return Provenance(
        facts={
            **_trained_facts(made, records),
            "trainings": f"{_planned_text(plan)} planned; {trainings_text(records)}",
            "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
            "data": "; ".join(map(data_text, dict.fromkeys(t.spec.data for t in plan.trials))),
            **({"varied": varied} if (varied := _varied_text(plan, results)) else {}),
            **{part: settings_text(getattr(study.base, part), names, _fields_of(part, plan.axes))
               for part, names in ALWAYS.items() if part != "data"},
            "search": settings_text(study.base, ALWAYS_OF_SPEC, plan.axes),
            **({"commit": commit} if (commit := git_commit()) else {}),
            **({"verdict rule": changed} if (changed := changed_rules(study)) else {}),
            "report made with": _report_text(),
            "store": study.store,
            **({"tracking": uri} if uri and not uri.startswith("http") else {}),
        },
        links={"tracking": uri} if uri.startswith("http") else {},
        commands=_commands(study),
        spec=yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False),
    )  # fmt: skip


def _planned_text(plan: Plan) -> str:
    """`99`, `at most 99`, `about 99`: number of planned trainings."""
    return f"{plan.certainty} {plan.counts.unique_trainings}".removeprefix("exactly ")


def changed_rules(study: Study) -> str:
    """Rules of verdicts of earlier sweeps of the study's name, where they differ; else empty."""
    _, *earlier = swept_rules(existing_store(study.store), study)
    texts = [rule_text(rule) + ", not adjusted" * (rule.for_all == "none") for rule in earlier]
    return f"an earlier sweep had {'; '.join(texts)}" if texts else ""


def trainings_text(records: Sequence[Record]) -> str:
    """Number of records whose training the last sweep ran, of all, and the number from the store.

    >>> trainings_text([{"reused": False}, {"reused": True}, {"reused": True}])
    '3 records, 1 trained in the last sweep, 2 from the store'
    """
    reused = sum(record["reused"] for record in records)
    trained = f"{len(records) - reused} trained in the last sweep"
    return f"{len(records)} records, {trained}, {reused} from the store"


def data_text(spec: DataSpec) -> str:
    """Name, sizes and digest of a dataset; the name alone where its files are missing here.

    >>> data_text(DataSpec(name="digits"))
    'digits: 1,213 training, 135 validation, 449 test examples, sha256 de14278e73526c3b'
    """
    other = settings_text(spec).removeprefix(f"name {spec.name}").removeprefix(", ")
    try:
        sizes = part_sizes(spec)
        counts = [f"{n:,} {part}" for part, n in sizes._asdict().items() if n]
        text = f"{spec.name}: {', '.join(counts).replace('train', 'training')} examples"
        text += f", sha256 {(spec.fingerprint or content_sha256(spec))[:SHORT]}"
    except LthError:
        text = spec.name
    return f"{text} ({other})" if other else text


def settings_text(spec: Checks, always: Sequence[str] = (), varied: Collection[str] = ()) -> str:
    """Fields of a spec that decide the result and differ from their defaults, as `name value`.

    >>> from lth_core.spec import DataSpec
    >>> settings_text(DataSpec(validation=0, root="elsewhere"), always=["name"])
    'name digits, validation 0'

    Args:
        always: names of fields that are given with their defaults too.
        varied: names of fields that are left out.
    """
    given = settings(spec, always).items()
    return ", ".join(f"{name} {setting_text(value)}" for name, value in given if name not in varied)


def _fields_of(part: str, axes: Sequence[str]) -> set[str]:
    """Fields of a part of the spec that axes set."""
    return {axis.removeprefix(f"{part}.") for axis in axes if axis.startswith(f"{part}.")}


def _varied_text(plan: Plan, results: StudyResults) -> str:
    """`prune.fraction 0.2 or 0.5; levels 10 or 4`: values of the axes but the seed."""
    words = list[str]()
    for axis in plan.axes:
        values = varied_values(plan, results, axis)
        if axis != "seed" and len(values) <= MOST_VALUES:
            words.append(f"{axis} {' or '.join(map(value_text, values))}")
        elif axis != "seed":
            words.append(f"{axis} {len(values)} values")
    return "; ".join(words)


def _made(store: Store, records: Sequence[Record]) -> list[_Made]:
    """When and with what the stored trainings of the records were made, of at most `MOST_READ`."""
    digests = list(dict.fromkeys(record["training_digest"] for record in records))
    read = partial(read_entry, store, "trainings", read=lambda entry: _made_of(entry.meta))
    return [made for made in map_in_threads(read, evenly_spaced(digests, MOST_READ)) if made]


def _made_of(meta: dict[str, object]) -> _Made:
    training = Training.from_json(meta)
    return _Made(training.finished_at, training.made_with)


def _trained_facts(made: Sequence[_Made], records: Sequence[Record]) -> dict[str, str]:
    """Dates, durations, machines and versions of the trainings."""
    if not made:
        return {}
    ends = [each.finished_at for each in made]
    seconds = {record["training_digest"]: record["train_seconds"] for record in records}
    about = "about " * (len(seconds) > len(made))
    facts = {
        "trained": about + _dates_text(min(ends), max(ends)),
        "duration": f"{duration(sum(seconds.values()))} of training, summed over "
        f"{len(seconds):,} trainings",
    }
    names = dict.fromkeys(name for each in made for name in each.made_with)
    with_what = {name: _joined(each.made_with.get(name, "") for each in made) for name in names}
    parts = [name for name in names if name in ("device", "threads")]
    machine = {name: with_what.pop(name) for name in parts}
    return {**facts, "machine": _pairs(machine), "trained with": _pairs(with_what)}


def _report_text() -> str:
    """Versions and processor of this process, which may not be those of the trainings."""
    import torch

    packages = {name: value for name, value in versions().items() if name != "device"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return f"{_pairs(packages)}, on {device_name(device)}"


def _dates_text(first: float, last: float) -> str:
    """`2026-11-29 20:08 to 20:13 UTC`."""
    start, end = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(each)) for each in (first, last))
    if start == end:
        return f"{start} UTC"
    return f"{start} to {end[11:] if start[:10] == end[:10] else end} UTC"


def _joined(values: Iterable[str]) -> str:
    return " or ".join(value for value in dict.fromkeys(values) if value)


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _commands(study: Study) -> dict[str, str]:
    """Commands that run the study again, and export and show its results."""
    name = shlex.quote(study.name)
    commands = {
        "run it again": without_secrets(study.command()),
        "export to CSV": f"lth report {name} --csv {name}.csv",
        "export to Parquet": f"lth report {name} --parquet {name}.parquet",
    }
    return commands | ({"open in MLflow": f"lth ui {name}"} if study.tracking.uri else {})
