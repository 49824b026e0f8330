"""Files beside a ticket in MLflow: they load it, and they show which weights it keeps."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lth_core import DataSpec, ModelSpec, TicketSpec, TrainSpec, find_tickets
from lth_core.ticket import Ticket
from tracking.publish.tickets.files import PICTURE, README, TICKET, first_layer, ticket_files


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    spec = TicketSpec(
        data=DataSpec(fraction=0.1), model=ModelSpec(widths=(8,)), levels=1,
        train=TrainSpec(steps=2, evaluate_every=2), branches=("ticket",),
    )  # fmt: skip
    return list(find_tickets(spec))[1].ticket


def with_mask(ticket: Ticket, shape: tuple[int, ...], kept: torch.Tensor) -> Ticket:
    return replace(ticket, example_shape=shape, mask={"conv.weight": kept, **ticket.mask})


def test_the_readme_beside_a_ticket_loads_it(
    ticket: Ticket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ticket_files(ticket)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", files[README].decode(), re.DOTALL)
    assert len(code.splitlines()) == 2
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["ticket"].digest == ticket.digest
    assert files.keys() == {TICKET, README, PICTURE}


def test_a_pixel_is_as_dark_as_its_kept_weights(ticket: Ticket) -> None:
    kept = torch.zeros(4, 2 * 2 * 3, dtype=torch.bool)
    kept[:3, 0] = True  # the first pixel, first channel: 3 weights
    kept[0, 6] = True  # and second channel: 1
    kept[:2, 5] = True  # the last pixel: 2
    image = first_layer(with_mask(ticket, (2, 2, 3), kept))
    assert image
    assert image.shares.tolist() == [[1, 0, 0], [0, 0, 0.5]]
    assert "darkest: 4 of 8; 2 of 6 pixels keep some" in image.legend


def test_a_kernel_is_a_tile_with_the_share_of_its_inputs(ticket: Ticket) -> None:
    kept = torch.zeros(3, 2, 1, 2, dtype=torch.bool)
    kept[0, :, 0, 0] = True
    kept[2, 1, 0, 1] = True
    image = first_layer(with_mask(ticket, (2, 8, 8), kept))
    assert image
    expected = [[1, 0, None, 0, 0], [None] * 5, [0, 0.5, None, None, None]]
    assert np.where(np.isnan(image.shares), None, image.shares).tolist() == expected
    assert "1 of 3 kernels are empty" in image.legend


@pytest.mark.parametrize("shape", [(64,), (8, 8)])
def test_inputs_that_are_no_images_have_densities_alone(
    ticket: Ticket, shape: tuple[int, ...]
) -> None:
    assert first_layer(replace(ticket, example_shape=shape)) is None
    alone = Image.open(BytesIO(ticket_files(replace(ticket, example_shape=shape))[PICTURE]))
    both = Image.open(BytesIO(ticket_files(ticket)[PICTURE]))
    assert alone.height < both.height
    assert alone.width == both.width
