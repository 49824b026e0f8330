from dataclasses import dataclass, field
from typing import Any

import pytest

from lth_core.errors import CorruptEntryError, SpecError, StoreError, TicketFileError
from lth_core.store import Store
from lth_core.store.decode import check, decoding, read_entry
from lth_core.store.files import MemoryFiles


@dataclass
class Inner:
    sizes: tuple[int, ...]
    pair: tuple[str, int]


@dataclass
class Outer:
    name: str
    share: float | None
    inner: dict[str, Inner]
    notes: dict[str, Any] = field(default_factory=dict)


SOUND: dict[str, Any] = {
    "name": "a", "share": 1, "inner": {"x": {"sizes": [1, 2], "pair": ["b", 3]}}, "notes": {"y": []}
}  # fmt: skip


def test_what_is_of_the_kind_passes() -> None:
    check(SOUND, Outer)
    check({**SOUND, "share": None}, Outer)
    check([0.5, 1, 2.5], list[float])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": 3}, "it.name must be str, but got 3"),
        ({"name": None}, "it.name must be str, but got None"),
        ({"share": "1"}, "it.share must be float, but got '1'"),
        ({"share": True}, "it.share must be float, but got True"),
        ({"share": 10**400}, "it.share must be float"),
        ({"inner": []}, "it.inner must be dict"),
        ({"inner": {"x": {"sizes": [1, 2.5], "pair": ["b", 3]}}}, "it.inner.x.sizes.1 must be int"),
        ({"inner": {"x": {"sizes": [], "pair": ["b"]}}}, "it.inner.x.pair must have 2 values"),
        ({"inner": {"x": {"sizes": []}}}, "it.inner.x.pair must be list, but got None"),
    ],
)
def test_value_of_another_type_is_named_by_its_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(TypeError, match=f"^{place}"):
        check({**SOUND, **change}, Outer)


@pytest.mark.parametrize(
    "error", [KeyError("a"), TypeError(), OverflowError(), RecursionError(), NotImplementedError()]
)
def test_whatever_reading_trips_over_is_one_error_and_ours_stay(error: Exception) -> None:
    message = rf"^x: cannot be read \({type(error).__name__}"
    with pytest.raises(TicketFileError, match=message), decoding("x", TicketFileError):
        raise error
    with pytest.raises(StoreError, match=r"^gone$"), decoding("x"):
        raise StoreError("gone")


def test_entry_that_cannot_be_decoded_is_missing_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    store.put("k", "d", {"a": 1})
    assert read_entry(store, "k", "none", lambda entry: 1) is None
    assert caplog.messages == []
    assert read_entry(store, "k", "d", lambda entry: entry.meta["a"]) == 1
    assert read_entry(store, "k", "d", lambda entry: entry.meta["b"]) is None

    def refuse(_: object) -> None:
        raise SpecError("levels", "must be less", 3)

    assert read_entry(store, "k", "d", refuse) is None
    assert caplog.messages == [
        "store: k/d: cannot be read (KeyError: 'b'); it counts as missing (`lth store verify --remove` removes it)",
        "store: k/d: levels: must be less, but got 3; it counts as missing (`lth store verify --remove` removes it)",
    ]


def test_store_that_is_away_is_no_entry_that_is_missing() -> None:
    class Gone(MemoryFiles):
        def read(self, path: str) -> bytes | None:
            raise StoreError("store: it is away")

    with pytest.raises(StoreError, match="it is away") as raised:
        read_entry(Store(Gone()), "k", "d", lambda entry: 1)
    assert not isinstance(raised.value, CorruptEntryError)
