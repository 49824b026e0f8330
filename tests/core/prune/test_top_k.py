import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lth_core.prune import lowest
from lth_core.prune.top_k import kth_lowest, kth_lowest_of_rows

# Few values, so that most draws have ties.
scores = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=40)


def chosen(values: list[float], k: int, seed: int = 0) -> set[int]:
    picked = lowest(torch.tensor(values), k, torch.Generator().manual_seed(seed))
    return set(picked.nonzero().squeeze(1).tolist())


@given(scores, st.data())
def test_lowest_chooses_exactly_k_and_none_above_one_it_leaves(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(values)))
    picked = chosen(values, k)
    assert len(picked) == k
    assert sorted(values[i] for i in picked) == sorted(values)[:k]


@given(scores, st.data())
def test_fewer_chosen_are_among_more_chosen_with_the_same_seed(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(values)))
    assert chosen(values, data.draw(st.integers(0, k))) <= chosen(values, k)


def test_ties_fall_by_the_seed_not_by_position() -> None:
    tied = [1.0] * 100
    picked = chosen(tied, 50, seed=1)
    assert picked == chosen(tied, 50, seed=1)
    assert picked != chosen(tied, 50, seed=2)
    # By position, all or none of the first half would go.
    assert 10 < len(picked & set(range(50))) < 40


@pytest.mark.parametrize("k", [-1, 4])
def test_more_than_there_are_cannot_be_chosen(k: int) -> None:
    with pytest.raises(AssertionError):
        chosen([1.0, 2.0, 3.0], k)


@given(
    values=st.lists(st.floats(0, 4, width=32) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1),
    near=st.tuples(st.floats(0, 5) | st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 2)),
    double=st.booleans(),
    data=st.data(),
)
def test_kth_lowest_is_the_same_whatever_the_range(
    values: list[float], near: tuple[float, float], double: bool, data: st.DataObject
) -> None:
    scores = torch.tensor(values, dtype=torch.float64 if double else torch.float32)
    k, within = data.draw(st.integers(1, len(values))), (near[0], sum(near))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_core.prune.top_k.LARGE", 1)
        assert kth_lowest(scores, k, within) == sorted(scores.tolist())[k - 1]
    assert kth_lowest(scores, k) == sorted(scores.tolist())[k - 1]


@pytest.mark.parametrize("large", [1, 4096])
def test_each_row_has_its_own_kth_lowest(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lth_core.prune.top_k.LARGE", large)
    scores, ks = torch.rand(5, 20, generator=torch.Generator().manual_seed(0)), [3, 3, 20, 1, 3]
    near = [(0.1, 0.3), None, (0.9, 1.0), (0.5, 0.6), (0.0, 1.0)]
    found = kth_lowest_of_rows(scores, ks, near)
    assert found.tolist() == [row.sort().values[k - 1] for row, k in zip(scores, ks, strict=True)]
