"""A GPU by label: tensors of the CPU that say they are on a GPU, and may not meet the others.

It finds what a real GPU would refuse, on a machine without one: a tensor that is made or left on the
other device, a generator of the CPU on the GPU, `numpy()` of a tensor on the GPU. All is computed on
the CPU, so that backward passes, optimizers and whole searches run. torch's own FakeTensorMode has no
values, and no backward pass on "cuda" without a GPU.

A label belongs to a storage, so views share it. What an operation makes has the label of its inputs.

A CUDA graph is a list of the operations of its capture. A replay runs them again on the same tensors, so
what the capture took from Python, such as a learning rate, stays as it was.

Tensors lie on GPU 0, whichever is torch's current one. As in torch, a capture sees the operations on the
GPU of its stream, which is by default the GPU that was current at the process's first capture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU = "cpu"
EITHER = "either"
"""Label of a tensor that torch made for itself, on the device that it needs."""

COPIES = {"copy_", "_to_copy", "_foreach_copy_", "set_", "item", "_local_scalar_dense"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations whose index may be on the CPU."""


WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2"}
"""Operations for whose result the CPU waits, which a CUDA graph cannot."""


class WrongDeviceError(RuntimeError):
    """Tensors, or a tensor and a generator, are on two devices."""


class CaptureError(RuntimeError):
    """A CUDA graph cannot hold an operation."""


class Labels:
    """Label of each storage, by address; a weak reference keeps an address from being used again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, str]] = {}

    def of(self, tensor: Tensor) -> str:
        found = self._known.get(tensor.untyped_storage()._cdata)
        return found[1] if found else CPU

    def set(self, tensor: Tensor, label: str) -> None:
        if label == "mps" and tensor.dtype == torch.float64:
            raise WrongDeviceError("float64: mps has none")
        if len(self._known) > 10_000:
            self._known = {k: v for k, v in self._known.items() if not v[0].expired()}
        storage = tensor.untyped_storage()
        self._known[storage._cdata] = StorageWeakRef(storage), label


def tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Graph:
    """A CUDA graph. A capture computes nothing; here it computes the first replay."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any, bool]] = []
        """(function, arguments, named arguments, outputs, whether gradients were on) of each."""
        self._replays = 0

    def replay(self) -> None:
        self._replays += 1
        if self._replays == 1:
            return
        for function, args, kwargs, outputs, gradients in self.operations:
            with torch._C._AutoDispatchBelowAutograd(), torch.set_grad_enabled(gradients):
                again = function(*args, **kwargs)
                for output, value in zip(tensors_in(outputs), tensors_in(again), strict=True):
                    if output.untyped_storage()._cdata != value.untyped_storage()._cdata:
                        output.copy_(value)


class _Gpus:
    """The current one of several GPUs, and the one on which a capture is by default."""

    def __init__(self, current: int) -> None:
        self.current = self.captures = current

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before = self.current
        self.current = before if device.index is None else device.index
        try:
            yield
        finally:
            self.current = before

    def stream(self, device: torch.device | None = None) -> _Stream:
        return _Stream(self.current if device is None else device.index)


class _Stream:
    def __init__(self, gpu: int) -> None:
        self.gpu = gpu

    def wait_stream(self, other: _Stream) -> None:
        if self.gpu != other.gpu:
            raise WrongDeviceError("wait_stream: the streams are on two GPUs")


class _Operations(TorchDispatchMode):
    """Checks the labels of each operation's inputs, below autograd, and labels its outputs."""

    def __init__(self, labels: Labels, calls: _Calls, gpus: _Gpus) -> None:
        super().__init__()
        self.labels, self.calls, self.gpus = labels, calls, gpus
        self.graph: Graph | None = None
        """The graph that is captured."""

    @contextmanager
    def capture(self, graph: Graph, stream: _Stream | None = None) -> Iterator[None]:
        if (stream.gpu if stream else self.gpus.captures) != 0:
            raise CaptureError("the captured operations are on another GPU than the stream")
        self.graph = graph
        try:
            yield
        finally:
            self.graph = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        inputs = tensors_in((args, kwargs))
        label = self._common(name, args, inputs)
        generator = kwargs.get("generator")
        if generator is not None and label not in (CPU, EITHER):
            raise WrongDeviceError(f"{name}: a generator of the CPU cannot draw on {label}")
        if self.graph and (name in WAITS or label == CPU or (
            name in COPIES and {self.labels.of(t) for t in inputs} & {CPU}
        )):  # fmt: skip
            raise CaptureError(f"{name}: a CUDA graph cannot wait for the CPU, or read from it")
        output = func(*args, **kwargs)
        if self.graph:
            self.graph.operations.append((func, args, kwargs, output, torch.is_grad_enabled()))
        known = {t.untyped_storage()._cdata for t in inputs}
        for tensor in tensors_in(output):
            if tensor.untyped_storage()._cdata not in known:
                self.labels.set(tensor, label)
        return output

    def _common(self, name: str, args: Any, inputs: list[Tensor]) -> str:
        """The label of an operation's inputs."""
        if not inputs:
            return self.calls.making or (EITHER if self.calls.has_tensors else CPU)
        if name in COPIES:
            return self.labels.of(inputs[0])
        if name.startswith("_fused"):
            inputs = tensors_in([each for each in args if isinstance(each, list | tuple)])
        if name in INDEXED and self.labels.of(args[0]) != CPU:
            inputs = [args[0], *tensors_in(args[2:])]
        labels = {
            self.labels.of(t)
            for t in inputs
            # As on a GPU: a single number of the CPU may meet anything, but the fused optimizers' steps.
            if t.dim() or self.labels.of(t) != CPU or name.startswith("_fused")
        } - {EITHER}
        if len(labels) > 1:
            shapes = ", ".join(f"{tuple(t.shape)} on {self.labels.of(t)}" for t in inputs)
            raise WrongDeviceError(f"{name}: tensors are on two devices: {shapes}")
        return labels.pop() if labels else self.labels.of(inputs[0])


class _Calls(TorchFunctionMode):
    """Gives what code asks of a tensor's device, or asks for, by label."""

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels
        self.has_tensors = False
        """Whether the call in progress has a tensor among its arguments."""
        self.making: str | None = None
        """The device on which the call in progress makes a tensor, if it names one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        before, self.has_tensors = self.has_tensors, bool(tensors_in((args, kwargs)))
        try:
            return self._call(func, args, kwargs)
        finally:
            self.has_tensors = before

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func == torch.Tensor.device.__get__:
            label = self.labels.of(args[0])
            return torch.device(CPU) if label in (CPU, EITHER) else torch.device(label, 0)
        if func == torch.Tensor.is_cuda.__get__:
            return self.labels.of(args[0]) == "cuda"
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and self.labels.of(args[0]) != CPU:
            raise WrongDeviceError("numpy: a tensor on a GPU must be copied to the CPU first")
        if func is torch.Tensor.cpu:
            return self._moved(args[0], CPU)
        if func is torch.Tensor.cuda:
            return self._moved(args[0], "cuda")
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if func is torch.Tensor.__deepcopy__:  # it copies the storage itself
            copied = func(*args, **kwargs)
            self.labels.set(copied, self.labels.of(args[0]))
            return copied
        if kwargs.get("device") is not None:
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The tensor that a function makes on the device that it is given."""
        label = torch.device(kwargs["device"]).type
        if kwargs.get("generator") is not None and label != CPU:
            raise WrongDeviceError(
                f"{func.__name__}: a generator of the CPU cannot draw on {label}"
            )
        self.making = label
        try:
            made = func(*args, **{**kwargs, "device": CPU})
        finally:
            self.making = None
        if any(made is each for each in tensors_in(args)):  # `torch.as_tensor` of a tensor
            return self._moved(made, label)
        self.labels.set(made, label)
        return made

    def _to(self, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            kwargs |= {"device": self.labels.of(args[0]), "dtype": args[0].dtype}
            args = ()
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        label = self.labels.of(tensor) if device is None else device.type
        converted = torch.Tensor.to(
            tensor, dtype or tensor.dtype, copy=copy,
            memory_format=layout or torch.preserve_format,
        )  # fmt: skip
        return self._moved(converted, label)

    def _moved(self, tensor: Tensor, label: str) -> Tensor:
        if self.labels.of(tensor) == label:
            return tensor
        moved = tensor.clone(memory_format=torch.preserve_format)
        self.labels.set(moved, label)
        return moved


def _flatten_parameters(layer: torch.nn.RNNBase) -> None:
    """Move a recurrent layer's weights into one block of a GPU, as cuDNN does (ATen/cudnn/RNN.cpp)."""
    weights = layer._flat_weights
    if not all(isinstance(w, Tensor) and _LABELS.of(w) == "cuda" for w in weights):
        return
    with torch._C._AutoDispatchBelowAutograd(), torch._C._ExcludeDispatchKeyGuard(_IN_PLACE):
        block, start = weights[0].new_zeros(sum(w.numel() for w in weights)), 0
        for weight in weights:
            part = block[start : start + weight.numel()].view(weight.shape)
            weight.set_(part.copy_(weight))
            start += weight.numel()


_IN_PLACE = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
_LABELS = Labels()
"""Of all blocks of a process: datasets stay in lth_core's cache from one to the next."""


@contextmanager
def gpu_by_label(current: int = 0) -> Iterator[None]:
    """A block in which "cuda" and "mps" are devices of labels.

    Args:
        current: number of torch's current GPU.
    """
    calls, autocast, gpus = _Calls(_LABELS), torch.autocast, _Gpus(current)
    operations = _Operations(_LABELS, calls, gpus)
    patches: list[tuple[Any, str, Any]] = [
        (torch, "autocast", lambda kind, *args, **kwargs: autocast(CPU, *args, **kwargs)),
        (torch.backends.cudnn, "is_acceptable", lambda tensor: False),
        (torch.nn.RNNBase, "flatten_parameters", _flatten_parameters),
        (torch.cuda, "get_device_name", lambda device=None: "a label"),
        (torch.cuda, "synchronize", lambda device=None: None),
        (torch.cuda, "mem_get_info", lambda device=None: (1, 1)),
        (torch.cuda, "device", gpus.device),
        (torch.cuda, "Stream", gpus.stream),
        (torch.cuda, "current_stream", gpus.stream),
        (torch.cuda, "stream", lambda stream: nullcontext()),
        (torch.cuda, "CUDAGraph", Graph),
        (torch.cuda, "graph", operations.capture),
    ]
    with ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(patch.object(owner, name, value))
        stack.enter_context(operations)
        stack.enter_context(calls)
        yield
