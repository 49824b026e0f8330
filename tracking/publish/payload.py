"""Metrics, params, tags and files of levels, specs and verdicts.

Equal arguments give equal entries, and MLflow ignores those that it already has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from lth_core import masks
from lth_core.analysis.verdict import Verdict, best_word, sparsest
from lth_core.results import LevelResult
from lth_core.spec import TicketSpec, describe
from tracking.publish import names
from tracking.publish.provenance import versions
from tracking.publish.tickets.files import ticket_files

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag


def level_metrics(level: LevelResult, records: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Metrics of a level, stamped with the end of its trainings."""
    from mlflow.entities import Metric

    stamps = {b: int(r.training.finished_at * 1000) for b, r in level.results.items()}
    shared = next(r for r in records if r["branch"] == level.branch)
    for name in names.LEVEL_METRICS:
        if shared[name] is not None:
            yield Metric(name, float(shared[name]), stamps[level.branch], level.level)
    for record in records:
        branch = record["branch"]
        for name in names.BRANCH_METRICS:
            if record.get(name) is not None:
                yield Metric(f"{branch}/{name}", float(record[name]), stamps[branch], level.level)
        curves = level.results[branch].training.curves
        for name in names.CURVES:
            key = f"{names.level_folder(level.level)}/{branch}/{name}"
            values = getattr(curves, name)  # none of validation without validation examples
            for step, value in zip(curves.step, values, strict=bool(values)):
                if value is not None:  # test examples that were not evaluated there
                    yield Metric(key, float(value), stamps[branch], step)
    for layer, density in shared["layer_density"].items():
        key = names.entry_name(f"layer_density/{layer}")
        yield Metric(key, float(density), stamps[level.branch], level.level)


def level_files(level: LevelResult) -> dict[str, bytes]:
    """Files of a level by name: the ticket and what explains it, and its mask as packed bits."""
    ticket = level.ticket
    bits = {f"mask/{name}": masks.pack_bits(m) for name, m in ticket.mask.items()}
    shapes = {name: str(list(m.shape)) for name, m in ticket.mask.items()}
    metadata = {"mask_digest": masks.digest(ticket.mask), **shapes}
    return {
        **ticket_files(ticket),
        "mask.safetensors": save(bits, metadata=metadata),
    }


def params(spec: TicketSpec) -> Iterator[Param]:
    """Params of a spec: its fields, its digest, versions of packages."""
    from mlflow.entities import Param

    def flat(prefix: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in fields.items():
            if isinstance(value, dict):
                yield from flat(f"{prefix}{name}.", value)
            else:
                yield f"{prefix}{name}", str(value)

    for key, value in flat("", describe(spec)):
        yield Param(names.entry_name(key), value[: names.LONGEST_PARAM])
    yield Param("spec_digest", spec.digest())
    for key, value in versions().items():
        yield Param(f"version.{key}", value)


def verdict_tags(verdicts: Sequence[Verdict], mark: str) -> Iterator[RunTag]:
    """Tags of a trial's verdicts, to filter runs by: the best one and each level's.

    Args:
        mark: value of the tag `names.COMPARED`.
    """
    from mlflow.entities import RunTag

    if verdicts:
        yield RunTag(names.VERDICT, best_word(verdicts))
    for verdict in verdicts:
        yield RunTag(f"{names.VERDICT}.{names.level_folder(verdict.level)}", verdict.verdict)
    yield RunTag(names.COMPARED, mark)


def study_metrics(records: Sequence[Mapping[str, Any]], stamp: int) -> Iterator[Metric]:
    """Mask overlaps of a trial with others, and latencies of its networks, with step = level."""
    from mlflow.entities import Metric

    for record in records:
        for name in names.STUDY_METRICS:
            if record.get(name) is not None:
                yield Metric(f"{record['branch']}/{name}", record[name], stamp, record["level"])


def verdict_values(verdict: Verdict) -> dict[str, float]:
    """Numbers of a verdict by the name of their metric; those that were not tested are left out."""
    values = {
        "matching": float(verdict.matching),
        "winning": float(verdict.verdict == "winning"),
    }
    for name, p in {"p_matching": verdict.p_matching, "p_reinit": verdict.p_reinit}.items():
        if p is not None:
            values |= {name: p.raw, f"{name}_adjusted": p.adjusted}
    return values


def verdict_metrics(verdicts: Sequence[Verdict], stamp: int) -> Iterator[Metric]:
    """Metrics of a trial's verdicts, with step = level.

    Args:
        stamp: time in ms, later than that of the trial's previous call.
    """
    from mlflow.entities import Metric

    for verdict in verdicts:
        for name, value in verdict_values(verdict).items():
            yield Metric(f"{names.VERDICT}/{name}", value, stamp, verdict.level)
    if best := sparsest(verdicts):
        yield Metric(f"{names.VERDICT}/sparsest_matching_density", best.density, stamp, best.level)
