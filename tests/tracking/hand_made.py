"""A small study, made by hand, whose means and verdicts can be worked out on paper."""

from typing import Any

from lth_core.training import Curves

DENSE = (0.96, 0.97, 0.98)
TICKET = {1: (0.97, 0.98, 0.99), 2: (0.90, 0.92, 0.91)}
REINIT = {1: (0.94, 0.96, 0.95), 2: (0.80, 0.83, 0.80)}
DENSITY = {0: 1.0, 1: 0.5, 2: 0.25}


def record(seed: int, branch: str, level: int, accuracy: float, **more: Any) -> dict[str, Any]:
    density = DENSITY[level]
    return {
        "study": "hand-made", "trial": f"trial-{seed}", "verdict": None, "seed": seed,
        "branch": branch, "level": level, "density": density, "steps": 100,
        "final_test_accuracy": accuracy, "early_stop_step": 100 - 20 * level + 10 * seed,
        "collapsed_layers": 0, "layer_density": {"hidden": density, "output": (1 + density) / 2},
        "training_digest": f"{branch}-{level}-{seed}", **more,
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


def curves(digest: str) -> Curves | None:
    """Accuracies 0.5 and 0.9, and a hundredth more for each further seed."""
    if digest.startswith("reinit"):
        return None
    more = int(digest.rsplit("-", 1)[1]) / 100
    return Curves([50, 100], [1.0, 0.5], [1.0, 0.5], [0.5, 0.9], [0.5 + more, 0.9 + more])
