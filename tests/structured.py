"""Records of small studies of structures, made by hand, whose tables can be worked out on paper."""

from itertools import product
from typing import Any

from hand_made import record

DENSE_OUTPUTS = {"conv1": 10, "conv2": 10, "conv3": 10, "output": 4}
AXES = ["seed", "prune.score"]
SEARCH = {"random": 0.0, "gates": 50.0, "imp-slimming": 1000.0}
WHEN = {"random": "before", "gates": "gates", "imp-slimming": "after"}
TRAINED = 1000.0
"""FLOPs of training the dense network."""


def structured(seed: int, branch: str, accuracy: float, **more: Any) -> dict[str, Any]:
    """Record of a structure at half of the FLOPs and 40% of the parameters; of the dense run, all."""
    dense = branch == "dense"
    return {
        **record(seed % 3, branch, 0 if dense else 1, accuracy), "seed": seed,
        "flops": 200 if dense else 100, "dense_flops": 200, "parameters": 50,
        "kept_parameters": 50 if dense else 20, "train_flops": TRAINED,
        "layer_outputs": DENSE_OUTPUTS, "search_flops": 0.0, "search_seconds": 0.0, **more,
    }  # fmt: skip


def costs(seeds: int = 3, **more: Any) -> list[dict[str, Any]]:
    """Records of three methods: structures trained in two ways; one costs a twentieth to find."""
    found = []
    for seed, (i, name) in product(range(seeds), enumerate(SEARCH)):
        about = {
            "method": name, "when": WHEN[name], "prune.score": name, "trial": f"{name}-{seed}",
            **more,
        }  # fmt: skip
        found.append(structured(seed, "dense", 0.97, **about))
        for j, branch in enumerate(("ticket", "scratch_e")):
            found.append(
                structured(
                    seed, branch, 0.95 - i / 100 - j / 1000 + seed / 1000, **about,
                    search_flops=SEARCH[name], search_seconds=SEARCH[name] / 100,
                )
            )  # fmt: skip
    return found


def trained(
    outputs: dict[str, list[tuple[int, ...]]], method: str = "slimming", **more: Any
) -> list[dict[str, Any]]:
    """Records of structures that are found after more and more training.

    Args:
        outputs: kept outputs of the three convolutions, seed by seed, by rewind point.
    """
    found = []
    for step, (point, rows) in enumerate(outputs.items()):
        for seed, row in enumerate(rows):
            about = {
                "rewind": point, "rewind_step": step, "trial": f"{method}-{point}-{seed}",
                "method": method, "when": "before", "prune.score": method, **more,
            }  # fmt: skip
            kept = {**dict(zip(DENSE_OUTPUTS, row, strict=False)), "output": 4}
            found.append(structured(seed, "dense", 0.97, **about))
            for branch in ("ticket", "scratch_e"):
                found.append(
                    structured(
                        seed, branch, 0.9 + seed / 100, **about, layer_outputs=kept,
                        search_flops=100.0 * step, kept_parameters=20 + seed,
                    )
                )  # fmt: skip
    return found


TRAINED_AXES = ["seed", "prune.score", "rewind"]
NARROWING = {
    "0ep": [(1, 2, 3), (3, 1, 2), (2, 3, 1), (1, 3, 2)],
    "1ep": [(1, 2, 3), (1, 3, 2), (1, 2, 3), (2, 1, 3)],
    "5ep": [(1, 2, 3), (2, 4, 6), (1, 2, 3), (1, 2, 3)],
}
"""Structures of four seeds that are alike after training, and not before."""
