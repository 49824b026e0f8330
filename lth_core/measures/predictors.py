"""Predictors of a ticket's accuracy: numbers of the dense run at the rewind point.

Each is cheaper than training a ticket. A study shows whether they correlate with ticket accuracy.
The barrier of the dense network, the predictor of Frankle et al. 2020, is in `stability.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_core.jobs.recipes import Context, Job, MaskRecipe, Measure
from lth_core.masks import Mask, State, chance_overlap, counts, overlap
from lth_core.models.derivatives import twice_differentiable
from lth_core.models.layers import train_norms_alone
from lth_core.seeds import generator
from lth_core.train.precision import arithmetic, precise

EXAMPLES = 1000
"""Random training examples on which loss, gradient and curvature are computed."""
STEPS = 100
"""Largest number of Lanczos steps for an eigenvalue."""
ACCURACY = 1e-3
"""Largest error of an eigenvalue, relative to it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AtRewind(Measure):
    """Predictors from the dense run at its rewind point.

    `rewind_distance` is |W_T - W_k|, Euclidean, over the prunable weights, and `rewind_cosine` the
    cosine of the angle between the two. `rewind_sign_agreement` is the share of these weights that
    have their final sign. `rewind_loss`, `rewind_gradient_norm` (over all parameters) and
    `rewind_curvature` (the Hessian's eigenvalue of largest size) are computed without augmentation
    and dropout; batch norm is in training mode.
    """

    kind = "AtRewindPoint"  # that of older stores, AtRewind, has curvatures by power iteration
    columns = (
        "rewind_distance", "rewind_cosine", "rewind_sign_agreement", "rewind_loss",
        "rewind_gradient_norm", "rewind_curvature",
    )  # fmt: skip

    dense: Job
    step: int
    examples: int = EXAMPLES

    def take(self, context: Context) -> dict[str, float | None]:
        start = self.dense.at(self.step).make(context, self.dense)
        end, mask = context.final(self.dense)
        data = context.data(self.dense)
        stream = generator(self.dense.seed, "predictors", self.step)
        index = torch.randperm(len(data.train), generator=stream)[: self.examples]
        examples = data.train.at(index.to(data.train.y.device))
        model = context.network(self.dense, start)
        train_norms_alone(model)

        def loss() -> Tensor:
            return cross_entropy(model(data.normalize(examples.x)), examples.y)

        # In fp32 whatever the training's precision: a second derivative in bf16 is noise.
        with arithmetic("fp32", data.train.x.device), twice_differentiable(model):
            value = loss()
            trained = [p for p in model.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(value, trained, allow_unused=True)
            parameters = [p for p, g in zip(trained, gradients, strict=True) if g is not None]
            return {
                **rewind_distances(start, end, mask),
                "rewind_loss": value.item(),
                "rewind_gradient_norm": _norm([g for g in gradients if g is not None]),
                "rewind_curvature": top_eigenvalue(loss, parameters, stream),
            }


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskStability(Measure):
    """Overlap of the masks of pruning at the rewind point and at the end.

    `rewind_mask_overlap` is the Jaccard overlap of the masks of magnitude pruning at steps k and T.
    `rewind_mask_overlap_chance` is the expected overlap of random masks.
    """

    kind = "MaskStability.2"  # that of older stores counts layers that both masks keep whole
    columns = ("rewind_mask_overlap", "rewind_mask_overlap_chance")

    early: MaskRecipe
    late: MaskRecipe
    job: Job

    def take(self, context: Context) -> dict[str, float | None]:
        early, late = context.mask(self.early, self.job), context.mask(self.late, self.job)
        return {
            "rewind_mask_overlap": overlap(early, late),
            "rewind_mask_overlap_chance": chance_overlap(counts(early, late)),
        }


def rewind_distances(start: State, end: State, mask: Mask) -> dict[str, float | None]:
    """Distance, cosine and sign agreement of two states, over the mask's parameters.

    Args:
        start, end: (out, in, ...) float each, by parameter name.
        mask: names the parameters; pruned weights count too.
    """
    first, last = (torch.cat([state[name].reshape(-1).double() for name in mask])
                   for state in (start, end))  # fmt: skip
    return {
        "rewind_distance": float((last - first).norm()),
        "rewind_cosine": float(first @ last / (first.norm() * last.norm())),
        "rewind_sign_agreement": float((first.sign() == last.sign()).double().mean()),
    }


def top_eigenvalue(
    loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], draws: torch.Generator
) -> float | None:
    """The Hessian's eigenvalue of largest size, by Lanczos steps on Hessian-vector products; None
    if it is not finite or `STEPS` steps do not find it to within `ACCURACY`.

    Power iteration may stop between two eigenvalues of nearly one size and opposite signs. Lanczos
    steps find both ends of the spectrum (Golub & Van Loan 2013, section 10.1).

    Args:
        loss: computes the loss, (), differentiable twice almost everywhere.
        parameters: of any shapes.
        draws: draws the first vector.
    """
    gradient = torch.autograd.grad(loss(), parameters, create_graph=True)
    vector: Sequence[Tensor] = [
        torch.randn(p.shape, generator=draws).to(p.device) for p in parameters
    ]
    length = _norm(vector)
    before, vector, norm = [torch.zeros_like(v) for v in vector], [v / length for v in vector], 0.0
    diagonal, beside = list[float](), list[float]()  # of the tridiagonal matrix
    for _ in range(STEPS):
        # As a sum, not as grad_outputs: for those torch imports its compiler, some 5 s.
        slope = torch.stack([(g * v).sum() for g, v in zip(gradient, vector, strict=True)]).sum()
        product = torch.autograd.grad(slope, parameters, retain_graph=True)
        diagonal.append(_inner(vector, product))
        if not isfinite(diagonal[-1]):
            return None
        terms = zip(product, vector, before, strict=True)
        after = [p - diagonal[-1] * v - norm * b for p, v, b in terms]
        norm = _norm(after)
        values, vectors = np.linalg.eigh(
            np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        )
        ends = [0, -1]
        sizes, errors = np.abs(values[ends]), norm * np.abs(vectors[-1, ends])
        if max(sizes + errors) <= (1 + ACCURACY) * max(sizes):
            return float(values[ends][sizes.argmax()])
        beside.append(norm)
        before, vector = vector, [a / norm for a in after]
    return None


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    pairs = [(x.to(precise(x.device)), y.to(precise(y.device))) for x, y in zip(a, b, strict=True)]
    return float(sum((x * y).sum() for x, y in pairs))


def _norm(vector: Sequence[Tensor]) -> float:
    return sqrt(_inner(vector, vector))
