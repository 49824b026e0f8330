"""Names in MLflow: whatever a user's layers are called, MLflow takes them, each under its own."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracking.publish.names import LONGEST, entry_name

pytestmark = pytest.mark.mlflow

PARTS = st.sampled_from(
    ["", ".", "..", "...", "a", "..a", " ", "-", ":", "é", "²", "\n", "\x00", "a" * 99]
)
NAMES = st.one_of(
    st.text(max_size=LONGEST + 9),
    st.text("a/.", max_size=9),
    st.lists(PARTS, max_size=6).map("/".join),
    st.characters(categories=["Cs"]),  # halves of surrogate pairs, which have no UTF-8
)


@pytest.mark.long
@given(NAMES)
@example("")
@example("/")
@example("a/")
@example("fc\n")
@example("x" * 251)
def test_mlflow_takes_every_name(name: str) -> None:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.validation import _validate_batch_log_data

    for mapped in (
        entry_name(name),
        entry_name(f"layer_density/{name}"),
        entry_name(f"axis.{name}"),
    ):
        _validate_batch_log_data(
            [Metric(mapped, 0.5, 1, 0)], [Param(mapped, "")], [RunTag(mapped, "")]
        )
        assert len(mapped) <= LONGEST
        assert "\n" not in mapped
        mapped.encode()


@given(NAMES, NAMES)
@example("a b", "a:b")
@example("x" * 300, "x" * 301)
@example("a//b", "a/_/b")
def test_no_two_names_become_one(first: str, second: str) -> None:
    mapped = {entry_name(name) for name in (first, second, entry_name(first), entry_name(second))}
    unmapped = {first, second, entry_name(first), entry_name(second)}
    assert len(mapped) == len(unmapped)


@pytest.mark.parametrize(
    "name",
    [
        "fc1",
        "block.self_attn.in_proj_weight",
        "layer_density/conv1",
        "a b",
        "größe",
        "a/...",
        "x" * 250,
    ],
)
def test_a_name_that_mlflow_takes_stays(name: str) -> None:
    assert entry_name(name) == name


def test_a_replacement_can_be_read_and_never_changes() -> None:
    assert entry_name("layer_density/") == "layer_density/_-23a1d6af9877f3b1"
    assert entry_name("body//0:conv") == "body/_/0_conv-0c0a0455660da7d0"
    assert entry_name("../" + "x" * 300) == ("_/" + "x" * 300)[:233] + "-5e70cc0b69d5c4cd"
