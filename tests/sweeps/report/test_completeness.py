"""Which trials lack records, from planned trials and records made by hand."""

from typing import Any

import pytest
from tiny import StudyOf

from sweeps.plan.plan import Trial, make_plan
from sweeps.report.completeness import (
    MOST_NAMED,
    MissingWork,
    incomplete_text,
    missing_work,
    planned_replicates,
    with_replicates,
)
from sweeps.studies.schema import Stop, Study

Record = dict[str, Any]
MARGIN = 0.005


@pytest.fixture
def study(tiny: StudyOf) -> Study:
    return tiny({"axes.seed": [0, 1, 2]})


def records_of(trial: Trial, levels: int, ticket: float = 0.9) -> list[Record]:
    """Records of a trial's first levels, whose dense run reaches 0.9."""
    return [
        {"spec_digest": trial.digest, "level": level, "branch": branch,
         "final_test_accuracy": 0.9 if branch == "dense" else ticket}
        for level in range(levels)
        for branch in (("ticket", "reinit") if level else ("dense",))
    ]  # fmt: skip


def test_nothing_is_missing_where_every_trial_has_every_level(study: Study) -> None:
    trials = make_plan(study).trials
    records = [row for trial in trials for row in records_of(trial, 3)]
    assert missing_work(trials, records, Stop(), MARGIN) == []


def test_trials_without_records_and_with_fewer_levels_are_missing_in_their_order(
    study: Study,
) -> None:
    whole, cut, lost = make_plan(study).trials
    records = records_of(cut, 2) + records_of(whole, 3)
    assert missing_work([lost, whole, cut], records, Stop(), MARGIN) == [
        MissingWork(lost.id, 0, 3), MissingWork(cut.id, 2, 3),
    ]  # fmt: skip


def test_records_of_other_trials_count_for_none(study: Study) -> None:
    trial, other, _ = make_plan(study).trials
    (missing,) = missing_work([trial], records_of(other, 3), Stop(), MARGIN)
    assert missing.levels == 0


def test_trial_that_the_stop_rule_ended_is_complete(study: Study) -> None:
    trial, *_ = make_plan(study).trials
    stop = Stop(below_matching_for=1)
    assert missing_work([trial], records_of(trial, 2, ticket=0.8), stop, MARGIN) == []
    assert missing_work([trial], records_of(trial, 2, ticket=0.8), stop, 0.2)
    assert missing_work([trial], records_of(trial, 2, ticket=0.8), Stop(), MARGIN)


def test_trial_whose_dense_run_is_lost_was_not_ended_by_the_stop_rule(study: Study) -> None:
    trial, *_ = make_plan(study).trials
    rows = [row for row in records_of(trial, 3, ticket=0.8) if row["branch"] != "dense"]
    (missing,) = missing_work([trial], rows, Stop(below_matching_for=1), MARGIN)
    assert missing == MissingWork(trial.id, 2, 3)


def test_replicates_are_counted_by_cell_level_and_branch_and_planned_ones_by_cell(
    tiny: StudyOf,
) -> None:
    study = tiny({"axes.seed": [0, 1, 2], "axes.train.lr": [0.1, 0.2]})
    trials = make_plan(study).trials
    planned = planned_replicates(trials, trials)
    assert planned == {trial.digest: 3 for trial in trials}
    records = [
        {**row, **trial.fields}
        for trial in trials
        for row in records_of(trial, 3 if trial.spec.seed else 2)
        if (trial.spec.seed, trial.fields["train.lr"]) != (2, 0.2)
    ]
    found = with_replicates(records, ["seed", "train.lr"], planned)
    counts = {(r["train.lr"], r["level"], r["branch"]): r["replicates"] for r in found}
    assert counts == {
        (0.1, 0, "dense"): 3, (0.1, 1, "ticket"): 3, (0.1, 1, "reinit"): 3,
        (0.1, 2, "ticket"): 2, (0.1, 2, "reinit"): 2,
        (0.2, 0, "dense"): 2, (0.2, 1, "ticket"): 2, (0.2, 1, "reinit"): 2,
        (0.2, 2, "ticket"): 1, (0.2, 2, "reinit"): 1,
    }  # fmt: skip
    assert {row["replicates_planned"] for row in found} == {3}


def test_text_counts_and_names_what_is_missing() -> None:
    assert incomplete_text([], 20) == ""
    assert incomplete_text([MissingWork("ab", 2, 6)], 20) == (
        "1 of 20 trials is incomplete: ab has 2 of 6 levels"
    )
    assert incomplete_text([MissingWork("ab", 2, 6), MissingWork("cd", 0, 6)], 20) == (
        "2 of 20 trials are incomplete: ab has 2 of 6 levels; cd has no records"
    )


def test_text_names_a_few_trials_and_counts_the_others() -> None:
    missing = [MissingWork(f"trial-{number}", 0, 6) for number in range(MOST_NAMED + 15)]
    text = incomplete_text(missing, 100)
    assert text.startswith("20 of 100 trials are incomplete: trial-0 has no records; ")
    assert text.count("trial-") == MOST_NAMED
    assert text.endswith("; 15 more")
