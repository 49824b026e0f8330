"""LeNet-5 in Caffe's version, which pruning papers use (LeCun et al. 1998, wider)."""

from __future__ import annotations

from torch import nn

from lth_core.models.scale import check_images, check_unused, scaled
from lth_core.spec import ModelSpec

SMALLEST = 16
"""Least pixels a side: two unpadded 5x5 convolutions, each pooled by 2, leave one of 16."""


def lenet_5(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 5x5 convolutions (20 and 50 channels), each followed by max-pooling, then 500 units.

    It has 431,080 parameters on MNIST. Only the 500 units have a ReLU (Caffe,
    examples/mnist/lenet_train_test.prototxt).
    """
    check_unused(spec, "depth", "stem", "widths")
    check_images(spec, shape, SMALLEST)
    first, second, hidden = (scaled(width, spec.width) for width in (20, 50, 500))
    height, width = (((pixels - 4) // 2 - 4) // 2 for pixels in shape[1:])
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(shape[0], first, 5),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(first, second, 5),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(second * height * width, hidden),
        "fc_relu1": nn.ReLU(),
        "dropout1": nn.Dropout(spec.dropout),
        "output": nn.Linear(hidden, classes),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model
