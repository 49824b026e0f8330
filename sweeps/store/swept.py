"""A swept study as it is read: with the code and data that it was swept with."""

from __future__ import annotations

from lth_core.store import open_store
from sweeps.plan.plan import Plan, make_plan
from sweeps.store.records import swept_pins
from sweeps.studies.schema import Study


def swept_plan(study: Study) -> Plan:
    """The plan of a study whose results are read; code and data may have changed since its sweep.

    Raises:
        SpecError, DataError: the store does not have the study, and its code or data are missing.
    """
    return make_plan(study, swept_pins(open_store(study.store, make=False), study), swept=True)
