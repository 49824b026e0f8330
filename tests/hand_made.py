"""A small study, made by hand, whose means and verdicts can be worked out on paper."""

from itertools import product
from typing import Any

from lth_core.train.training import Curves

DENSE = (0.96, 0.97, 0.98)
TICKET = {1: (0.97, 0.98, 0.99), 2: (0.90, 0.92, 0.91)}
REINIT = {1: (0.94, 0.96, 0.95), 2: (0.80, 0.83, 0.80)}
DENSITY = {0: 1.0, 1: 0.5, 2: 0.25}


def record(seed: int, branch: str, level: int, accuracy: float, **more: Any) -> dict[str, Any]:
    density = DENSITY.get(level, 0.5**level)
    return {
        "study": "hand-made", "trial": f"trial-{seed}", "verdict": None, "seed": seed,
        "method": "imp", "when": "after",
        "branch": branch, "level": level, "density": density, "steps": 100,
        "final_test_accuracy": accuracy, "early_stop_step": 100 - 20 * level + 10 * seed,
        "collapsed_layers": 0, "layer_density": {"hidden": density, "output": (1 + density) / 2},
        "training_digest": f"{branch}-{level}-{seed}", "mask_overlap": 1.0,
        "mask_overlap_chance": density / (2 - density), "travel": 0.02, "sign_agreement": 0.9,
        "travel_inside": (0.04, 0.05, 0.06)[seed] if branch == "ticket" else None,
        "travel_outside": (0.02, 0.02, 0.05)[seed] if branch == "ticket" else None, **more,
    }  # fmt: skip


def study(seeds: int = 3, levels: int = 2, **axes: Any) -> list[dict[str, Any]]:
    """Records of one cell: dense runs, and tickets with a reinit control at each level."""
    found = []
    for seed in range(seeds):
        found.append(record(seed, "dense", 0, DENSE[seed], **axes))
        for level in range(1, levels + 1):
            found.append(record(seed, "ticket", level, TICKET[level][seed], **axes))
            found.append(record(seed, "reinit", level, REINIT[level][seed], **axes))
    return found


WAYS = {
    "before": ["random", "random-erk", "magnitude-init", "snip", "grasp", "synflow"],
    "during": ["gmp", "set", "rigl"],
    "after": ["one-shot", "imp", "imp-rewind", "movement", "magnitude-increase", "final-initial"],
    "never": ["edge-popup", "edge-popup-signed", "supermask"],
}
"""Methods by when they prune."""


def taxonomy(seeds: int = 3, levels: int = 5, **axes: Any) -> list[dict[str, Any]]:
    """Records of many methods with one dense run, a field `prune.score` for an axis, and one method
    that retrains in two further ways; method i loses i/1000 and, level by level, i/400 more."""
    named = [(when, name) for when, found in WAYS.items() for name in found]
    found = []
    for seed, (i, (when, name)) in product(range(seeds), enumerate(named)):
        about = {
            "method": name,
            "when": when,
            "prune.score": name,
            "trial": f"{name}-{seed}",
            **axes,
        }
        found.append(record(seed, "dense", 0, DENSE[seed], **about))
        for level in range(1, levels + 1):
            loss = i / 1000 + (i / 400 + 0.004) * (level - 1)
            branches = ("ticket", "finetune", "lr_rewind") if name == "one-shot" else ("ticket",)
            others = [other for _, other in named if other != name]
            for j, branch in enumerate(branches):
                made = record(seed, branch, level, DENSE[seed] - loss - j / 100, **about)
                density = 0.5**level
                found.append({
                    **made, "density": density, "collapsed_layers": int(i == 2 and level == 5),
                    "overlap_seeds": density, "overlap_seeds_chance": density / (2 - density),
                    "overlap_methods": {other: 0.5 / (1 + abs(named.index((when, name)) - k))
                                        for k, (_, other) in enumerate(named) if other in others},
                    "overlap_methods_chance": dict.fromkeys(others, density / (2 - density)),
                })  # fmt: skip
    return found


def curves(digest: str) -> Curves | None:
    """Accuracies 0.5 and 0.9, and a hundredth more for each further seed."""
    if digest.startswith("reinit"):
        return None
    more = int(digest.rsplit("-", 1)[1]) / 100
    return Curves([50, 100], [1.0, 0.5], [1.0, 0.5], [0.5, 0.9], [0.5 + more, 0.9 + more])


REWOUND = {"0%": 0, "2%": 8, "5%": 20, "10%": 40, "100%": 400}
"""Rewind points by their steps, of 400."""
RISE = {
    0: (0.05, 0.03, 0.01, 0.0, 0.0),
    1: (0.04, 0.01, 0.01, 0.0, 0.0),
    2: (0.2, 0.1, 0.06, 0.03, 0.0),
}
"""Test barriers by level and rewind point."""
GAIN = {1: (-0.05, -0.02, 0.01, 0.02, -0.4), 2: (-0.3, -0.2, -0.1, -0.05, -0.6)}
"""Tickets' accuracies less the dense run's, by level and rewind point."""


def rewound(seeds: int = 3, **axes: Any) -> list[dict[str, Any]]:
    """Records of one shot at five rewind points: tickets at level 1 match the dense run from 5% on,
    but not at 100%; at level 2 nowhere. Level 1 is stable from 2% on, the dense run from 5% on."""
    found = []
    for seed, (i, (name, step)) in product(range(seeds), enumerate(REWOUND.items())):
        about = {
            "rewind": name, "rewind_step": step, "trial": f"{name}-{seed}",
            "method": "one-shot-rewind" if step else "one-shot", **axes,
        }  # fmt: skip
        known = {
            "rewind_distance": 5.0 - i,
            "rewind_cosine": i / 5,
            "rewind_loss": 1.0 if i else 2.0,
        }
        made = [record(seed, "dense", 0, DENSE[seed], **known)]
        for level, rises in RISE.items():
            made.append(
                record(seed, "twin", level, DENSE[seed], test_barrier=rises[i] + seed / 1000)
            )
        for level, gains in GAIN.items():
            accuracy = DENSE[seed] + gains[i]
            made += [
                {**record(seed, "ticket", level, accuracy), "steps": 400 - step,
                 "travel": (400 - step) / 1000, "rewind_mask_overlap": level * i / 10},
                record(seed, "reinit", level, DENSE[seed] - 0.5 - seed**2 / 100),
            ]  # fmt: skip
        found += [{**r, "steps": 400, **about} if r["branch"] != "ticket" else {**r, **about}
                  for r in made]  # fmt: skip
    return found
