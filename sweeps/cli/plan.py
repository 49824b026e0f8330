"""`lth plan`: what a study will train, its trials, and how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lth_core.errors import SpecError
from sweeps.cli.console import AsJson, Overrides, StudyArgument, out, print_json, printable

if TYPE_CHECKING:
    from sweeps.plan.plan import Plan

plan_app = typer.Typer()


@plan_app.command()
def plan(
    study: StudyArgument,
    overrides: Overrides = None,
    listed: Annotated[bool, typer.Option("--list", help="Print every trial.")] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE,...", help="Only trials with one of these values of an "
                     "axis; may be given several times."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --list: print so many trials at most.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side, for the time; by default as "
                                 "many as this machine has room for."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say what a study will train, what sharing saves and how long it will take."""
    from sweeps.plan.estimate import estimate
    from sweeps.plan.plan import make_plan, summary
    from sweeps.studies.find import find_study

    if limit is not None and not listed:
        raise SpecError("--limit", "goes with --list, and only so", limit)
    planned = filtered(make_plan(find_study(study, overrides or [])), where or [])
    if listed and as_json:
        print_json(islice(planned.rows(), limit))
    elif as_json:
        sharing = {name: {"made": m, "used": u} for name, (m, u) in planned.sharing().items()}
        time = estimate(planned, at_once).to_json()
        print_json([{**summary(planned), "sharing": sharing, "time": time}])
    else:
        if listed:
            print_rows(planned, limit)
        out.print(plan_text(planned, at_once))


def filtered(plan: Plan, where: Sequence[str]) -> Plan:
    """The part of a plan that ``field=value,...`` conditions name, each in turn.

    Raises:
        SpecError: a condition cannot be read, or names what the plan has not.
    """
    from sweeps.studies.reader import read_values

    for condition in where:
        field, equals, text = condition.partition("=")
        if not equals or not field or not text.strip():
            raise SpecError("--where", "must read field=value", condition)
        plan = plan.where(field, read_values("--where", text))
    return plan


def print_rows(plan: Plan, limit: int | None) -> None:
    """The trials as a table, a line each, and how many more there are."""
    from sweeps.plan.plan import shown

    titles = list(next(plan.rows()))

    def lines() -> Iterator[list[str]]:
        yield titles
        for row in islice(plan.rows(), limit):
            yield [printable(shown(value)) for value in row.values()]

    # One walk for the widths, one to print: a hundred thousand lines need not be kept.
    widths = [0] * len(titles)
    for line in lines():
        widths = [max(width, len(cell)) for width, cell in zip(widths, line, strict=True)]
    for line in lines():
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    if limit is not None and limit < len(plan.trials):
        sys.stdout.write(f"... {len(plan.trials) - limit:,} more\n")


def plan_text(plan: Plan, at_once: int | None = None) -> Text:
    """The plan in a sentence, what of it is made once for several, and its time."""
    from sweeps.plan.estimate import estimate
    from sweeps.plan.plan import summary

    cost = summary(plan)
    saved = 1 - cost["steps_unique"] / max(1, cost["steps_naive"])
    cost_text = (
        f": {cost['trials']} trials, {cost['trainings_unique']} "
        f"trainings ({cost['trainings_naive']} without sharing), {cost['steps_unique']:,} "
        f"steps ({saved:.1%} saved)"
    )
    shared = [f"{name} {made} for {used}" for name, (made, used) in plan.sharing().items()
              if made < used]  # fmt: skip
    lines = [f"shared: {', '.join(shared)}"] if shared else []
    rest = "\n".join([cost_text, *lines, estimate(plan, at_once).sentence()])
    return Text.assemble((plan.study.name, "bold"), rest)
