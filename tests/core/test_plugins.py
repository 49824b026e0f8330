import sys
from pathlib import Path

import pytest

from lth_core import DataSpec, ModelSpec, data, models
from lth_core.errors import DataError, SpecError
from lth_core.plugins import load_factory, source_fingerprint
from lth_core.seeds import generator


def test_factory_is_the_callable_named() -> None:
    spec = ModelSpec(widths=(4,))
    made = load_factory("model.name", "toys:batch_norm_net")(spec, (1, 8, 8), 10)
    assert [name for name, _ in made.named_children()][:2] == ["conv", "norm"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:net", "cannot be imported"),
        ("toys.deeper:net", "cannot be imported"),
        ("toys:BRANCHES", "is not a callable of toys, .*known: .*colours"),
        ("toys:", "is not a callable of toys"),
        (":net", "must be package.module:factory"),
        ("..:x", "must be package.module:factory"),
        (".toys:colours", "must be package.module:factory"),
        ("to\0ys:colours", "must be package.module:factory"),
        ("breaks_on_import:net", r"cannot be imported \(KeyError: 'no such place'\)"),
        ("exits_on_import:net", r"cannot be imported \(SystemExit: 3\)"),
    ],
)
def test_name_that_leads_nowhere_is_refused_by_its_field(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "breaks_on_import.py").write_text("{}['no such place']")
    (tmp_path / "exits_on_import.py").write_text("raise SystemExit(3)")
    with pytest.raises(SpecError, match=message) as refused:
        load_factory("model.name", name)
    assert refused.value.field == "model.name"


def test_edited_source_has_another_fingerprint_in_the_next_process_and_none_in_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits in a second
    source, part = tmp_path / "edited_net.py", tmp_path / "edited_part.py"
    source.write_text("from edited_part import *\ndef net(): ...\n")
    part.write_text("x = 1\n")
    before = source_fingerprint("model.name", "edited_net:net")
    assert source_fingerprint("model.name", "edited_net:net") == before
    part.write_text("x = 10\n")
    with pytest.raises(
        SpecError, match=r"edited_part.py was edited .* restart the process"
    ) as refused:
        source_fingerprint("model.name", "edited_net:net")
    assert (refused.value.field, refused.value.got) == ("model.name", "edited_net:net")
    for name in ("edited_net", "edited_part"):
        del sys.modules[name]
    assert source_fingerprint("model.name", "edited_net:net") not in (before, "")


def test_factory_of_an_installed_package_has_a_fingerprint() -> None:
    assert len(source_fingerprint("model.name", "torchvision.models:resnet18")) == 64


@pytest.mark.parametrize(
    ("name", "message"), [("sys:exit", "SystemExit|TypeError"), ("os:system", "TypeError")]
)
def test_failure_in_a_factory_names_field_factory_and_exception(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        data.outline(DataSpec(name=name))
    assert (refused.value.field, refused.value.got) == ("data.name", name)
    with pytest.raises(SpecError, match=message) as refused:
        models.build(ModelSpec(name=name), (1, 8, 8), 10, generator(0, "x"))
    assert (refused.value.field, refused.value.got) == ("model.name", name)
    assert refused.value.__cause__ is not None, (
        "the traceback shows the factory's author where it failed"
    )


def test_what_a_factory_returns_must_be_data() -> None:
    with pytest.raises(DataError, match=r"must return lth_core\.data\.Dataset, but got NoneType"):
        data.outline(DataSpec(name="builtins:print"))


def test_what_a_factory_returns_must_be_a_network() -> None:
    with pytest.raises(SpecError, match=r"must return a torch\.nn\.Module, not NoneType"):
        models.build(ModelSpec(name="builtins:print"), (1,), 2, generator(0, "x"))
