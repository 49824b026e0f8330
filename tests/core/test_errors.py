"""Texts of errors hold no secrets, wherever they are raised and shown."""

import copy

import pytest

from lth_core.errors import LthError, SpecError, StoreError, exception_text
from lth_core.redaction import without_login, without_secrets

ADDRESSES = {
    "http://bob:hunter22@host/x": "http://***@host/x",
    "https://hunter22@host": "https://***@host",
    "postgresql://me:hun/ter22@h/d": "postgresql://***@h/d",
    "s3://KEY:x1/hunter22@bucket/p": "s3://***@bucket/p",
    "http://bob:p@hunter22@host": "http://***@host",
}
PARAMETERS = {
    "http://host/?password=hunter22": "http://host/?password=***",
    "http://host/x?a=1&db_token=hunter22&b=2": "http://host/x?a=1&db_token=***&b=2",
    "https://host/cb#access_token=hunter22": "https://host/cb#access_token=***",
    "s3://bucket/p?secret_key=hun'ter22": "s3://bucket/p?secret_key=***",
    "sqlite:///x.db?Password=hunter22;more": "sqlite:///x.db?Password=***",
    "https://b/o?X-Amz-Signature=hunter22&X-Amz-Credential=a%2Fb&x=1":
        "https://b/o?X-Amz-Signature=***&X-Amz-Credential=***&x=1",
    "http://bob:hunter22@host/?pwd=hunter22": "http://***@host/?pwd=***",
}  # fmt: skip
HARMLESS = ["http://10.0.0.1:5000/a@b", "http://[::1]:5000/a@b", "s3://bucket/me@home", "a@b", "x",
            "http://host/runs/get?run_id=12&max=3", "token=12", "is it so? key: 3"]  # fmt: skip


@pytest.mark.parametrize("address", [*ADDRESSES, *PARAMETERS, *HARMLESS])
def test_password_in_an_address_is_not_shown_and_the_rest_is(address: str) -> None:
    shown = (ADDRESSES | PARAMETERS).get(address, address)
    assert without_secrets(f"at '{address}': failed") == f"at '{shown}': failed"


def test_refused_address_is_shown_from_its_last_at_sign_on() -> None:
    assert without_login("s3://k:a b'c://@/d@bucket/p") == "s3://***@bucket/p"
    assert without_login("k:a b@bucket") == "***@bucket"
    assert without_login("s3://bucket/p") == "s3://bucket/p"


def test_refused_address_is_shown_up_to_its_parameters() -> None:
    assert without_login("http://h/p?a=hunter22") == "http://h/p?***"
    assert without_login("http://h#hunter22") == "http://h#***"
    for both in ("http://u:p?w@h/d", "http://h?mail=me@h&x=hunter22", "http://u:p#w@h?x=@"):
        assert without_login(both) == "http://***"
    assert without_login("u:p?w://@h") == "***"


def test_no_error_shows_a_secret_of_the_environment_or_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    text = "no hunter22 at http://me:pw12@host"
    wrong = SpecError("uri", "must be an address", {"in": ["http://me:pw12@host", "hunter22"]})
    for error in (LthError(text), StoreError(text), wrong, wrong.under("tracking")):
        for each in (error, copy.copy(error)):
            assert "***" in str(each)
            assert "hunter22" not in str(each)
            assert "pw12" not in str(each)


def test_secret_is_hidden_before_a_long_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    for before in range(285, 300):
        assert "hunt" not in exception_text(ValueError("x" * before + "hunter22"))


def test_huge_value_is_cut_and_no_half_of_a_secret_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter22")
    message = str(SpecError("seed", "must be a number", "x" * 295 + "hunter22" + "y" * 10**6))
    assert message.endswith("... (1,000,300 characters)")
    assert len(message) < 400
    assert "hun" not in message
