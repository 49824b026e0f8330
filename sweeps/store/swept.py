"""A swept study as it is read: with the code and data that it was swept with."""

from __future__ import annotations

from lth_core.resolve import Pins
from lth_core.store import Entry, open_store
from lth_core.store.decode import read_entry
from sweeps.plan.plan import Plan, make_plan
from sweeps.store.records import STUDIES
from sweeps.studies.pins import pins_from_json
from sweeps.studies.schema import Study


def swept_plan(study: Study) -> Plan:
    """The plan of a study whose results are read; code and data may have changed since its sweep.

    Raises:
        SpecError, DataError: the store does not have the study, and its code or data are missing.
    """
    return make_plan(study, swept_pins(study), swept=True)


def swept_pins(study: Study) -> Pins | None:
    """Pins of a study as it was last swept; None where its store does not have them."""
    store = open_store(study.store, make=False)
    return read_entry(store, STUDIES, f"{study.name}.{study.digest()}", _pins_of)


def _pins_of(entry: Entry) -> Pins | None:
    return pins_from_json(entry.meta["pins"]) if "pins" in entry.meta else None
