"""Files of a level with its learning curves and all its numbers, and of a run with its spec."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from itertools import cycle
from typing import Any

import yaml

from lth_core.results import LevelResult
from lth_core.spec import TicketSpec, describe
from lth_core.train.training import Curves
from tracking.publish.made_with import versions

PANELS = {
    "Training loss": "train_loss",
    "Validation accuracy": "validation_accuracy",
    "Test accuracy": "test_accuracy",
}
"""Field of `Curves` of each panel."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d", "#999933")
"""Colours of the branches in order, of Okabe and Ito, safe for the colour-blind."""
WIDE, HIGH, LEFT, TOP = 300, 200, 48, 56
"""Size of a panel's axes, and its distance from the left and the top, in pixels."""


def curve_files(level: LevelResult, records: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Files of a level by name: learning curves as JSON, beside all columns of its records, and as
    a picture."""
    curves = {branch: result.training.curves for branch, result in level.results.items()}
    content = {
        "records": list(records),
        "curves": {branch: asdict(curve) for branch, curve in curves.items()},
    }
    return {
        "curves.json": json.dumps(content, indent=1).encode(),
        "curves.svg": curves_picture(curves).encode(),
    }


def spec_file(spec: TicketSpec) -> bytes:
    """All fields of a spec, its digest, and the versions that numbers depend on, in YAML."""
    content = {"spec": describe(spec), "spec_digest": spec.digest(), "versions": versions()}
    return yaml.safe_dump(content, sort_keys=False).encode()


def curves_picture(curves: Mapping[str, Curves]) -> str:
    """SVG with training loss and accuracies of each branch against step.

    It is written by hand: matplotlib takes 0.2 s a level, more than a small network's training.
    """
    points = {
        title: {branch: _points(curve, name) for branch, curve in curves.items()}
        for title, name in PANELS.items()
    }
    shown = {title: lines for title, lines in points.items() if any(lines.values())}
    parts = [_legend(list(curves))]
    for i, (title, lines) in enumerate(shown.items()):
        panel = "\n".join(_panel(title, lines))
        parts.append(f'<g transform="translate({LEFT + i * (WIDE + LEFT + 12)},{TOP})">{panel}</g>')
    width, height = len(shown) * (WIDE + LEFT + 12) + 12, TOP + HIGH + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="#333">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _points(curves: Curves, name: str) -> list[tuple[float, float]]:
    """Points of a curve; test accuracy may be missing at some steps."""
    pairs = zip(curves.step, getattr(curves, name), strict=False)
    return [(step, value) for step, value in pairs if value is not None]


def _panel(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Iterator[str]:
    """SVG of the axes of a panel and its lines."""
    points = [point for line in lines.values() for point in line]
    last = max(step for step, _ in points) or 1
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = high - low or 1

    def place(step: float, value: float) -> str:
        return f"{WIDE * step / last:.1f},{HIGH * (1 - (value - low) / span):.1f}"

    yield f'<text y="-8" font-size="12">{title}</text>'
    yield f'<text x="{WIDE / 2}" y="{HIGH + 34}" text-anchor="middle">Training step</text>'
    for share in (0.0, 0.5, 1.0):
        x, y = WIDE * share, HIGH * (1 - share)
        yield f'<path d="M0 {y}H{WIDE}" stroke="#ddd"/>'
        yield f'<text x="-6" y="{y + 4}" text-anchor="end">{low + share * span:.3g}</text>'
        yield f'<text x="{x}" y="{HIGH + 17}" text-anchor="middle">{share * last:.6g}</text>'
    for line, color in zip(lines.values(), cycle(COLORS), strict=False):
        path = " ".join(place(*point) for point in line)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"/>'
        if len(line) == 1:  # a line of one point is not seen
            across, down = place(*line[0]).split(",")
            yield f'<circle cx="{across}" cy="{down}" r="3" fill="{color}"/>'


def _legend(branches: Sequence[str]) -> str:
    """SVG with the branches' names in their colours."""
    names = " ".join(
        f'<tspan fill="{color}" dx="10">{escape(branch)}</tspan>'
        for branch, color in zip(branches, cycle(COLORS), strict=False)
    )
    return f'<text x="{LEFT - 10}" y="22" font-size="13" font-weight="bold">{names}</text>'
