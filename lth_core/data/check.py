"""Checks of a user's dataset, made once when it is loaded or planned."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lth_core.data.dataset import Dataset, Split, example_mean_std
from lth_core.errors import DataError, exception_text

EXACT = 2**24
"""Integers up to this size are exact in float32."""

MOST_LOST = 0.01
"""Largest rounding error of a feature in float32, in standard deviations."""

CHANNELS = (1, 3, 4)
"""Usual numbers of channels of an image."""


def check_dataset(dataset: object, name: str) -> Dataset:
    """A factory's dataset as training needs it, converted only where that is exact.

    Arrays and lists become tensors, integer labels int64 of shape (n,), and integer features other
    than uint8 float32. A validation part may be None or empty: then there is none.

    Args:
        name: ``package.module:factory``, for errors.

    Raises:
        DataError: a part breaks a rule; the text names the factory, the part, the rule and the
            value.
    """
    where = f"data.name: {name}"
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"{where} must return lth_core.data.Dataset, but got {type(dataset).__name__}"
        )
    if dataset.per_image:
        raise _error(f"{where}: per_image", "must be False: data.normalize sets it", True)
    classes = _classes(f"{where}: classes", dataset.classes)
    train = _part(f"{where}: train", dataset.train, classes)
    test = _part(f"{where}: test", dataset.test, classes)
    if _is_absent(dataset.validation):
        validation = train.at(torch.arange(0))
    else:
        validation = _part(f"{where}: validation", dataset.validation, classes)
    for part, split in (("test", test), ("validation", validation)):
        _check_like_train(f"{where}: {part}.x", split.x, train.x)
    mean = _scale(f"{where}: mean", dataset.mean, train.x)
    std = _scale(f"{where}: std", dataset.std, train.x)
    if not (std > 0).all():
        raise _error(f"{where}: std", "must be above 0", f"{std.min():g}")
    _check_units(where, train.x, mean, std)
    for part, split in (("train", train), ("test", test), ("validation", validation)):
        _check_rounding(f"{where}: {part}.x", split.x, std)
    return Dataset(train, validation, test, mean, std, classes)


def _is_absent(part: object) -> bool:
    """Whether a part is None or a split without examples and labels."""
    if isinstance(part, Split):
        return _has_no_rows(part.x) and _has_no_rows(part.y)
    return part is None


def _has_no_rows(value: object) -> bool:
    return (
        value is None
        or (isinstance(value, list) and not value)
        or tuple(getattr(value, "shape", ()))[:1] == (0,)
    )


def _error(where: str, rule: str, got: object) -> DataError:
    return DataError(f"{where} {rule}, but got {got}")


def _classes(where: str, value: Any) -> int:
    try:
        classes = operator.index(value)
    except TypeError:
        raise _error(where, "must be an integer", repr(value)) from None
    if classes < 1:
        raise _error(where, "must be at least 1", classes)
    return classes


def _part(where: str, split: object, classes: int) -> Split:
    if not isinstance(split, Split):
        raise _error(where, "must be a lth_core.data.Split", type(split).__name__)
    x, y = _features(f"{where}.x", split.x), _labels(f"{where}.y", split.y, classes)
    if len(x) != len(y):
        raise _error(where, "must have one label an example", f"{len(x)} in x and {len(y)} in y")
    if not len(x):
        raise _error(where, "must have examples", "none")
    return Split(x, y)


def _features(where: str, value: object) -> Tensor:
    """Features (n, ...), uint8 or float, finite."""
    x = _tensor(where, value)
    shape = tuple(x.shape)
    if x.dim() < 2 or 0 in shape[1:]:
        raise _error(where, "must be (n, features) or (n, channels, height, width)", shape)
    if x.is_complex():
        raise _error(where, "must be real", x.dtype)
    if x.dim() == 4 and _looks_channels_last(x):
        rule = "must be (n, channels, height, width): x.permute(0, 3, 1, 2) moves the channels"
        raise _error(where, rule, shape)
    if x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64):
        x = x.float()  # numpy has no bfloat16
    if x.is_floating_point():
        slices = x.split(4096)
        wrong = sum(int((~part.float().isfinite()).sum()) for part in slices)
        if wrong:
            rows = sum(int((~part.float().isfinite()).flatten(1).any(1).sum()) for part in slices)
            rule = "must be finite as float32"
            raise _error(
                where, rule, f"{wrong} values that are not, in {rows} of {len(x)} examples"
            )
    elif x.dtype != torch.uint8:
        x = x.long()
        if x.numel() and max(-int(x.min()), int(x.max())) > EXACT:
            rule = f"must be uint8, float, or integers up to {EXACT:,}"
            raise _error(where, rule, f"{x.min()} to {x.max()}")
        x = x.float()
    return x


def _looks_channels_last(x: Tensor) -> bool:
    """Whether images (n, height, width, channels) are likely; a square or uint8 is an image."""
    first, second, last = x.shape[1:]
    image = x.dtype == torch.uint8 or first == second
    return image and last in CHANNELS and first not in CHANNELS and second not in CHANNELS


def _labels(where: str, value: object, classes: int) -> Tensor:
    """Labels (n,) int64 in 0..classes-1."""
    y = _tensor(where, value)
    if y.dim() == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dim() == 2:
        rule = "must be the number of each example's class, (n,): y.argmax(1) gives it of one-hot"
        raise _error(where, rule, tuple(y.shape))
    if y.dim() != 1:
        raise _error(where, "must be (n,)", tuple(y.shape))
    if y.is_floating_point() or y.is_complex():
        raise _error(where, "must be integers: y.long() converts whole numbers", y.dtype)
    y = y.long()
    wrong = y[(y < 0) | (y >= classes)]
    if len(wrong):
        values = ", ".join(map(str, wrong.unique()[:5].tolist()))
        rule = f"must be in 0..{classes - 1}, a class for every example"
        raise _error(where, rule, f"{len(wrong)} others of {len(y)}: {values}")
    return y


def _tensor(where: str, value: object) -> Tensor:
    """A value as a dense tensor on the CPU, of the same numbers."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise _error(where, "must be dense: x.to_dense() converts", value.layout)
        return value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _error(where, "must be a tensor or an array", exception_text(error)) from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        got = f"{type(value).__name__} of {array.dtype}"
        raise _error(where, "must be a tensor or an array of numbers", got)
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise _error(where, "must be less than 2^63", array.max())
    # A copy in the machine's byte order: torch refuses others, and views with negative strides.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _check_like_train(where: str, x: Tensor, train: Tensor) -> None:
    if x.shape[1:] != train.shape[1:]:
        rule = f"must have examples of the train part's shape {tuple(train.shape[1:])}"
        raise _error(where, rule, tuple(x.shape[1:]))
    if (x.dtype == torch.uint8) != (train.dtype == torch.uint8):
        raise _error(where, f"must be {train.dtype} as in the train part", x.dtype)


def _scale(where: str, value: object, x: Tensor) -> Tensor:
    """Mean or deviation as float32, broadcastable to examples x (n, ...)."""
    scale = _tensor(where, value)
    if scale.is_complex() or not scale.float().isfinite().all():
        raise _error(where, "must be real and finite", scale.flatten()[:5].tolist())
    one = (1, *x.shape[1:])
    try:
        fits = tuple(torch.broadcast_shapes(scale.shape, one)) == one
    except RuntimeError:
        fits = False
    if not fits:
        rule = f"must be broadcastable to one example {one[1:]}"
        if x.dim() == 4:
            rule += f", such as ({one[1]}, 1, 1)"
        raise _error(where, rule, tuple(scale.shape))
    return scale.float().reshape(scale.shape or (1,))


def _check_rounding(where: str, x: Tensor, std: Tensor) -> None:
    """Refuse features that float32, in which they are normalized, cannot tell apart, as times in
    seconds since 1970."""
    if x.dtype != torch.float64:
        return
    lost = max(
        (float(((part - part.float()) / std).abs().max()) for part in x.split(4096) if len(part)),
        default=0.0,
    )
    if lost > MOST_LOST:
        rule = f"must keep {MOST_LOST} deviations apart as float32: subtract the mean before"
        raise _error(where, rule, f"{lost:.3g}")


def _check_units(where: str, x: Tensor, mean: Tensor, std: Tensor) -> None:
    """Refuse mean and deviation of pixels in 0..1 beside pixels in 0..255."""
    if x.dtype != torch.uint8:
        return
    true = [value.flatten() for value in example_mean_std(x)]
    for values, expected in zip((mean, std), true, strict=True):
        if values.numel() not in (1, len(expected)):
            return
        if not torch.allclose(values.flatten() * 255, expected, rtol=0.2, atol=0.5):
            return
    rule = f"must be in the units of x, as {true[0].mean():.4g} and {true[1].mean():.4g} on average"
    raise _error(f"{where}: mean and std", rule, f"{mean.mean():.4g} and {std.mean():.4g}")
