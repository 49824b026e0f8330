"""Tickets in the registry: loaded by alias, registered once, and whole after a copy of their folder."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets, load_ticket
from lth_core.errors import TrackingError
from lth_core.results import LevelResult
from tracking.publish.cell_run import CellRun
from tracking.publish.locations import artifact_folder, database_file
from tracking.publish.publisher import Publisher, TrialRun, open_publisher
from tracking.publish.tickets.registry import (
    MODEL,
    SUPERSEDED,
    FoundTicket,
    _study_alias,
    download_ticket,
    register_ticket,
    register_winners,
)

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    spec = TicketSpec(
        data=DataSpec(fraction=0.1), model=ModelSpec(widths=(4,)), levels=2,
        train=TrainSpec(steps=2, evaluate_every=2), branches=("ticket",),
    )  # fmt: skip
    return list(find_tickets(spec))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/mlflow.db"


@pytest.fixture(params=["database", pytest.param("server", marks=pytest.mark.long)])
def publisher(
    request: pytest.FixtureRequest, tmp_path: Path, levels: list[LevelResult]
) -> Publisher:
    """A study of its own, its dense run and first level published."""
    publisher = open_publisher(request.getfixturevalue(request.param), tmp_path.name, "about it")
    publish(publisher, levels[:2])
    return publisher


def publish(publisher: Publisher, levels: Sequence[LevelResult]) -> None:
    for level in levels:
        spec = level.spec
        cell = CellRun(key="a-cell", name="a-cell", fields={}, spec=spec)
        run = TrialRun(key=spec.digest(), name="a-trial", fields={}, spec=spec, cell=cell)
        publisher.publish(run, level, level.records)


def found(level: LevelResult, study: str) -> FoundTicket:
    return FoundTicket(
        run_key=level.spec.digest(), level=level.level, density=level.ticket.density,
        digest=level.ticket.digest, study=study, cell={"rewind": 0}, provenance={"seed": 0},
    )  # fmt: skip


def registered(publisher: Publisher) -> dict[str, Any]:
    """Tags of the versions of each level, aliases, and number of logged models."""
    from mlflow import MlflowClient

    client = MlflowClient(publisher.uri)
    study = publisher_study(publisher)
    versions = client.search_model_versions(f"name='{MODEL}' and tags.study='{study}'")
    aliases = client.get_registered_model(MODEL).aliases
    level_of = {str(version.version): version.tags["level"] for version in versions}
    return {
        "versions": {version.tags["level"]: version.tags for version in versions},
        "count": len(versions),
        "models": len(client.search_logged_models([publisher.experiment])),
        "sparsest": level_of.get(str(aliases.get(f"sparsest-{study}"))),
    }


def add_foreign_version(publisher: Publisher) -> None:
    """A version in the model that is none of ours, with a density that is no number."""
    from mlflow import MlflowClient

    tags = {"study": "theirs", "cell": "all", "density": "half"}
    MlflowClient(publisher.uri).create_model_version(MODEL, "s3://bucket/theirs", tags=tags)


def publisher_study(publisher: Publisher) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient(publisher.uri).get_experiment(publisher.experiment).name)


def test_a_ticket_is_registered_once_and_loaded_by_its_alias(
    publisher: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    ticket = found(levels[1], tmp_path.name)
    register_winners(publisher, tmp_path.name, [ticket])
    once = registered(publisher)
    assert (once["count"], once["models"], once["sparsest"]) == (1, 1, "1")
    register_winners(publisher, tmp_path.name, [ticket])
    assert registered(publisher) == once
    again = replace(ticket, provenance={"seed": 0, "test_accuracy": "0.9"})
    register_winners(publisher, tmp_path.name, [again])
    (tags,) = registered(publisher)["versions"].values()
    assert tags["test_accuracy"] == "0.9"
    add_foreign_version(publisher)
    register_winners(publisher, tmp_path.name, [ticket])
    loaded = download_ticket(f"models:/{MODEL}@sparsest-{tmp_path.name}", tmp_path, publisher.uri)
    assert load_ticket(loaded).digest == levels[1].ticket.digest
    assert {file.name for file in loaded.parent.iterdir()} >= {"README.md", "ticket.png"}
    with pytest.raises(TrackingError, match="no-such"):
        download_ticket(f"models:/{MODEL}@no-such", tmp_path, publisher.uri)


@pytest.mark.parametrize("publisher", ["database"], indirect=True)
def test_a_sparser_winner_supersedes_and_its_return_is_no_new_version(
    publisher: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    study = tmp_path.name
    one, two = found(levels[1], study), found(levels[2], study)
    register_winners(publisher, study, [two])
    publish(publisher, levels[2:])
    for winners, superseded, sparsest in (([one], set(), "1"), ([two], {"1"}, "2"),
                                          ([one], {"2"}, "1"), ([], {"1", "2"}, None)):  # fmt: skip
        register_winners(publisher, study, winners)
        seen = registered(publisher)
        tags = seen["versions"]
        assert {level for level in tags if SUPERSEDED in tags[level]} == superseded
        assert seen["sparsest"] == sparsest
    assert seen["count"] == 2


@pytest.mark.parametrize("publisher", ["database"], indirect=True)
def test_a_ticket_registered_by_hand_stays_and_needs_its_level_in_mlflow(
    publisher: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    ticket = found(levels[1], tmp_path.name)
    version = register_ticket(publisher, ticket, alias="mine")
    assert register_ticket(publisher, ticket) == version
    register_winners(publisher, tmp_path.name, [])
    assert SUPERSEDED not in registered(publisher)["versions"]["1"]  # type: ignore[index]
    loaded = download_ticket(f"models:/{MODEL}@mine", tmp_path, publisher.uri)
    assert load_ticket(loaded).digest == ticket.digest
    with pytest.raises(TrackingError, match=r"lacks level 2 .*`lth sync"):
        register_ticket(publisher, found(levels[2], tmp_path.name))
    other = replace(ticket, digest="0" * 64)
    with pytest.raises(TrackingError, match="lacks level 1"):
        register_ticket(publisher, other)


@pytest.mark.parametrize("publisher", ["database"], indirect=True)
def test_a_copied_and_moved_folder_is_whole_and_leaves_the_original_alone(
    publisher: Publisher, levels: list[LevelResult], tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service import utils

    study = tmp_path.name
    register_winners(publisher, study, [found(levels[1], study)])
    original = database_file(publisher.uri).parent
    before = contents(original)
    shutil.copytree(original, tmp_path / "copy")
    utils._artifact_repos_cache.clear()  # a process uses one of the two folders
    copied = open_publisher(f"sqlite:///{tmp_path}/copy/mlflow.db", study, "about it")
    assert copied.experiment == publisher.experiment
    publish(copied, levels)
    register_winners(copied, study, [found(levels[2], study)])
    (tmp_path / "copy").rename(tmp_path / "moved")
    utils._artifact_repos_cache.clear()
    moved = f"sqlite:///{tmp_path}/moved/mlflow.db"
    for level, version in ((2, "@sparsest-" + study), (1, "/1")):
        loaded = download_ticket(f"models:/{MODEL}{version}", tmp_path / "down", moved)
        assert load_ticket(loaded).level == level
    (run,) = MlflowClient(moved).search_runs([copied.experiment], "tags.`lth.spec_digest` != ''")
    shown = {file.path for file in MlflowClient(moved).list_artifacts(run.info.run_id)}
    assert shown >= {"level_00", "level_01", "level_02"}
    new = artifact_folder(database_file(moved), study)
    assert (new / run.info.run_id / "artifacts" / "level_02" / "ticket.safetensors").is_file()
    assert contents(original) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_database_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="does not exist"):
        download_ticket("models:/a@b", tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


def test_aliases_of_two_studies_differ() -> None:
    assert _study_alias("a-b") == "sparsest-a-b"
    assert len({_study_alias(name) for name in ("a-b", "a.b", "a_b")}) == 3
