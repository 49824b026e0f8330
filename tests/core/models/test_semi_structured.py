"""2:4 layers in torch's semi-structured form."""

import pytest
import torch
from torch import nn

from lth_core import ModelSpec, PruneSpec, TicketSpec, models
from lth_core.errors import SpecError
from lth_core.masks import Mask, masked, ones
from lth_core.models.semi_structured import fitting_layers
from lth_core.prune.structure import highest_n_of_m
from lth_core.seeds import generator
from lth_core.ticket import Ticket


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


def test_layers_of_fitting_sizes_with_two_of_four_weights_have_the_form() -> None:
    model, mask = two_of_four((64, 33, 128))
    assert fitting_layers(model, mask) == ["fc1"]  # 33 x 64, 128 x 33 and 10 x 128 have no kernel
    model, mask = two_of_four((64, 32))
    assert fitting_layers(model, mask) == ["fc1", "fc2"]
    mask["fc1.weight"][3, 4:7] = True
    assert fitting_layers(model, mask) == ["fc2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_machine_without_such_a_gpu_is_refused() -> None:
    model, mask = two_of_four((64,))
    ticket = Ticket(
        spec=TicketSpec(model=ModelSpec(widths=(64,)), prune=PruneSpec(structure="2:4", fraction=0.5), levels=1),
        level=1, branch="ticket", rewind_step=0, mask=mask, example_shape=(1, 8, 8), classes=10,
        start=masked(dict(model.state_dict()), mask),
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"device: must be a GPU of compute capability 8.0 or high"):
        ticket.semi_structured()
