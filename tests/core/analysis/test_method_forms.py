"""What methods are called where a study holds one of them in several forms."""

from typing import Any

from hand_made import record

from lth_core.analysis.families import named_by_form
from lth_core.analysis.groups import free_axes, methods


def rows(*forms: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [record(0, "ticket", 1, 0.9, **{"method": name, **axes}) for name, axes in forms]


def scoped(*forms: tuple[str, str]) -> list[dict[str, Any]]:
    return rows(*((name, {"prune.scope": scope}) for name, scope in forms))


def test_form_that_one_method_alone_has_is_in_its_name_and_sets_no_cells_apart() -> None:
    records = scoped(
        ("imp", "global"), ("imp", "layerwise"), ("snip", "global"), ("imp-erk", "erk")
    )
    assert free_axes(records, ["prune.scope"]) == ["prune.scope"]
    named = named_by_form(records, ["prune.scope", "seed"])
    assert methods(named) == ["imp", "imp layerwise", "snip", "imp-erk"]
    assert free_axes(named, ["prune.scope"]) == []
    assert [row["prune.scope"] for row in named] == ["global", "layerwise", "global", "erk"]
    assert methods(records) == ["imp", "snip", "imp-erk"], "what was given stays"


def test_axis_that_every_method_goes_through_is_no_form() -> None:
    crossed = scoped(*((name, scope) for name in ("imp", "snip") for scope in ("erk", "global")))
    assert named_by_form(crossed, ["prune.scope"]) == crossed
    alone = scoped(("imp", "erk"), ("imp", "global"))
    assert named_by_form(alone, ["prune.scope"]) == alone
    assert named_by_form(scoped(("imp", "erk"), ("snip", "erk")), ["seed"]) == scoped(
        ("imp", "erk"), ("snip", "erk")
    )


def test_given_fractions_are_called_so_and_spelt_out_where_there_are_several() -> None:
    axis, none, one, two = "prune.layer_fractions", {}, {"fc1": 0.5}, {"fc1": 0.1}
    some = rows(("imp", {axis: none}), ("imp", {axis: one}), ("snip", {axis: none}))
    assert methods(named_by_form(some, [axis])) == ["imp", "imp given fractions", "snip"]
    more = [*some, *rows(("imp", {axis: two}))]
    assert methods(named_by_form(more, [axis])) == [
        "imp", 'imp {"fc1": 0.5}', "snip", 'imp {"fc1": 0.1}'
    ]  # fmt: skip


def test_form_that_two_axes_make_together_is_named_once() -> None:
    scope, rounds = "prune.scope", "prune.rounds"
    records = rows(
        ("snip", {scope: "global", rounds: None}),
        ("snip", {scope: "layerwise", rounds: 20}),
        ("imp", {scope: "global", rounds: None}),
    )
    named = named_by_form(records, [scope, rounds])
    assert methods(named) == ["snip", "snip layerwise", "imp"]
