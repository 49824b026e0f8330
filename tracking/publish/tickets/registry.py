"""Tickets in MLflow's model registry: one version for each, with its provenance.

A version's model is a logged model with the ticket's files, of the run that found the ticket.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_core.errors import TrackingError
from lth_core.spec import sha256
from lth_core.ticket import load_ticket
from tracking.publish import names
from tracking.publish.client import check_address, connect
from tracking.publish.locations import correct_locations, database_file
from tracking.publish.runs import published_run
from tracking.publish.tickets.files import TICKET, ticket_files
from tracking.text import density_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from tracking.publish.publisher import Publisher

MODEL = "winning-tickets"
"""Registered model whose versions are the sparsest winning ticket of each cell."""
SPARSEST = "sparsest"
"""Alias of the sparsest version; with `-STUDY`, of the study's sparsest."""
STUDY, CELL, DENSITY, TICKET_DIGEST = "study", "cell", "density", "ticket_digest"
"""Tags of a version that identify it, and by which versions are compared."""
BY_HAND = "promoted"
"""Tag of a version that `lth ticket promote` registered."""
SUPERSEDED = "superseded"
"""Tag of a version that is no longer the sparsest winning ticket of its cell."""
DEFAULT_URI = "sqlite:///mlflow.db"

_DESCRIPTION = """Tickets: masks and the weights to start from.

```python
import sweeps
ticket = sweeps.load_ticket("models:/{name}/VERSION")  # or "models:/{name}@ALIAS"
```
"""
_ADDRESS = re.compile(r"models:/([^/@:]+)(?:@([\w-]+)|/(\d+))")
_PAGE = 1000
"""Number of versions in one answer of a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTicket:
    """A ticket of a trial, to be registered."""

    run_key: str
    """The trial's key in MLflow: its spec's digest."""
    level: int
    density: float
    """Share of the prunable weights kept, in (0, 1]."""
    digest: str
    """The ticket's digest."""
    study: str
    cell: Mapping[str, Any]
    """Axis values without the seed."""
    provenance: Mapping[str, Any]
    """More tags: seed, accuracy, verdict, digests."""

    @property
    def tags(self) -> dict[str, str]:
        """Tags of its version."""
        cell = " ".join(f"{axis}={value}" for axis, value in self.cell.items())
        tags = {
            STUDY: self.study, CELL: cell or "all", "level": self.level,
            DENSITY: f"{self.density:.6g}", **self.provenance, TICKET_DIGEST: self.digest,
        }  # fmt: skip
        return {key: str(value)[: names.LONGEST_TAG] for key, value in tags.items()}

    @property
    def identity(self) -> tuple[str, ...]:
        """Tags that distinguish its version from others."""
        return _identity(self.tags)


def register_winners(publisher: Publisher, study: str, winners: Sequence[FoundTicket]) -> None:
    """Make a study's versions in `MODEL` those of its winning tickets, and set the aliases.

    Versions of other tickets stay and are tagged as superseded, for their numbers may be in use.
    A ticket whose level is not published is left out. Registering equal tickets changes nothing.

    Raises:
        TrackingError: the server cannot be reached or refuses.
    """
    with connect(publisher.uri) as client:
        known = list(_versions(client, MODEL))
        if not winners and not known:
            return
        for winner in winners:
            if first := _first(known, winner):
                _update(client, first, winner)
            elif version := _register(client, publisher, MODEL, winner):
                known.append(version)
        current = {winner.identity for winner in winners}
        for version in known:
            if version.tags[STUDY] == study and BY_HAND not in version.tags:
                _mark(client, version, superseded=_identity(version.tags) not in current)
        _set_aliases(client, known)


def register_ticket(
    publisher: Publisher, ticket: FoundTicket, name: str = MODEL, alias: str | None = None
) -> str:
    """Register one ticket; returns its version.

    Args:
        name: the registered model, made where it is missing.
        alias: name by which the version can be loaded, beside its number.

    Raises:
        TrackingError: the ticket's level is not published; the server cannot be reached or refuses.
    """
    with connect(publisher.uri) as client:
        known = list(_versions(client, name))
        version = _first(known, ticket)
        if version is None:
            version = _register(client, publisher, name, ticket, {BY_HAND: "by hand"})
            known += [version] if version else []
        else:
            _update(client, version, ticket)
        if version is None:
            raise TrackingError(
                f"tracking.uri: {publisher.uri} lacks level {ticket.level} of the ticket's trial; "
                f"`lth sync {ticket.study}` publishes it"
            )
        if name == MODEL:
            _set_aliases(client, known)
        if alias:
            client.set_registered_model_alias(name, alias, version.version)
        return str(version.version)


def download_ticket(uri: str, folder: Path, tracking_uri: str | None = None) -> Path:
    """Download the ticket file of a registered version into a folder; returns the file.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        tracking_uri: address of the tracking server or ``sqlite:///FILE``; None: that of
            MLFLOW_TRACKING_URI, else mlflow.db in the current folder.

    Raises:
        TrackingError: the server cannot be reached, or has no such version.
    """
    tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    check_address(tracking_uri)
    if tracking_uri.startswith("sqlite:///"):
        database = database_file(tracking_uri)
        if not database.is_file():
            raise TrackingError(f"tracking.uri: {database} does not exist, so it has no {uri}")
        correct_locations(database)
        tracking_uri = f"sqlite:///{database}"
    name = _ADDRESS.fullmatch(uri)
    if name is None:
        raise TrackingError(f"{uri}: must be models:/NAME@ALIAS or models:/NAME/VERSION")
    with connect(tracking_uri) as client:
        from mlflow.artifacts import download_artifacts

        model, alias, number = name.groups()
        version = number or client.get_model_version_by_alias(model, alias).version
        source = client.get_model_version_download_uri(model, version)
        files = Path(download_artifacts(source, dst_path=str(folder), tracking_uri=tracking_uri))
    if not (files / TICKET).is_file():
        raise TrackingError(f"{uri}: is no ticket, for it holds no {TICKET}")
    return files / TICKET


def _register(
    client: MlflowClient, publisher: Publisher, name: str, ticket: FoundTicket,
    extra: Mapping[str, str] | None = None,
) -> ModelVersion | None:  # fmt: skip
    """A new version for a ticket; None where its level is not published."""
    files = _published_files(client, publisher, ticket)
    if files is None:
        return None
    run_id, contents = files
    _make_model(client, name)
    logged = client.create_logged_model(
        publisher.experiment, f"ticket-level-{ticket.level}", run_id, dict(ticket.tags),
        model_type="ticket",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lth-") as folder:
        for file, content in contents.items():
            (Path(folder) / file).write_bytes(content)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    # Not `models:/ID`, which MLflow resolves on the server of the process, not of this client.
    client.create_model_version(
        name, logged.artifact_location, run_id, {**ticket.tags, **(extra or {})},
        description=_summary(ticket), model_id=logged.model_id,
    )  # fmt: skip
    # Another publisher may have registered it at the same time: all keep the first version.
    first, *duplicates = [
        v for v in _versions(client, name) if _identity(v.tags) == ticket.identity
    ]
    for duplicate in duplicates:
        client.delete_model_version(name, duplicate.version)
    shown = json.dumps([{"name": name, "version": int(first.version)}])
    client.set_logged_model_tags(logged.model_id, {names.MODEL_VERSIONS: shown})
    return first


def _update(client: MlflowClient, version: ModelVersion, ticket: FoundTicket) -> None:
    """Correct the tags of a version whose ticket was trained again, with another accuracy."""
    changed = ticket.tags.items() - version.tags.items()
    for key, value in changed:
        client.set_model_version_tag(version.name, version.version, key, value)
    if changed:
        client.update_model_version(version.name, version.version, _summary(ticket))


def _published_files(
    client: MlflowClient, publisher: Publisher, ticket: FoundTicket
) -> tuple[str, dict[str, bytes]] | None:
    """Id of the ticket's run, and its files; None where its level is not published."""
    query = f"tags.`{names.KEY}` = '{ticket.run_key}'"
    for run in client.search_runs([publisher.experiment], query):
        if published_run(run).levels > ticket.level:
            folder = names.level_folder(ticket.level)
            with tempfile.TemporaryDirectory(prefix="lth-") as here:
                path = client.download_artifacts(run.info.run_id, f"{folder}/{TICKET}", here)
                loaded = load_ticket(path)
            if loaded.digest == ticket.digest:
                return run.info.run_id, ticket_files(loaded)
    return None


def _make_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_DESCRIPTION.format(name=name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    """A registered model's versions of tickets, the first made first; none without the model."""
    token, versions = None, list[Any]()
    while token != "":
        page = client.search_model_versions(f"name='{name}'", _PAGE, page_token=token)
        versions += page
        token = page.token or ""
    known = (v for v in versions if v.tags.keys() >= {STUDY, CELL} and _density(v) is not None)
    yield from sorted(known, key=lambda version: int(version.version))


def _density(version: ModelVersion) -> float | None:
    """A version's density; None where a user has removed or changed its tag."""
    found = re.fullmatch(r"\d+(\.\d+)?(e-\d+)?", version.tags.get(DENSITY, ""))
    return float(found[0]) if found else None


def _first(versions: Sequence[ModelVersion], ticket: FoundTicket) -> ModelVersion | None:
    return next((v for v in versions if _identity(v.tags) == ticket.identity), None)


def _identity(tags: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(tags.get(name, "") for name in (STUDY, CELL, TICKET_DIGEST))


def _mark(client: MlflowClient, version: ModelVersion, *, superseded: bool) -> None:
    """Set or delete the tag of a superseded version, where it is not as it should be."""
    if superseded and SUPERSEDED not in version.tags:
        client.set_model_version_tag(version.name, version.version, SUPERSEDED, "yes")
        version.tags[SUPERSEDED] = "yes"
    elif not superseded and SUPERSEDED in version.tags:
        client.delete_model_version_tag(version.name, version.version, SUPERSEDED)
        del version.tags[SUPERSEDED]


def _set_aliases(client: MlflowClient, versions: Sequence[ModelVersion]) -> None:
    """Set the aliases of the sparsest version over all studies, and of each study's."""
    current = [v for v in versions if SUPERSEDED not in v.tags]
    wanted = dict[str, str]()
    for version in sorted(current, key=lambda v: (_density(v), int(v.version))):
        for alias in (SPARSEST, _study_alias(version.tags[STUDY])):
            wanted.setdefault(alias, str(version.version))
    aliases = client.get_registered_model(MODEL).aliases if versions else {}
    known = {alias: str(version) for alias, version in aliases.items()}
    for alias, number in wanted.items():
        if known.get(alias) != number:
            client.set_registered_model_alias(MODEL, alias, number)
    ours = {SPARSEST, *(_study_alias(v.tags[STUDY]) for v in versions)}
    for alias in (ours & known.keys()) - wanted.keys():
        client.delete_registered_model_alias(MODEL, alias)


def _study_alias(study: str) -> str:
    """Alias of a study's sparsest version, in the characters that MLflow accepts; another name's
    is another."""
    name = re.sub("[^A-Za-z0-9_-]", "-", study)
    return f"{SPARSEST}-{name}" if name == study else f"{SPARSEST}-{name}-{sha256(study)[:6]}"


def _summary(ticket: FoundTicket) -> str:
    """Description of a version."""
    values = ", ".join(f"{key} {value}" for key, value in ticket.provenance.items()
                       if not key.endswith("digest"))  # fmt: skip
    cell = f" ({ticket.tags[CELL]})" if ticket.cell else ""
    return f"{density_text(ticket.density)} of the weights, {ticket.study}{cell}: {values}"
