from pathlib import Path

import pytest

from lth_core.errors import SpecError
from lth_core.factories import load_factory, source_fingerprint


def test_factory_is_the_callable_named() -> None:
    from toys import colours

    assert load_factory("data.name", "toys:colours") is colours


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:net", "cannot be imported"),
        ("toys.deeper:net", "cannot be imported"),
        ("toys:BRANCHES", "is not a callable of toys, .*known: .*colours"),
        ("toys:", "is not a callable of toys"),
        (":net", "must be package.module:factory"),
    ],
)
def test_name_that_leads_nowhere_is_refused_by_its_field(name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as refused:
        load_factory("model.name", name)
    assert refused.value.field == "model.name"


def test_edited_source_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "edited_net.py"
    source.write_text("def net(): ...\n")
    before = source_fingerprint("model.name", "edited_net:net")
    assert source_fingerprint("model.name", "edited_net:net") == before
    source.write_text("def net(): pass\n")
    assert source_fingerprint("model.name", "edited_net:net") != before
