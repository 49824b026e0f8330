"""The answer of a study in one sentence, with what it rests on and a line for each setting.

A study of rewind points, methods or structures has a question of its own; the others ask whether
tickets exist, and how sparse they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from typing import Literal

from lth_core.analysis.cells import cells
from lth_core.analysis.groups import group_by, key_of, methods
from lth_core.analysis.rewinds import merge_rewound_methods, rewind_cells
from lth_core.analysis.structures import (
    HALF,
    StructureTable,
    only_structures,
    structure_tables,
)
from lth_core.analysis.verdict import (
    Verdict,
    first_open,
    sparsest,
    verdicts,
)
from lth_core.analysis.verdict_rule import DEFAULT_RULE, FEWEST, VerdictRule
from lth_core.columns import Record
from tracking.report.method_answer import (
    MOST_NAMED,
    against_text,
    dense_accuracy,
    method_answer,
)
from tracking.report.rewind_answer import rewind_answer
from tracking.report.search_table import caveat
from tracking.report.structure_table import similarity_tables
from tracking.report.verdict_table import (
    NO_RECORDS,
    NO_VERDICT,
    TOO_FEW,
    needed_seeds_text,
    reach_text,
    sections,
)
from tracking.text import accuracy_text, count, density_text, listed, points_text, rule_text

Kind = Literal["tickets", "rewind", "methods", "structures"]
"""Kind of a study's question; a report shows first what answers it."""

SAME_COST = 0.03
"""Largest difference of the shares of FLOPs at which structures are compared in the sentence."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The answer of a study."""

    kind: Kind
    sentence: str
    """One or two sentences; the first word is the answer where the question is yes or no."""
    basis: str
    """`5 seeds, margin 0.5 points, 95% confidence`."""
    lines: list[str]
    """One line a cell: its sparsest matching ticket, and how it compares with reinit."""

    def __repr__(self) -> str:
        return f"<Answer: {self.sentence} ({self.basis})>"

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.lines)
        return f"<p><b>{escape(self.sentence)}</b><br>{escape(self.basis)}</p><ul>{lines}</ul>"


def study_answer(
    records: Sequence[Record],
    axes: Sequence[str],
    rule: VerdictRule = DEFAULT_RULE,
    incomplete: str = "",
    *,
    objective: Sequence[str] = (),
) -> Answer:
    """The answer that a study's records give.

    Args:
        records, axes, rule: as in `tracking.report.html.write_report`.
        incomplete: what is done where a study is not finished, such as `10 of 96 levels are done`.
        objective: columns by which an adaptive search chose the settings.
    """
    records = merge_rewound_methods(records, axes)
    kind = kind_of(records, axes)
    sentence = _SENTENCES[kind](records, axes, rule) if records else NO_RECORDS
    if incomplete:
        sentence = f"So far ({incomplete}): {sentence[0].lower()}{sentence[1:]}"
    lines = [section.headline for section in sections(records, axes, rule)]
    return Answer(kind, sentence, _basis(records, rule, objective), lines)


def kind_of(records: Sequence[Record], axes: Sequence[str]) -> Kind:
    """Kind of a study's question, from what varies in its records.

    Args:
        records: the output of `merge_rewound_methods`.
    """
    if only_structures(records, axes) or similarity_tables(records, axes):
        return "structures"
    if rewind_cells(records, axes):
        return "rewind"
    return "methods" if len(methods(records)) > 1 else "tickets"


def _basis(records: Sequence[Record], rule: VerdictRule, objective: Sequence[str]) -> str:
    seeds = count(len({record["seed"] for record in records}), "seed")
    return "; ".join(filter(None, [f"{seeds}, {rule_text(rule)}", caveat(objective)]))


# Tickets: do they exist, and how sparse


def _tickets(records: Sequence[Record], axes: Sequence[str], rule: VerdictRule) -> str:
    found = group_by(verdicts(records, axes, rule), lambda verdict: list(verdict.cell.values()))
    judged = {
        cell.label: found.get(key_of(list(cell.values.values())), [])
        for cell in cells(records, axes)
    }
    if len(judged) == 1:
        return _one_cell(next(iter(judged.values())))
    ends = {label: best.density for label, each in judged.items() if (best := sparsest(each))}
    won = sum(bool(sparsest(each, ["winning"])) for each in judged.values())
    if not ends:
        return _none_matches(judged)
    every = [verdict for each in judged.values() for verdict in each]
    text = f"in {len(ends)} of {len(judged)} settings tickets match the dense network"
    if won:
        text = f"Yes, {text} (they win in {won})"
    else:
        has_reinit = any(verdict.p_reinit for verdict in every)
        text = text.capitalize() + (", and win in none" if has_reinit else "")
    order = sorted(ends, key=lambda label: ends[label])
    first, last = order[0], order[-1]
    if len(ends) == 1:
        return f"{text}: {reach_text(judged[first])} of the weights at {first}."
    trained = all(verdict.is_trained for verdict in every)
    verb = "They match down to" if trained else "The sparsest matching tickets keep"
    lasts = [found for found in map(judged.get, ends) if found and _matches_at_last(found)]
    tail = f" In {len(lasts)} of {len(ends)} no sparser ticket was tried." if lasts else ""
    if len({density_text(density) for density in ends.values()}) == 1:
        return f"{text}. {verb} {_weights(ends[first])}.{tail}"
    if len(ends) <= MOST_NAMED:
        reached = ", ".join(f"{density_text(ends[label])} at {label}" for label in ends)
        return f"{text}. {verb} {reached}.{tail}"

    def place(label: str) -> str:
        """The setting, or the number of settings that share its density."""
        end = density_text(ends[label])
        alike = [other for other in ends.values() if density_text(other) == end]
        return label if len(alike) == 1 else f"in {len(alike)} of {len(ends)} settings"

    return (
        f"{text}. The sparsest matching ticket keeps {_weights(ends[first])} ({place(first)}); "
        f"where tickets match least far it is {density_text(ends[last])} ({place(last)}).{tail}"
    )


def _matches_at_last(judged: Sequence[Verdict]) -> bool:
    """Whether the sparsest tickets that were tried are shown to match."""
    return min(judged, key=lambda verdict: verdict.density).matching


def _none_matches(judged: Mapping[str, Sequence[Verdict]]) -> str:
    words = {verdict.verdict for each in judged.values() for verdict in each}
    settings = count(len(judged), "setting")
    if words <= {TOO_FEW}:
        return NO_VERDICT
    if words & {"undecided", TOO_FEW}:
        return f"Undecided, in none of {settings} is a ticket shown to match the dense network."
    return f"No, in none of {settings} does a ticket match the dense network."


def _one_cell(judged: Sequence[Verdict]) -> str:
    if not judged:
        return "No ticket has been trained yet."
    best, winner, end = sparsest(judged), sparsest(judged, ["winning"]), first_open(judged)
    if best is None:
        assert end is not None
        return _no_match(judged, end)
    if winner:
        text = f"Yes, tickets win {reach_text(judged, ['winning'])} of the weights, where fresh "
        text += "weights under the same masks fall behind"
        text += f", and match {reach_text(judged)}." if best is not winner else "."
    elif any(verdict.p_reinit for verdict in judged):
        text = (
            f"Partly, tickets match {reach_text(judged)} of the weights, but are not shown better "
        )
        text += "there than fresh weights under the same masks."
    else:
        text = (
            f"Tickets match {reach_text(judged)} of the weights; no control with fresh weights was "
        )
        text += "trained."
    if end and end.verdict == "undecided":
        text += f" At {density_text(end.density)} it is undecided{_would_decide(end)}."
    return f"{text} No sparser ticket was tried." if _matches_at_last(judged) else text


def _no_match(judged: Sequence[Verdict], end: Verdict) -> str:
    """Sentence on a cell in which no ticket is shown to match."""
    density, margin = density_text(end.density), points_text(end.rule.margin)
    if end.verdict == TOO_FEW:
        n = end.accuracy["ticket"].n
        text = f"No verdict: {count(n, 'seed')} of the {FEWEST} that it takes."
        if n >= FEWEST:
            text = f"No verdict: of the seeds that have a dense run, {n} have tickets at {density}."
        near = list(takewhile(lambda verdict: _gap(verdict) > -verdict.rule.margin, judged))
        if near:
            lowest = density_text(near[-1].density)
            text += f" Mean accuracy stays within {margin} of the dense network's down to {lowest}."
        return text
    if not end.is_trained:
        if end.verdict == "undecided":
            tickets = f"tickets at {density} of the weights"
            return f"Undecided, {tickets} are not shown to match{_would_decide(end)}."
        best = f"the best tickets, at {density} of the weights,"
        return f"No, even {best} fall more than {margin} behind."
    if end.verdict == "undecided":
        later = [verdict for verdict in judged if verdict.density < end.density]
        behind = list(takewhile(lambda v: v.verdict == "not matching", reversed(later)))
        text = "from {} of the weights on" if later and not behind else "at {} of the weights"
        text = f"Undecided {text.format(density)}{_would_decide(end)}."
        if behind:
            first = density_text(behind[-1].density)
            text += f" From {first} on tickets fall more than {margin} behind."
        return text
    return f"No, already at {density} of the weights tickets fall more than {margin} behind."


def _weights(density: float) -> str:
    return f"{density_text(density)} of the weights"


def _gap(verdict: Verdict) -> float:
    return verdict.accuracy["ticket"].mean - verdict.accuracy["dense"].mean


def _would_decide(verdict: Verdict) -> str:
    return f": {needed_seeds_text(verdict)} would decide"


# Structures: accuracy at half the FLOPs, similarity between seeds


def _structures(records: Sequence[Record], axes: Sequence[str], rule: VerdictRule) -> str:
    if tables := similarity_tables(records, axes):
        if len(tables) == 1:
            return _sentence(tables[0].answer)
        return " ".join(f"{table.label}: {_sentence(table.answer)}" for table in tables)
    return " ".join(_at_half(table) for table in structure_tables(records, axes))


def _at_half(table: StructureTable) -> str:
    """Sentence on the methods at the budget nearest to half of the FLOPs."""
    near = sorted(table.rows, key=lambda row: abs(row.shares["flops"].mean - HALF))
    nearest = near[0].shares["flops"].mean
    alike = [row for row in near if abs(row.shares["flops"].mean - nearest) <= SAME_COST]
    first = {row.variant.name: row for row in reversed(alike)}.values()
    missing = len({row.variant.name for row in near}) - len(first)
    others_text = f"; {count(missing, 'method')} cost more or less" if missing else ""
    best, *others = sorted(first, key=lambda row: -row.accuracy.mean)
    leaders = [row for row in (best, *others) if row.accuracy.mean == best.accuracy.mean]
    others = others[len(leaders) - 1 :]
    flops, against = (
        best.shares["flops"].mean,
        against_text(dense_accuracy(best.cell, best.variant.method)),
    )
    named = "; then " + ", ".join(f"{row.variant.name} {accuracy_text(row.accuracy)}%"
                                  for row in others[:MOST_NAMED]) if others else ""  # fmt: skip
    label = f"{table.cell.label}: " if table.cell.label else ""
    return (
        f"{label}At about {density_text(flops)} of the FLOPs "
        f"{listed(row.variant.name for row in leaders)} {'is' if len(leaders) == 1 else 'are'} the "
        f"most accurate, {accuracy_text(best.accuracy)}%{against}{named}{others_text}."
    )


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


_SENTENCES = {
    "tickets": _tickets,
    "rewind": rewind_answer,
    "methods": method_answer,
    "structures": _structures,
}
