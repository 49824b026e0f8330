"""`lth plan`: the trials, trainings, steps and time of a study."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from lth_core.errors import SpecError
from sweeps.cli.console import AsJson, Overrides, StudyArgument, out, print_json, printable
from sweeps.cli.lazy import lazy_imports

with lazy_imports():
    from sweeps.plan import estimate as estimates
    from sweeps.plan import evaluation as evaluations
    from sweeps.plan import plan as plans
    from sweeps.plan import sizes
    from sweeps.studies import find, reader

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
        int | None, typer.Option(min=1, help="With --list: number of trials to print.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Number of concurrent trials in the estimate of the "
                                 "time; by default, as many as this machine runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show a study's trials, trainings, steps and estimated time."""
    if limit is not None and not listed:
        raise SpecError("--limit", "must be given with --list", limit)
    planned = filtered(plans.make_plan(find.find_study(study, overrides or [])), where or [])
    if listed and as_json:
        print_json(islice(planned.rows(), limit))
    elif as_json:
        sharing = {name: {"made": m, "used": u} for name, (m, u) in planned.sharing().items()}
        time = estimates.estimate(planned, at_once, probe=True).to_json()
        networks = [size.to_json() for size in sizes.network_sizes(planned)]
        evaluation = evaluations.evaluation_share(planned).share
        print_json([{**planned.cost(), "counts": planned.certainty, "sharing": sharing,
                     "networks": networks, "evaluation_share": evaluation,
                     "time": time}])  # fmt: skip
    else:
        if listed:
            print_rows(planned, limit)
        out.print(plan_text(planned, estimates.estimate(planned, at_once, probe=True)))


def filtered(plan: plans.Plan, where: Sequence[str]) -> plans.Plan:
    """The trials of a plan that meet all ``field=value,...`` conditions.

    Raises:
        SpecError: a condition cannot be read, or no trial meets it.
    """
    for condition in where:
        field, equals, text = condition.partition("=")
        if not equals or not field or not text.strip():
            raise SpecError("--where", "must read field=value", condition)
        plan = plan.where(field, reader.read_values("--where", text))
    return plan


def print_rows(plan: plans.Plan, limit: int | None) -> None:
    """Print a table of the trials, a line each, and the number of trials beyond the limit."""
    titles, text = list(next(plan.rows())), plans.override_text

    def lines() -> Iterator[list[str]]:
        yield titles
        for row in islice(plan.rows(), limit):
            yield [printable(text(value)) for value in row.values()]

    # One pass for the widths and one to print, so that 100,000 lines stay out of memory.
    widths = [0] * len(titles)
    for line in lines():
        widths = [max(width, len(cell)) for width, cell in zip(widths, line, strict=True)]
    for line in lines():
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    if limit is not None and limit < len(plan.trials):
        sys.stdout.write(f"... {len(plan.trials) - limit:,} more\n")


def plan_text(plan: plans.Plan, time: estimates.Estimate) -> Text:
    """Text with the plan's counts, the shared trainings, and the estimated time."""
    cost, certainty = plan.cost(), plan.certainty
    saved = 1 - cost["steps_unique"] / max(1, cost["steps_naive"])
    cost_text = (
        f": {f'{certainty} ' * (certainty != 'exactly')}{cost['trials']:,} "
        f"trial{'s' * (cost['trials'] != 1)}, {cost['trainings_unique']} "
        f"trainings ({cost['trainings_naive']} without sharing), {cost['steps_unique']:,} "
        f"steps ({saved:.1%} saved)"
    )
    shared = [f"{name} {made} for {used}" for name, (made, used) in plan.sharing().items()
              if made < used]  # fmt: skip
    lines = [f"shared: {', '.join(shared)}"] if shared else []
    if certainty == "about":
        drawn = f"{plan.study.search.trials:,} sample{'s' * (plan.study.search.trials != 1)}"
        lines.append(f"counted: the trials of {drawn} drawn at random; the search draws its own")
    lines += sizes.size_lines(plan)
    lines += filter(None, [evaluations.evaluation_share(plan).sentence()])
    rest = "\n".join([cost_text, *lines, time.sentence()])
    return Text.assemble((plan.study.name, "bold"), rest)
