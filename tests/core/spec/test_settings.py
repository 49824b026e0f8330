"""Fields of a spec to show."""

from lth_core.spec import PruneSpec, TicketSpec
from lth_core.spec.settings import dotted_settings


def test_a_budget_is_shown_in_place_of_the_fraction() -> None:
    budget = {"flops": 0.5}
    given = dotted_settings(TicketSpec(prune=PruneSpec(structure="channels", budget=budget)))
    assert given["prune.budget"] == budget
    assert "prune.fraction" not in given
    assert dotted_settings(TicketSpec())["prune.fraction"] == 0.2
