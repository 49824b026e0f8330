"""Which fields of PruneSpec go together."""

import pytest

from lth_core.errors import SpecError
from lth_core.spec import PruneSpec, TicketSpec

BEFORE, DURING, NEVER = (
    {"when": "before"},
    {"when": "during"},
    {"when": "never", "score": "supermask"},
)
N_OF_M = {"structure": "2:4", "fraction": 0.5}
GROW = {**DURING, "grow": "gradient"}

REFUSED: list[tuple[dict[str, object], str, str]] = [
    ({"when": "later"}, "when", "known: .*never"),
    # Fields that mean something for some values of `when` alone.
    ({**BEFORE, "one_shot": True}, "one_shot", "needs prune.when: after,"),
    ({"rounds": 2}, "rounds", "needs prune.when: before,"),
    ({**DURING, "rounds": 2}, "rounds", "needs prune.when: before,"),
    ({"begin": "10%"}, "begin", "needs prune.when: during,"),
    ({**BEFORE, "end": "50%"}, "end", "needs prune.when: during,"),
    ({**NEVER, "every": "5it"}, "every", "needs prune.when: during,"),
    ({"grow": "random"}, "grow", "needs prune.when: during,"),
    ({"swap": 0.1}, "swap", "needs prune.when: during,"),
    ({"schedule": "linear"}, "schedule", "needs prune.when: before or during,"),
    ({**NEVER, "schedule": "linear"}, "schedule", "needs prune.when: before or during,"),
    ({**BEFORE, "lr": 0.1}, "lr", "needs prune.when: never,"),
    # Fields that need others.
    ({**BEFORE, "score": "snip", "temperature": 1.0}, "temperature", "needs score: grasp,"),
    ({**BEFORE, "score": "grasp", "temperature": 0.0}, "temperature", "must be a positive number"),
    ({"statistics": "moving"}, "statistics", "known: batch, running"),
    ({**DURING, "swap": 0.1}, "swap", "needs grow: random or gradient"),
    ({**DURING, "scope": "like:snip"}, "scope", "needs prune.when: before or after,"),
    ({**NEVER, "scope": "like:snip"}, "scope", "needs prune.when: before or after,"),
    ({"score": "edge-popup"}, "score", "is learned, so it needs prune.when: never"),
    ({**DURING, "score": "supermask"}, "score", "is learned, so it needs prune.when: never"),
    ({"when": "never"}, "score", "must be learned .*known: edge-popup, supermask"),
    ({"densities": (0.5, 0.1), "fraction": 0.5}, "fraction", "is not used beside densities"),
    ({**N_OF_M, "fraction": 0.2, "densities": (0.5,)}, "fraction", r"must be 0\.5"),
    # Names and ranges.
    ({"densities": (0.5, 0.5)}, "densities", r"must fall, all in \(0, 1\)"),
    ({"densities": (1.0, 0.5)}, "densities", "must fall"),
    ({"densities": (0.5, 0.0)}, "densities", "must fall"),
    ({"densities": ("half",)}, "densities", "must fall"),
    ({"densities": 0.5}, "densities", "must be a list"),
    ({"scope": "like:"}, "scope", "known: global, layerwise, erk, like:SCORE"),
    ({"scope": "likesnip"}, "scope", "is not known"),
    ({**DURING, "grow": "back"}, "grow", "known: none, random, gradient"),
    ({**GROW, "swap": 1.0}, "swap", r"must be a fraction in \[0, 1\)"),
    ({"examples": 0}, "examples", "must be at least 1"),
    ({**BEFORE, "rounds": 0}, "rounds", "must be at least 1"),
    ({**BEFORE, "rounds": 1.5}, "rounds", "must be a whole number"),
    ({**NEVER, "lr": 0.0}, "lr", "must be a positive number"),
    ({**DURING, "begin": "101%"}, "begin", "must be at most 100%"),
    ({**DURING, "end": "-1%"}, "end", "a share of training such as '5%'"),
    ({**DURING, "end": "half"}, "end", "must be steps"),
    ({**DURING, "every": "0%"}, "every", "must be more than 0"),
    ({**DURING, "every": "0it"}, "every", "must be more than 0"),
    # Structures.
    ({"structure": "filters"}, "structure", "known: weights, channels, neurons, N:M"),
    ({"structure": "0:4"}, "structure", "is not known"),
    ({"structure": "2:4 "}, "structure", "is not known"),
    ({**NEVER, "structure": "channels"}, "structure", "must be weights where masks are learned"),
    ({**GROW, "structure": "neurons"}, "structure", "where weights grow back"),
    ({"structure": "5:4"}, "structure", "must keep at most M of M"),
    ({**DURING, **N_OF_M}, "structure", "must not be N:M during training"),
    ({"structure": "2:4"}, "fraction", r"must be 0\.5, the share that structure: 2:4 removes"),
    ({"structure": "1:4", "fraction": 0.5}, "fraction", r"must be 0\.75"),
    ({**N_OF_M, "output_fraction": 0.1}, "structure", "must have scope: layerwise and the same fraction"),
    ({**N_OF_M, "layer_fractions": {"fc1": 0.1}}, "structure", "must have scope: layerwise"),
    ({**N_OF_M, "scope": "global"}, "structure", "must have scope: layerwise"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "message"), REFUSED)
def test_fields_that_do_not_go_together_are_refused_by_field_and_rule(
    fields: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(SpecError, match=f"^{field}: .*{message}") as refused:
        PruneSpec(**fields)  # type: ignore[arg-type]
    assert refused.value.field == field
    if field in fields:
        assert refused.value.got == fields[field]


@pytest.mark.parametrize(
    "fields",
    [
        {"one_shot": True, "score": "movement", "scope": "like:synflow"},
        {**BEFORE, "rounds": 3, "schedule": "linear", "scope": "erk", "structure": "channels"},
        {**BEFORE, **N_OF_M, "ignore": ("output",), "rounds": 2},
        {"structure": "4:4", "fraction": 0.0},
        {"densities": (0.5, 0.25, 0.01), "layer_fractions": {"fc1": 0.1}},
        {"structure": "1:3", "fraction": 1 - 1 / 3},
        {**DURING, "begin": 0, "end": "10ep", "every": "0.5%", "schedule": "cubic"},
        {**GROW, "swap": 0.0, "scope": "erk", "output_fraction": 0.1},
        {**NEVER, "lr": 0.1, "scope": "global", "layer_fractions": {"fc1": 0.1}},
    ],
)
def test_fields_that_go_together_are_taken(fields: dict[str, object]) -> None:
    spec = PruneSpec(**fields)  # type: ignore[arg-type]
    assert {name: getattr(spec, name) for name in fields} == {
        **fields, **({"begin": "0it"} if "begin" in fields else {})
    }  # fmt: skip


def test_n_of_m_is_one_density_and_so_one_level() -> None:
    prune = PruneSpec(structure="2:4", fraction=0.5)
    assert TicketSpec(prune=prune, levels=1).prune.pattern == (2, 4)
    with pytest.raises(SpecError, match=r"^levels: must be 1: structure 2:4 has one density"):
        TicketSpec(prune=prune, levels=2)
    assert PruneSpec().pattern is None


def test_densities_are_as_many_as_levels() -> None:
    prune = PruneSpec(densities=[0.5, 0.1])  # type: ignore[arg-type]
    assert TicketSpec(prune=prune, levels=2).prune.densities == (0.5, 0.1)
    with pytest.raises(SpecError, match=r"^levels: must be 2, the number of prune\.densities"):
        TicketSpec(prune=prune)


def test_intervals_of_mask_changes_resolve_to_at_least_one_step() -> None:
    during = PruneSpec(when="during", begin="1ep", every="0.01%").in_steps(21, 600)
    assert (during.begin, during.end, during.every) == ("21it", "450it", "1it")
