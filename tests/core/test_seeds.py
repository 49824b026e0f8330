import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_core.seeds import derive, generator

paths = st.lists(st.sampled_from(["init", "order", "mask"]) | st.integers(0, 50), max_size=3).map(
    tuple
)


@given(st.integers(0, 2**31), paths, st.integers(0, 2**31), paths)
def test_only_the_same_seed_and_purpose_give_the_same_stream(
    seed: int, purpose: tuple[str | int, ...], other: int, elsewhere: tuple[str | int, ...]
) -> None:
    equal = (seed, purpose) == (other, elsewhere)
    assert (derive(seed, *purpose) == derive(other, *elsewhere)) == equal
    assert 0 <= derive(seed, *purpose) < 2**63


def test_generator_repeats_and_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    draw = torch.rand(5, generator=generator(3, "order", 1))
    assert torch.equal(draw, torch.rand(5, generator=generator(3, "order", 1)))
    assert not torch.equal(draw, torch.rand(5, generator=generator(3, "order", 2)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_streams_are_the_same_on_every_machine() -> None:
    assert derive(0, "init") == 1519069808562059438
