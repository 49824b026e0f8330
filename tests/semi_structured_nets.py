"""A network with 2 of every 4 weights, without what a bare GPU machine lacks."""

from torch import nn

from lth_core import ModelSpec, models
from lth_core.masks import Mask, ones
from lth_core.prune.structure import highest_n_of_m
from lth_core.seeds import generator


def two_of_four(widths: tuple[int, ...]) -> tuple[nn.Module, Mask]:
    """An mlp on 64 features with half of its weights, 2 of every 4."""
    model = models.build(ModelSpec(widths=widths), (1, 8, 8), 10, generator(0, "init"))
    mask = {
        name: highest_n_of_m(
            model.get_parameter(name).detach().abs(), kept, 2, 4, generator(0, "x")
        )
        for name, kept in ones(model).items()
    }
    for name, kept in mask.items():
        model.get_parameter(name).data *= kept
    return model, mask
