"""A step as CUDA graphs: on a GPU, the launches of small kernels cost more than their work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lth_core.train.loop import Task
from lth_core.train.masking.base import Fixed

WARM_UP = 3
"""Steps of each batch size before capture: libraries choose algorithms and allocate in them."""

Compute = Callable[[Tensor, Tensor], Tensor]
"""(indices (P, b) int64, augmentation draws (P, b, 3) int64) -> losses (P,)."""


def can_capture(tasks: Sequence[Task]) -> bool:
    """Whether a step of tasks on a GPU is the same computation each time.

    Dropout draws on the CPU, and methods that change a mask decide there.
    """
    return all(
        task.data.train.x.is_cuda
        and type(task.masking) is Fixed
        and not task.draws
        and not task.dropout
        for task in tasks
    )


class StepGraph:
    """The computation of a step, replayed from a CUDA graph for each batch size.

    It holds no reference to what computes, so that the memory of both is freed with the last one.
    Replays read the indices and draws of each step from tensors that are filled before them, and
    learning rates from the optimizer's tensors. Masks are changed in place between replays.
    An epoch's last batch, if it is smaller, has a graph of its own, so that batch norm sees no
    padding.

    Its streams are on torch's current GPU, which `arithmetic` sets.
    """

    def __init__(self) -> None:
        self._side = torch.cuda.Stream()
        self._warm: dict[int, int] = {}
        """Number of steps that ran without a graph, by batch size."""
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = {}
        """Graph, indices, draws and losses, by batch size."""

    def __call__(self, compute: Compute, index: Tensor, draw: Tensor) -> Tensor:
        """Run one step; returns its losses, (P,).

        Args:
            compute: the same in each call.
        """
        size = index.shape[1]
        if self._warm.get(size, 0) < WARM_UP:
            self._warm[size] = self._warm.get(size, 0) + 1
            return self._run(compute, index, draw)
        if size not in self._captured:
            self._captured[size] = self._capture(compute, index.clone(), draw.clone())
        graph, indices, draws, losses = self._captured[size]
        indices.copy_(index)
        draws.copy_(draw)
        graph.replay()
        return losses.clone()

    def _run(self, compute: Compute, index: Tensor, draw: Tensor) -> Tensor:
        """Run a step on a side stream, as capture needs of the steps before it."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            losses = compute(index, draw)
        torch.cuda.current_stream().wait_stream(self._side)
        return losses

    def _capture(
        self, compute: Compute, index: Tensor, draw: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        graph = torch.cuda.CUDAGraph()
        # By default a stream on the GPU of the process's first capture.
        with torch.cuda.graph(graph, stream=self._side):
            losses = compute(index, draw)
        return graph, index, draw, losses
