"""LeNet-5 in Caffe's version, which pruning papers use (LeCun et al. 1998, wider)."""

from __future__ import annotations

from torch import nn

from lth_core.models.scale import images, refuse, scaled
from lth_core.spec import ModelSpec

SMALLEST = 16
"""Pixels a side of which two unpadded 5x5 convolutions, each pooled by 2, leave one."""


def lenet_5(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """20 and 50 channels of 5x5, each max-pooled, then 500 units: 431,080 parameters on MNIST.

    Only the 500 units are rectified (Caffe, examples/mnist/lenet_train_test.prototxt).
    """
    refuse(spec, "depth", "stem")
    images(spec, shape, SMALLEST)
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
