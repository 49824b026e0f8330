"""What errors say: no secrets, whoever makes them and wherever they are shown."""

import copy

import pytest

from lth_core.errors import LthError, SpecError, StoreError
from lth_core.reading import in_short
from lth_core.secrets import without_login, without_secrets

ADDRESSES = {
    "http://bob:hunter22@host/x": "http://***@host/x",
    "https://hunter22@host": "https://***@host",
    "postgresql://me:hun/ter22@h/d": "postgresql://***@h/d",
    "s3://KEY:x1/hunter22@bucket/p": "s3://***@bucket/p",
    "http://bob:p@hunter22@host": "http://***@host",
}
HARMLESS = ["http://10.0.0.1:5000/a@b", "http://[::1]:5000/a@b", "s3://bucket/me@home", "a@b", "x"]


@pytest.mark.parametrize("address", [*ADDRESSES, *HARMLESS])
def test_password_in_an_address_is_not_shown_and_the_rest_is(address: str) -> None:
    shown = ADDRESSES.get(address, address)
    assert without_secrets(f"at '{address}': failed") == f"at '{shown}': failed"


def test_refused_address_is_shown_from_its_last_at_sign_on() -> None:
    assert without_login("s3://k:a b'c://@/d@bucket/p") == "s3://***@bucket/p"
    assert without_login("k:a b@bucket") == "***@bucket"
    assert without_login("s3://bucket/p") == "s3://bucket/p"


def test_no_error_says_a_secret_of_the_environment_or_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    said = "no hunter22 at http://me:pw12@host"
    wrong = SpecError("uri", "must be an address", {"in": ["http://me:pw12@host", "hunter22"]})
    for error in (LthError(said), StoreError(said), wrong, wrong.under("tracking")):
        for each in (error, copy.copy(error)):
            assert "***" in str(each)
            assert "hunter22" not in str(each)
            assert "pw12" not in str(each)


def test_secret_is_hidden_before_a_long_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    for before in range(185, 200):
        assert "hunt" not in in_short(ValueError("x" * before + "hunter22"))


def test_huge_value_is_cut_and_no_half_of_a_secret_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    said = str(SpecError("seed", "must be a number", "x" * 295 + "hunter22" + "y" * 10**6))
    assert said.endswith("... (1,000,300 characters)")
    assert len(said) < 400
    assert "hun" not in said
