"""Lists of the tickets in a store: their records with verdicts, filtered and sorted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lth_core.analysis.verdict import WORDS
from lth_core.columns import COLUMNS, Record
from lth_core.errors import SpecError
from lth_core.resolve import Pins
from lth_core.store import MANIFEST, Entry, Store, existing_store
from lth_core.store.decode import read_entry
from sweeps.plan.recorded import every_trial, ticket_records
from sweeps.store.records import STUDIES, with_verdicts
from sweeps.studies.axes import axis_fields
from sweeps.studies.pins import pins_from_json
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study
from tracking.publish.names import CURRENT, EARLIER, SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketFilter:
    """Conditions on listed tickets; None and empty ones are met by all.

    density: `LOW..HIGH`, shares of the prunable weights in [0, 1]; either end may be missing.
    sort: name of a column; with `-` before it, the largest value first.
    """

    study: str | None = None
    branch: str | None = None
    level: int | None = None
    density: str | None = None
    verdict: str | None = None
    sort: str | None = None

    def choose(self, rows: Sequence[Record]) -> list[Record]:
        """The rows that meet the conditions, sorted.

        Raises:
            SpecError: no row has a value, or there is no such column.
        """
        chosen = list(rows)
        for name in ("study", "branch", "level", "verdict"):
            if (value := getattr(self, name)) is not None:
                known = dict.fromkeys(str(row[name]) for row in rows if row[name] is not None)
                known |= dict.fromkeys(WORDS if name == "verdict" else ())
                if rows and str(value) not in known:
                    raise SpecError(f"--{name}", "must be that of a ticket", value, known)
                chosen = [row for row in chosen if row[name] == value]
        if self.density is not None:
            low, high = _range(self.density)
            chosen = [row for row in chosen if low <= row["density"] <= high]
        return _sorted(chosen, self.sort, rows) if self.sort else chosen


def list_tickets(store: str, chosen: TicketFilter | None = None) -> list[Record]:
    """Records of the tickets in the store, with the verdict on their level: one for each training
    that started from a ticket, in each study. `settings` says whether they are those with which the
    study was swept last, as the tag of runs in MLflow does.

    Raises:
        SpecError: there is no such store, or a condition is wrong.
    """
    opened = existing_store(store, "--store")
    trials, last = list(every_trial(opened)), _last_digests(opened)

    def settings(trial: Mapping[str, Any]) -> str:
        digest = trial["study_digest"]
        return CURRENT if last.get(trial["study"], digest) == digest else EARLIER

    words = _verdicts(opened, trials)
    trials.sort(key=settings)  # a ticket that both settings share is of the current ones
    rows = [
        {**record, "verdict": words.get(_place(record)), SETTINGS: settings(trial)}
        for trial, record in ticket_records(trials)
    ]
    rows.sort(key=lambda row: (row["study"], row["seed"]))
    return chosen.choose(rows) if chosen else rows


def _last_digests(store: Store) -> dict[str, str]:
    """Digest of each study as it was last swept, by the time of its description, by name."""
    latest: dict[str, tuple[float, str]] = {}
    for file in store.files.files(STUDIES):
        key = file.path.split("/")[1]
        name, _, digest = key.rpartition(".")
        if file.path == f"{STUDIES}/{key}/{MANIFEST}":
            latest[name] = max(latest.get(name, (0.0, "")), (file.modified, digest))
    return {name: digest for name, (_, digest) in latest.items()}


def _verdicts(
    store: Store, trials: Iterable[Mapping[str, Any]]
) -> dict[tuple[Any, ...], str | None]:
    """Verdicts on the records of the studies in the store, by study, trial, level and branch.

    Those of a study whose code or data have changed since are judged apart.
    """
    records: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    known = dict[tuple[str, str], set[str]]()
    for trial in trials:
        swept = trial["study"], trial["study_digest"]
        if swept not in known:
            known[swept] = _fingerprints(store, *swept)
        # A study is the same one after its code or data have changed; its trials are others.
        other = [pin for pin in _own_code(trial["spec"]) if pin not in known[swept]]
        records[*swept, *other] += [
            {**row, **trial["fields"], "seed": row["seed"]} for row in trial["records"]
        ]
    words = dict[tuple[Any, ...], str | None]()
    for (name, digest, *_), rows in records.items():
        study = read_entry(store, STUDIES, f"{name}.{digest}", _study)
        if study:
            judged, _ = with_verdicts(rows, axis_fields(study), study.verdict.rule())
            words |= {_place(row): row["verdict"] for row in judged}
    return words


def _own_code(spec: Mapping[str, Any]) -> Iterator[str]:
    """Fingerprints of a user's own data, network and score in a trial's spec."""
    for part, name in (("data", "name"), ("model", "name"), ("prune", "score")):
        if ":" in spec[part].get(name, ""):
            yield spec[part].get("fingerprint", "")


def _fingerprints(store: Store, name: str, digest: str) -> set[str]:
    """Fingerprints of the code and data with which a study was swept last."""
    pins = read_entry(store, STUDIES, f"{name}.{digest}", _pins) or Pins()
    return {*pins.sources.values(), *(pin.fingerprint for pin in pins.data.values())}


def _pins(entry: Entry) -> Pins:
    return pins_from_json(entry.meta["pins"])


def _study(entry: Entry) -> Study:
    return parse_study(entry.meta["study"])


def _place(record: Record) -> tuple[Any, ...]:
    return record["study"], record["trial"], record["level"], record["branch"]


def _range(text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        ends = float(low or 0), float(high or 1)
    except ValueError:
        ends = 1.0, 0.0
    if not dots or not 0 <= ends[0] <= ends[1] <= 1:
        raise SpecError("--density", "must be LOW..HIGH, in [0, 1]", text, ["0.1..0.3", "..0.2"])
    return ends


def _sorted(chosen: list[Record], sort: str, rows: Sequence[Record]) -> list[Record]:
    """Rows sorted by a column; those without a value come last."""
    name = sort.removeprefix("-")
    known = [each for each in COLUMNS if any(each in row for row in rows)]
    if rows and name not in known:
        raise SpecError("--sort", "is not a column of the tickets", name, known)
    with_value = [row for row in chosen if row.get(name) is not None]
    if any(isinstance(row[name], dict | list) for row in with_value):
        raise SpecError("--sort", "must be a column of single values", name)
    with_value.sort(key=lambda row: row[name], reverse=sort != name)
    return with_value + [row for row in chosen if row.get(name) is None]
