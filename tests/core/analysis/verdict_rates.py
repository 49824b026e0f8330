"""Error rates of the verdict in simulated studies; `python tests/core/analysis/verdict_rates.py`
prints the table of docs/verdict.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lth_core.analysis.verdict import Verdict, judge
from lth_core.analysis.verdict_rule import DEFAULT_RULE

LEVELS, EXAMPLES, DENSE, DEVIATION = 20, 449, 0.95, 0.003
MARGIN = DEFAULT_RULE.margin
SEEDS = (3, 5, 10)
FALSE_MATCHING, FALSE_WINNING = 0.055, 0.05
"""Highest allowed shares of studies with a false word at any of the levels."""


@dataclass(frozen=True)
class Noise:
    """Noise of an accuracy. Correlated levels share the noise of their dense run, and each ticket
    has 0.8 of the noise of the ticket before it."""

    binomial: bool
    correlated: bool

    def draw(self, rng: np.random.Generator, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Accuracies of replicates (rows) at levels (columns) around the levels' means."""
        noise = rng.normal(size=means.shape)
        if self.correlated:
            for level in range(1, means.shape[1]):
                noise[:, level] = 0.8 * noise[:, level - 1] + 0.6 * noise[:, level]
        if not self.binomial:
            return means + DEVIATION * noise
        from scipy.special import bdtr, ndtr

        # The accuracy on the test examples that has the noise's probability.
        hits, share = np.arange(EXAMPLES + 1), ndtr(noise)
        cumulative = {mean: bdtr(hits, EXAMPLES, mean) for mean in np.unique(means)}
        drawn = np.empty_like(means)
        for mean, probabilities in cumulative.items():
            at = means == mean
            drawn[at] = np.searchsorted(probabilities, share[at]) / EXAMPLES
        return drawn


NOISES = {
    f"{kind}, {levels} levels": Noise(kind == "binomial", levels == "correlated")
    for kind in ("normal", "binomial")
    for levels in ("independent", "correlated")
}


def study(
    rng: np.random.Generator, noise: Noise, seeds: int, ticket: float, reinit: float,
    when: str = "after",
) -> list[Verdict]:  # fmt: skip
    """The verdicts of one simulated cell.

    Args:
        ticket, reinit: true accuracy, at all levels, less that of the dense run.
        when: `never` for tickets that are not trained.
    """
    dense = np.full((seeds, 1), DENSE)
    if noise.correlated:
        dense = noise.draw(rng, dense)
    means = np.full((seeds, LEVELS), DENSE)
    table = {
        "ticket": noise.draw(rng, means + ticket),
        "reinit": noise.draw(rng, means + reinit),
    }
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        rows.append(row(0, "dense", seed, dense[seed, 0], when))
        for branch, drawn in table.items():
            rows += [
                row(level + 1, branch, seed, drawn[seed, level], when) for level in range(LEVELS)
            ]
    (found,) = judge([rows], [], DEFAULT_RULE)
    return found


def false_after_a_stop(seeds: int, studies: int, patience: int) -> float:
    """Share of studies with a false match where a stop rule ends the seeds that look bad.

    Tickets are a little worse at each level, by the margin at the fifth and from then on. A seed
    ends once its ticket was below dense by more than the margin ``patience`` times in a row: mostly
    seeds whose dense run was lucky.
    """
    rng, noise, false = np.random.default_rng(seeds), NOISES["normal, correlated levels"], 0
    means = DENSE - MARGIN * np.minimum(np.arange(1, LEVELS + 1) / 5, 1)
    for _ in range(studies):
        dense = noise.draw(rng, np.full((seeds, 1), DENSE))[:, 0]
        drawn = noise.draw(rng, np.tile(means, (seeds, 1)))
        rows = [row(0, "dense", seed, dense[seed], "after") for seed in range(seeds)]
        for seed, accuracies in enumerate(drawn):
            below = 0
            for level, accuracy in enumerate(accuracies, start=1):
                rows.append(row(level, "ticket", seed, accuracy, "after"))
                below = below + 1 if accuracy < dense[seed] - MARGIN else 0
                if below == patience:
                    break
        (found,) = judge([rows], [], DEFAULT_RULE)
        false += any(verdict.matching for verdict in found if verdict.level >= 5)
    return false / studies


UNEVEN = {
    "one level of 3 times the deviation": lambda level: 3.0 if level == 9 else 1.0,
    "3 times the deviation from a level on": lambda level: 3.0 if level >= 9 else 1.0,
    "a deviation that grows to 5 times": lambda level: 5 ** ((level - 1) / (LEVELS - 1)),
}
"""Deviation of the tickets at a level, relative to the dense runs'."""


def false_at_uneven_levels(kind: str, seeds: int, studies: int, deviation: float) -> float:
    """Share of studies with a false match, where levels 1 to 8 are as good as dense, the others
    worse by the margin, and some levels vary more than others; correlated levels."""
    rng, noise, false = np.random.default_rng(seeds), NOISES["normal, correlated levels"], 0
    scales = np.array([UNEVEN[kind](level) for level in range(1, LEVELS + 1)])
    means = np.where(np.arange(1, LEVELS + 1) < 9, DENSE, DENSE - MARGIN)
    zero = np.zeros((seeds, LEVELS))
    for _ in range(studies):
        dense = DENSE + deviation / DEVIATION * noise.draw(rng, zero[:, :1])[:, 0]
        drawn = means + scales * deviation / DEVIATION * noise.draw(rng, zero)
        rows = [row(0, "dense", seed, dense[seed], "after") for seed in range(seeds)]
        rows += [
            row(level, "ticket", seed, accuracy, "after")
            for seed, accuracies in enumerate(drawn)
            for level, accuracy in enumerate(accuracies, start=1)
        ]
        (found,) = judge([rows], [], DEFAULT_RULE)
        false += any(verdict.matching for verdict in found if verdict.level >= 9)
    return false / studies


def false_after_more_seeds(most: int, studies: int) -> tuple[float, float]:
    """Shares of studies with a false match: at three seeds, and where seeds are added, as many as
    the first undecided level names, up to a number of seeds. Five levels, all worse by the margin.
    """
    rng, noise, first, last = np.random.default_rng(most), NOISES["normal, correlated levels"], 0, 0
    means = np.full((most, 5), DENSE - MARGIN)
    for _ in range(studies):
        dense, drawn = noise.draw(rng, np.full((most, 1), DENSE))[:, 0], noise.draw(rng, means)
        seeds = 3
        while True:
            rows = [row(0, "dense", seed, dense[seed], "after") for seed in range(seeds)]
            rows += [
                row(level, "ticket", seed, drawn[seed, level - 1], "after")
                for seed in range(seeds)
                for level in range(1, 6)
            ]
            (found,) = judge([rows], [], DEFAULT_RULE)
            is_false = any(verdict.matching for verdict in found)
            first += is_false and seeds == 3
            undecided = [v for v in found if v.verdict == "undecided"]
            needed = undecided[0].seeds_to_decide if undecided else None
            if is_false or needed is None or needed > most:
                break
            seeds = needed
        last += is_false
    return first / studies, last / studies


def row(level: int, branch: str, seed: int, accuracy: float, when: str) -> dict[str, Any]:
    """A record with the columns of a verdict."""
    return {
        "level": level, "branch": branch, "seed": seed, "density": 0.8**level, "method": "imp", "when": when,
        "final_test_accuracy": accuracy, "early_stop_step": 100, "steps": 500,
    }  # fmt: skip


def shares(
    noise: Noise, seeds: int, studies: int, ticket: float, reinit: float, *words: str,
    when: str = "after",
) -> NDArray[np.float64]:  # fmt: skip
    """Whether each level (columns) of each simulated study (rows) reads as one of the words."""
    rng = np.random.default_rng([seeds, *map(int, (noise.binomial, noise.correlated))])
    return np.array([
        [verdict.verdict in words for verdict in study(rng, noise, seeds, ticket, reinit, when)]
        for _ in range(studies)
    ])  # fmt: skip


def false_rates(noise: Noise, seeds: int, studies: int, when: str = "after") -> tuple[float, float]:
    """Shares of studies with a false word at some level.

    Matching, where all tickets are worse than dense by the margin. Winning, where tickets are one
    point above dense and as good as reinit.
    """
    matching = shares(noise, seeds, studies, -MARGIN, -MARGIN, "matching", "winning", when=when)
    winning = shares(noise, seeds, studies, 0.01, 0.01, "winning", when=when)
    return float(matching.any(axis=1).mean()), float(winning.any(axis=1).mean())


def power(noise: Noise, seeds: int, studies: int) -> tuple[float, float]:
    """Shares that read as what is there.

    Matching at the densest level, where tickets are as good as dense. Winning, mean over levels,
    where tickets are one point above dense, and reinit is two points below it.
    """
    matching = shares(noise, seeds, studies, 0.0, 0.0, "matching", "winning")
    winning = shares(noise, seeds, studies, 0.01, -0.02, "winning")
    return float(matching[:, 0].mean()), float(winning.mean())


def table(studies: int) -> Iterator[str]:
    """Lines of the table of docs/verdict.md."""
    yield "| noise | seeds | false matching | false winning | power, matching | power, winning |"
    yield "|---|---|---|---|---|---|"
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            found = false_rates(noise, seeds, studies) + power(noise, seeds, studies)
            yield f"| {name} | {seeds} | {' | '.join(f'{100 * share:.1f}%' for share in found)} |"


def untrained(studies: int) -> Iterator[str]:
    """Lines on false matching of tickets that are not trained."""
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            matching, _ = false_rates(noise, seeds, studies, "never")
            yield f"not trained, {name}, {seeds} seeds: false matching {100 * matching:.1f}%"


def uneven(studies: int) -> Iterator[str]:
    """Lines on false matching where levels vary unevenly, and where seeds are added."""
    for kind in UNEVEN:
        for seeds in SEEDS:
            share = false_at_uneven_levels(kind, seeds, studies, deviation=0.001)
            yield f"{kind}, {seeds} seeds: false matching {100 * share:.1f}%"
    for most in (20, 50):
        first, last = false_after_more_seeds(most, studies)
        yield f"seeds added up to {most}: {100 * first:.1f}% at 3, {100 * last:.1f}% in the end"


if __name__ == "__main__":
    for line in chain(table(studies=2000), untrained(studies=1000), uneven(studies=2000)):
        print(line, flush=True)
