import pytest
import torch

from lth_core import masks
from lth_core.masks import Mask, chance_overlap
from lth_core.measures.weights import sign_agreement, travel, travel_by_mask


@pytest.mark.parametrize("layers", [[(50, 50, 100)], [(300, 100, 400), (5, 60, 100), (0, 7, 10)]])
def test_chance_overlap_is_the_mean_of_random_masks(layers: list[tuple[int, int, int]]) -> None:
    stream = torch.Generator().manual_seed(0)

    def drawn(place: int) -> masks.Mask:
        return {
            str(i): torch.randperm(layer[2], generator=stream) < layer[place]
            for i, layer in enumerate(layers)
        }

    overlaps = [masks.overlap(drawn(0), drawn(1)) for _ in range(400)]
    assert sum(overlaps) / 400 == pytest.approx(chance_overlap(layers), abs=0.005)


def test_masks_that_keep_nothing_overlap_wholly() -> None:
    assert chance_overlap([(0, 0, 10)]) == masks.overlap({"a": torch.zeros(10).bool()}, {"a": torch.zeros(10).bool()}) == 1  # fmt: skip


# How far weights went

START = {"a": torch.tensor([1.0, -1.0, 2.0, 0.5]), "b": torch.tensor([[1.0], [1.0]])}
END = {"a": torch.tensor([2.0, 1.0, 2.0, 4.5]), "b": torch.tensor([[11.0], [-19.0]])}


def mask_of(**layers: list[int]) -> Mask:
    return {name: torch.tensor(m).bool().view_as(START[name]) for name, m in layers.items()}


MASK = mask_of(a=[1, 1, 1, 0], b=[1, 0])
NOTHING = mask_of(a=[0, 0, 0, 0], b=[0, 0])
EVERYTHING = mask_of(a=[1, 1, 1, 1], b=[1, 1])


def test_travel_is_the_mean_distance_of_the_kept_weights() -> None:
    assert travel(START, END, MASK) == pytest.approx((1 + 2 + 0 + 10) / 4)
    assert travel(START, START, MASK) == 0


def test_travel_in_and_outside_a_mask_weighs_layers_alike() -> None:
    """Layer a: 1 kept on average, 4 pruned, three times; layer b: 10 and 20, once."""
    assert travel_by_mask(START, END, MASK) == pytest.approx(((3 * 1 + 10) / 4, (3 * 4 + 20) / 4))


def test_layer_that_has_not_both_is_left_out_of_the_comparison() -> None:
    for b in ([1, 1], [0, 0]):
        mask = mask_of(a=[1, 1, 1, 0], b=b)
        assert travel_by_mask(START, END, mask) == pytest.approx((1, 4))


def test_pruning_more_of_a_layer_that_moves_far_is_no_difference_in_travel() -> None:
    """Weights of one layer all move alike: the mask says nothing, whatever the layers' densities."""
    still, far = torch.zeros(100), torch.zeros(100)
    start = {"still": still, "far": far}
    end = {"still": still + 1, "far": far + 9}
    mask = {"still": torch.arange(100) < 90, "far": torch.arange(100) < 10}
    inside, outside = travel_by_mask(start, end, mask)
    assert inside == outside == pytest.approx(0.9 * 1 + 0.1 * 9)


def test_sign_agreement_is_the_share_of_kept_weights_with_the_same_sign() -> None:
    assert sign_agreement(START, END, MASK) == 3 / 4  # one crossed zero
    assert sign_agreement(START, END, EVERYTHING) == pytest.approx(4 / 6)
    zero = {name: torch.zeros_like(value) for name, value in START.items()}
    assert sign_agreement(zero, END, MASK) == 0


def test_nothing_kept_has_no_travel_and_no_signs() -> None:
    assert travel(START, END, NOTHING) is None
    assert sign_agreement(START, END, NOTHING) is None
    assert travel_by_mask(START, END, NOTHING) == (None, None)
    assert travel_by_mask(START, END, EVERYTHING) == (None, None)


def test_measures_take_the_distance_in_full_precision_and_leave_the_weights() -> None:
    many = {"a": torch.full((1000, 1000), 0.1)}
    zero = {"a": torch.zeros(1000, 1000)}
    mask = {"a": torch.ones(1000, 1000, dtype=torch.bool)}
    assert travel(zero, many, mask) == pytest.approx(float(torch.tensor(0.1)), rel=1e-7)
    assert (many["a"] == torch.tensor(0.1)).all()


def test_chance_overlap_at_the_ends() -> None:
    assert chance_overlap([(10, 10, 10), (4, 4, 4)]) == 1
    assert chance_overlap([(0, 5, 10)]) == 0
