"""2:4 layers in torch's semi-structured form."""

import pytest
import torch
from semi_structured_nets import two_of_four

from lth_core import ModelSpec, PruneSpec, TicketSpec
from lth_core.errors import SpecError
from lth_core.masks import masked
from lth_core.models.semi_structured import fitting_layers
from lth_core.ticket import Ticket


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
