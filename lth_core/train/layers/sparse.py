"""Linear layers of their kept weights alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SparseLinear(nn.Module):
    """A linear layer of the kept weights of another.

    Args:
        linear: the layer, on a CPU, whose pruned weights are 0.
        mask: (outputs, inputs) bool; True is kept.
    """

    def __init__(self, linear: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(linear.weight.detach()[mask])
        """(kept,) in the order of the rows."""
        self.bias = linear.bias
        self.pattern = Pattern(mask, linear.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., outputs) from (..., inputs)."""
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = _Product.apply(rows, self.values, self.bias, self.pattern)
        return y.view(*x.shape[:-1], -1) if x.dim() != 2 else y


class Pattern:
    """Places of the kept weights of a layer.

    Args:
        mask: (outputs, inputs) bool; True is kept.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        with warnings.catch_warnings():  # torch warns once that sparse matrices are new
            warnings.simplefilter("ignore")
            self._rows, self._columns = _places(mask), _places(mask.t())
            self.ones = self.matrix(torch.ones(int(mask.sum()), dtype=dtype))
        numbers = torch.zeros(mask.shape, dtype=torch.int64)
        numbers[mask] = torch.arange(int(mask.sum()))
        self._order = numbers.t()[mask.t()]
        """(kept,) position of each weight in the order of the columns."""

    def matrix(self, values: Tensor) -> Tensor:
        """The kept weights (kept,) as a sparse matrix (outputs, inputs)."""
        return torch.sparse_csr_tensor(*self._rows[:2], values, self._rows[2])

    def transposed(self, values: Tensor) -> Tensor:
        """The kept weights (kept,) as a sparse matrix (inputs, outputs)."""
        ordered = values.index_select(0, self._order)
        return torch.sparse_csr_tensor(*self._columns[:2], ordered, self._columns[2])


def _places(mask: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Ends of the rows, columns of the entries and shape of a sparse matrix (rows, columns)."""
    matrix = mask.float().to_sparse_csr()
    return matrix.crow_indices().int(), matrix.col_indices().int(), mask.shape


SparseBackward = Callable[[Tensor, bool], tuple[Tensor | None, Tensor, Tensor | None]]
"""(gradient of the output, whether that of x is needed) -> gradients of x, values and bias."""


def sparse_product(
    x: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern
) -> tuple[Tensor, SparseBackward]:
    """(b, outputs) from x (b, inputs), values (kept,) and bias (outputs,), and its backward pass.

    torch multiplies sparse matrices from the left, so batches are transposed in between.
    """
    columns = x.t().contiguous()

    def backward(slope: Tensor, of_x: bool) -> tuple[Tensor | None, Tensor, Tensor | None]:
        slopes = slope.t().contiguous()
        at_kept = torch.sparse.sampled_addmm(pattern.ones, slopes, columns.t(), beta=0.0)
        return (
            (pattern.transposed(values) @ slopes).t() if of_x else None,
            at_kept.values(),
            None if bias is None else slopes.sum(1),
        )

    y = pattern.matrix(values) @ columns
    return (y if bias is None else y.add_(bias[:, None])).t(), backward


class _Product(torch.autograd.Function):
    """`sparse_product`: x, values, bias, pattern -> (b, outputs)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern
    ) -> Tensor:
        y, ctx.run_backward = sparse_product(x, values, bias, pattern)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return *ctx.run_backward(slope, ctx.needs_input_grad[0]), None


def sparse_layers(model: nn.Module) -> list[str]:
    """Names of a network's layers that are computed with their kept weights alone."""
    return [name for name, module in model.named_modules() if isinstance(module, SparseLinear)]
