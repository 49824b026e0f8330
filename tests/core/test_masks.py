import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lth_core import masks
from lth_core.masks import Mask

bits = st.lists(st.booleans(), min_size=1, max_size=40)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Two masks of the same two layers."""
    first, second = draw(st.integers(1, 20)), draw(st.integers(1, 20))

    def one() -> Mask:
        return {
            name: torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
            for name, n in (("a.weight", first), ("b.weight", second))
        }

    return one(), one()


def entries(mask: Mask) -> set[tuple[str, int]]:
    """The kept weights, as a set: the slow reference."""
    return {(name, i) for name, m in mask.items() for i, kept in enumerate(m.tolist()) if kept}


@given(pairs())
def test_mask_algebra_is_set_algebra(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    one, other = entries(a), entries(b)
    assert masks.kept(a) == len(one)
    assert masks.density(a) == len(one) / sum(len(m) for m in a.values())
    assert masks.nested(a, b) == (one <= other)
    union = len(one | other)
    assert (
        masks.overlap(a, b) == masks.overlap(b, a) == (len(one & other) / union if union else 1.0)
    )
    assert (masks.digest(a) == masks.digest(b)) == (one == other)


@given(bits)
def test_packed_bits_come_back(flags: list[bool]) -> None:
    mask = torch.tensor(flags)
    packed = masks.pack_bits(mask)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(flags) // 8)
    assert [bool(packed[i // 8] >> (i % 8) & 1) for i in range(len(flags))] == flags
    assert torch.equal(masks.unpack_bits(packed, (len(flags),)), mask)


def test_bits_are_packed_in_c_order_whatever_the_memory_layout() -> None:
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    transposed = mask.t()
    expected = np.packbits(transposed.numpy().copy().ravel(), bitorder="little")
    assert masks.pack_bits(transposed).tolist() == expected.tolist()
    assert torch.equal(masks.unpack_bits(masks.pack_bits(transposed), (5, 3)), transposed)


def test_digest_depends_on_names_and_shapes_but_not_on_order() -> None:
    a, b = torch.tensor([[True, False]]), torch.tensor([True])
    digest = masks.digest({"a": a, "b": b})
    assert digest == masks.digest({"b": b, "a": a.clone()})
    assert digest != masks.digest({"a": a.t(), "b": b})
    assert digest != masks.digest({"c": a, "b": b})


def test_only_linear_and_convolution_weights_are_prunable() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4), nn.PReLU(4), nn.Linear(4, 2)
    )
    full = masks.ones(model)
    assert {name: m.shape for name, m in full.items()} == {
        "0.weight": (4, 3, 3, 3), "4.weight": (2, 4),
    }  # fmt: skip
    assert masks.density(full) == 1.0


@pytest.mark.parametrize(("layer", "parameter"), [("fc1", "fc1.weight"), ("", "weight")])
def test_layer_and_parameter_names_convert_both_ways(layer: str, parameter: str) -> None:
    assert masks.parameter_of(layer) == parameter
    assert masks.layer_of(parameter) == layer


def test_masked_state_is_a_copy_with_exact_zeros() -> None:
    state: dict[str, Tensor] = {"a.weight": torch.tensor([1.0, -2.0, 3.0]), "a.bias": torch.ones(1)}
    copy = masks.masked(state, {"a.weight": torch.tensor([True, False, True])})
    assert copy["a.weight"].tolist() == [1.0, 0.0, 3.0]
    for value in copy.values():
        value.fill_(9)
    assert state["a.weight"].tolist() == [1.0, -2.0, 3.0]
    assert state["a.bias"].tolist() == [1.0]
