"""Registration of one ticket by hand: `lth ticket promote`."""

from __future__ import annotations

import re

from lth_core.errors import SpecError
from sweeps.report.study_results import study_results
from sweeps.report.sync import open_study_publisher
from sweeps.report.winners import found_ticket
from sweeps.store.swept import swept_plan
from sweeps.store.tickets import find_records
from sweeps.studies.find import find_study
from sweeps.studies.names import last_swept
from tracking.publish.tickets.registry import MODEL, register_ticket

ALIAS = re.compile(r"(?!(?i:latest|v\d+)$|sparsest)[\w-]{1,255}", re.ASCII)
"""Aliases that MLflow accepts and that reports do not set themselves."""


def promote(store: str, digest: str, name: str = MODEL, alias: str | None = None) -> str:
    """Register a ticket of the store in its study's MLflow; returns its address, ``models:/...``.

    Args:
        digest: the ticket's digest, or its start.
        name: registered model, made where it is missing.
        alias: name of the version, beside its number.

    Raises:
        SpecError: no ticket, or more than one, has the digest; it is a control's; its study is not
            known in this folder; a ticket that is not winning shall be in `MODEL`; the alias is
            not valid.
        TrackingError: the study has no tracking server, or it cannot be reached or lacks the level.
    """
    if alias is not None and not ALIAS.fullmatch(alias):
        rule = "must be letters, digits, '_' or '-', and not latest, vNUMBER or sparsest..."
        raise SpecError("--alias", rule, alias)
    trial, record = find_records(store, digest)[0]
    if record["branch"] != "ticket":
        rule = "must be of the branch ticket, for MLflow has the files of no other"
        raise SpecError("DIGEST", rule, f"{digest}: {record['branch']}")
    if last_swept(trial["study"]) is None:
        rule = "must be of a study that was swept from this folder, which knows its MLflow"
        raise SpecError("DIGEST", rule, f"{digest}: {trial['study']}")
    study = find_study(trial["study"], swept=True)
    plan = swept_plan(study)
    results = study_results(plan)
    judged = {row["ticket_digest"]: row for row in results.records if row["branch"] == "ticket"}
    row = judged.get(record["ticket_digest"], record)  # the study may have lost the trial since
    if name == MODEL and row.get("verdict") != "winning":
        rule = f"must be a winning ticket for {MODEL}; name another model with --model"
        raise SpecError("DIGEST", rule, f"{digest}: {row.get('verdict')}")
    ticket = found_ticket(study.name, row, results.axes)
    version = register_ticket(open_study_publisher(plan), ticket, name, alias)
    return f"models:/{name}/{version}"
