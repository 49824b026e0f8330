"""Published figures against records made by hand."""

import json
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lth_core.errors import SpecError
from sweeps.report.reference import Check, check_table, conclusion, verify
from sweeps.studies.schema import Reference

Record = dict[str, Any]
AXES = ["seed", "prune.score", "rewind"]


def tickets(
    method: str, density: float, *accuracies: float, level: int = 1, **more: Any
) -> list[Record]:
    return [
        {"method": method, "branch": "ticket", "density": density, "level": level, "seed": seed,
         "final_test_accuracy": accuracy, "prune.score": method, **more}
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip


def checked(records: list[Record], within: float = 1.0, **row: Any) -> Check:
    said = {"method": "snip", "density": 0.1, "accuracy": 92.0, **row}
    reference = Reference.model_validate({"source": "them", "within": within, "rows": [said]})
    (check,) = verify(records, AXES, reference)
    return check


def test_a_row_agrees_where_the_mean_over_seeds_is_within_the_points() -> None:
    check = checked(tickets("snip", 0.1, 0.92, 0.93, 0.94))
    assert check.outcome == "agrees"  # 93 is 1 above
    assert check.difference == pytest.approx(1)
    assert check.measured is not None
    assert (check.measured.n, check.measured.mean) == (3, pytest.approx(93))


@pytest.mark.parametrize("accuracy", [0.9090, 0.9311])
def test_a_row_differs_beyond_the_points_either_way(accuracy: float) -> None:
    assert checked(tickets("snip", 0.1, accuracy)).outcome == "differs"


def test_a_difference_of_just_the_points_agrees_whatever_binary_makes_of_it() -> None:
    assert 90.04 - 100 * 0.8904 > 1
    assert checked(tickets("snip", 0.1, 0.8904), accuracy=90.04).outcome == "agrees"


def test_the_nearest_density_is_compared() -> None:
    records = tickets("snip", 0.104, 0.5) + tickets("snip", 0.098, 0.92, level=2)
    assert checked(records).density == 0.098
    assert checked(records).outcome == "agrees"


@pytest.mark.parametrize(("density", "outcome"), [(0.096, "agrees"), (0.104, "agrees"), (0.094, "not run"), (0.106, "not run")])  # fmt: skip
def test_a_density_too_far_away_is_not_compared(density: float, outcome: str) -> None:
    check = checked(tickets("snip", density, 0.92))
    assert check.outcome == outcome
    assert (check.measured is None) == (outcome == "not run")


@pytest.mark.parametrize(
    "row", [{"method": "grasp"}, {"branch": "finetune"}, {"where": {"rewind": "1it"}}]
)  # fmt: skip
def test_what_was_not_swept_is_not_run(row: Record) -> None:
    check = checked(tickets("snip", 0.1, 0.92, rewind="0it"), **row)
    assert (check.outcome, check.explanation) == ("not run", "not run: not swept")


@pytest.mark.parametrize(("row", "message"), [
    ({"where": {"nosuch": 1}}, r"rows\.0\.where: must name axes or columns of the study, but got 'no"),
    ({"branch": "tickets"}, r"rows\.0\.branch: is not a known branch, but got 'tickets'; known: dense"),
])  # fmt: skip
def test_a_name_that_no_study_has_is_refused(row: Record, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^reference\.{message}"):
        checked(tickets("snip", 0.1, 0.92, rewind="0it"), **row)


@pytest.mark.parametrize(("swept", "asked"), [("0it", 0), (5, "5it"), ("5it", "5it")])
def test_steps_may_be_spelled_with_and_without_their_unit(swept: object, asked: object) -> None:
    records = tickets("snip", 0.1, 0.92, rewind=swept)
    assert checked(records, where={"rewind": asked}).outcome == "agrees"


def test_a_branch_is_compared_with_its_own_records() -> None:
    records = tickets("snip", 0.1, 0.5) + tickets("snip", 0.1, 0.92, branch="finetune")
    assert checked(records, branch="finetune").outcome == "agrees"


def test_a_row_that_fits_several_cells_is_refused_and_where_chooses_one() -> None:
    records = tickets("snip", 0.1, 0.5, rewind="0it") + tickets("snip", 0.1, 0.92, rewind="500it")
    with pytest.raises(
        SpecError, match=r"reference\.rows\.0\.where: must name one cell .*rewind=0it"
    ):
        checked(records)
    assert checked(records, where={"rewind": "500it"}).outcome == "agrees"


def test_a_network_without_weights_is_no_density() -> None:
    assert checked(tickets("snip", 0.0, 0.1)).outcome == "not run"


def shown(checks: list[Check]) -> list[str]:
    console = Console(width=80, file=StringIO())
    console.print(check_table(checks))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_table_and_the_line_say_what_disagrees() -> None:
    records = tickets("snip", 0.1, 0.92, 0.93, 0.94) + tickets("imp", 0.5, 0.5)
    checks = [
        checked(records), checked(records, accuracy=95), checked(records, method="imp"),
        checked(records, method="grasp"),
    ]  # fmt: skip
    rows = [" ".join(line.split()) for line in shown(checks)[1:]]
    assert rows[0] == "snip 10% 92.00 93.00±2.48 3 +1.00 agrees"
    assert rows[1] == "snip 10% 95.00 93.00±2.48 3 -2.00 differs"
    assert rows[2].startswith("imp 10% 92.00 ")
    assert rows[2].endswith("not run: nearest is 50%")
    assert conclusion(checks) == (
        "3 of 4 do not agree: snip at 10% differs; imp at 10% not run: nearest is 50%; "
        "grasp at 10% not run: not swept."
    )
    assert conclusion(checks[:1]) == "All agree."


def test_a_mean_on_fewer_replicates_than_planned_does_not_agree_in_silence() -> None:
    records = tickets("snip", 0.1, 0.92, 0.92, replicates_planned=3)
    check = checked(records)
    assert conclusion([check]) == (
        "All agree. Means are over fewer replicates than planned: snip at 10% on 2 of 3."
    )
    assert "2 of 3" in shown([check])[1]
    assert (check.to_json()["n"], check.to_json()["replicates_planned"]) == (2, 3)
    differs = checked(records, accuracy=80)
    assert conclusion([differs]).startswith("1 of 1 do not agree: snip at 10% differs. Means are")
    whole = checked(tickets("snip", 0.1, 0.92, 0.92, replicates_planned=2))
    assert conclusion([whole]) == "All agree."
    assert " of " not in shown([whole])[1]


def test_a_check_is_json() -> None:
    records = tickets("snip", 0.1, 0.92)
    said = json.loads(json.dumps(checked(records).to_json(), allow_nan=False))
    assert (said["method"], said["published"], said["outcome"]) == ("snip", 92, "agrees")
    assert (said["measured"], said["n"], said["low"]) == (pytest.approx(92), 1, None)
    assert checked([]).to_json()["measured"] is None
