"""The answer of a study of methods: which keeps the accuracy longest, and which wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lth_core.analysis.cells import Cell, Point, open_cells
from lth_core.analysis.families import (
    FAMILIES,
    LEARNED,
    Variant,
    by_family,
    variant_verdicts,
    variants,
)
from lth_core.analysis.groups import group_by
from lth_core.analysis.summary import Summary
from lth_core.analysis.verdict import Verdict, sparsest
from lth_core.analysis.verdict_rule import VerdictRule
from lth_core.columns import Record
from tracking.report.verdict_table import reach_text
from tracking.text import accuracy_text, count, density_text, listed

MOST_NAMED = 3
"""Largest number of settings or methods that a sentence names."""


def method_answer(records: Sequence[Record], axes: Sequence[str], rule: VerdictRule) -> str:
    """Which method keeps the accuracy longest, in a sentence for each cell of the free axes."""
    found = open_cells(records, axes)
    compared = variants(records)
    answers = [_by_family(cell, compared, rule) for cell in found]
    if len(answers) == 1:
        return answers[0]
    if len(answers) <= MOST_NAMED:
        return " ".join(f"{c.label}: {text}" for c, text in zip(found, answers, strict=True))
    return f"{found[0].label}: {answers[0]} {count(len(found) - 1, 'more setting')} below."


def _by_family(cell: Cell, compared: Sequence[Variant], rule: VerdictRule) -> str:
    """Sentence on all methods; on each family, where all masks are learned over weights that are
    not trained, and some trained under afterwards: else the latter would hide whether a mask alone
    is enough."""
    families = by_family(compared)
    if list(families) != [FAMILIES["never"], LEARNED]:
        return _longest(cell, compared, rule)
    texts = {family: _longest(cell, group, rule) for family, group in families.items()}
    return " ".join(f"{family}: {text[0].lower()}{text[1:]}" for family, text in texts.items())


def _longest(cell: Cell, compared: Sequence[Variant], rule: VerdictRule) -> str:
    compared = [v for v in compared if v.series(cell, "final_test_accuracy")]
    judged = {v.name: each for v, each in variant_verdicts(cell, compared, rule).items()}
    matched = {name: found for name, found in judged.items() if sparsest(found)}
    ends = {name: min(v.density for v in found if v.matching) for name, found in matched.items()}
    if not ends:
        return _closest(cell, compared)
    furthest = density_text(min(ends.values()))
    first = [name for name, end in ends.items() if density_text(end) == furthest]
    others = sorted((name for name in ends if name not in first), key=lambda name: ends[name])
    verb, reach = "matches" if len(first) == 1 else "match", reach_text(matched[first[0]])
    text = f"{listed(first)} {verb} the dense network furthest, {reach} of the weights"
    if others:
        text += f"; then {', '.join(_reached(name, matched) for name in others[:MOST_NAMED])}"
    text += _winners(judged)
    if silent := [name for name in judged if name not in ends]:
        named = listed(silent) if len(silent) <= MOST_NAMED else f"{len(silent)} of {len(judged)}"
        text += f"; {named} {'is' if len(silent) == 1 else 'are'} not shown to match"
    return f"{text}."


def _reached(name: str, matched: Mapping[str, Sequence[Verdict]]) -> str:
    """`imp 50%`, or `edge-popup at 30%` where levels are no sequence."""
    found = matched[name]
    if all(verdict.is_trained for verdict in found):
        return f"{name} {density_text(min(v.density for v in found if v.matching))}"
    return f"{name} {reach_text(found)}"


def _winners(judged: Mapping[str, Sequence[Verdict]]) -> str:
    """`; imp and one-shot win down to 50%`; empty without a control with fresh weights."""
    winning = {name: best for name, v in judged.items() if (best := sparsest(v, ["winning"]))}
    if not winning:
        tested = any(verdict.p_reinit for found in judged.values() for verdict in found)
        return "; none is shown to win" if tested else ""
    order = sorted(winning, key=lambda name: winning[name].density)
    by_reach = group_by(order, lambda name: reach_text(judged[name], ["winning"]))
    texts = [
        f"{listed(names)} {'wins' if len(names) == 1 else 'win'} "
        f"{reach_text(judged[names[0]], ['winning'])}"
        for names in list(by_reach.values())[:MOST_NAMED]
    ]
    return f"; {', '.join(texts)}"


def _closest(cell: Cell, compared: Sequence[Variant]) -> str:
    """Sentence on methods of which none is shown to match: the one whose accuracy is the highest,
    measured from its own dense network."""
    dense = {v.method: dense_accuracy(cell, v.method) for v in compared}
    points = [(v, point) for v in compared for point in v.series(cell, "final_test_accuracy")]
    # Only a study that lost records has tickets without their dense run.
    points = [(v, point) for v, point in points if dense[v.method]] or points

    def less_dense(found: tuple[Variant, Point]) -> float:
        own = dense[found[0].method]
        return found[1].value.mean - (own.mean if own else 0.0)

    best, point = max(points, key=less_dense)
    highest = less_dense((best, point))
    density = density_text(point.density)
    names = dict.fromkeys(
        v.name
        for v, p in points
        if less_dense((v, p)) == highest and density_text(p.density) == density
    )
    several = len({own.mean for own in dense.values() if own}) > 1
    said = (
        "Closest to its own dense network comes" if several else "The highest accuracy is that of"
    )
    reached = f"{accuracy_text(point.value)}% at {density} of the weights"
    return (
        f"No method is shown to match the dense network. {said} {listed(names)}, {reached}"
        f"{against_text(dense[best.method])}."
    )


def dense_accuracy(cell: Cell, method: str) -> Summary | None:
    """Final test accuracy of a method's dense network."""
    found = cell.of_method(method).series("dense", "final_test_accuracy")
    return found[0].value if found else None


def against_text(dense: Summary | None) -> str:
    """` (dense 97.00±0.20%)`; empty where the dense run is missing."""
    return f" (dense {accuracy_text(dense)}%)" if dense else ""
