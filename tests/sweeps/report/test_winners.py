"""Which tickets are registered: the sparsest winning one of each cell, of its first seed."""

from dataclasses import replace

import hand_made
import pytest

from lth_core.analysis.verdict import verdicts
from lth_core.errors import SpecError
from sweeps.report.promotion import ALIAS, promote
from sweeps.report.study_results import StudyResults
from sweeps.report.winners import winning_tickets


def results_of(*words: str) -> StudyResults:
    """Two cells of two levels, with these verdicts."""
    records = [
        {**row, "spec_digest": f"spec-{rewind}-{row['seed']}",
         "ticket_digest": f"{rewind}-{row['level']}-{row['seed']}-{row['branch']}"}
        for rewind in (0, 5)
        for row in reversed(hand_made.study(rewind=rewind))
    ]  # fmt: skip
    axes = ["rewind", "seed"]
    judged = [
        replace(v, verdict=word) for v, word in zip(verdicts(records, axes), words, strict=True)
    ]
    return StudyResults(
        records=records, axes=axes, verdicts=judged, trials=6, missing=[], samples=""
    )


def digests(*words: str) -> list[str]:
    return [ticket.digest for ticket in winning_tickets("a-study", results_of(*words))]


def test_the_sparsest_winning_ticket_of_each_cell_is_found() -> None:
    assert digests("winning", "winning", "winning", "matching") == ["0-2-0-ticket", "5-1-0-ticket"]
    assert digests("matching", "undecided", "matching", "winning") == ["5-2-0-ticket"]
    assert digests("matching", "matching", "not matching", "too few replicates") == []


def test_ticket_that_two_settings_share_is_registered_once() -> None:
    """Such as a sampled number of levels, which does not change the first ones."""
    results = results_of("winning", "matching", "winning", "matching")
    for record in results.records:
        record["ticket_digest"] = f"shared-{record['level']}-{record['seed']}"
    (ticket,) = winning_tickets("a-study", results)
    assert (ticket.digest, ticket.cell) == ("shared-1-0", {"rewind": 0})


def test_its_provenance_is_of_its_own_seed() -> None:
    ticket, _ = winning_tickets("a-study", results_of("winning", "matching", "winning", "matching"))
    assert (ticket.run_key, ticket.level, ticket.density) == ("spec-0-0", 1, 0.5)
    assert ticket.tags["cell"] == "rewind=0"
    assert ticket.tags["seed"] == "0"
    assert ticket.tags["test_accuracy"] == f"{hand_made.TICKET[1][0]:.4f}"


@pytest.mark.parametrize(
    "alias", ["latest", "V12", "sparsest", "sparsest-a", "a b", "a.b", "", "a/b"]
)
def test_an_alias_that_mlflow_or_reports_own_is_refused_before_anything_is_read(alias: str) -> None:
    with pytest.raises(SpecError, match="--alias: must be letters"):
        promote("no-store", "0123456789", alias=alias)


def test_other_aliases_are_accepted() -> None:
    assert all(map(ALIAS.fullmatch, ("mine", "v2-best", "latest_one", "my-sparsest")))
