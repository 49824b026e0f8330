"""The names that `import lth_core` gives."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import lth_core
import sweeps


@pytest.mark.parametrize("name", lth_core.__all__)
def test_every_public_name_is_there(name: str) -> None:
    made = getattr(lth_core, name)
    assert made.__name__ == name
    assert made.__module__.startswith("lth_core.")


def test_version_is_the_installed_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lth_core.__version__ == sweeps.__version__ == version("lottery-ticket-sweeps")

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lth_core, "version", absent)
    assert lth_core.installed_version() == "unknown"


def test_names_are_listed_for_editors() -> None:
    assert set(lth_core.__all__) <= set(dir(lth_core))


def test_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lth_core' has no attribute 'nothing'"):
        lth_core.nothing  # noqa: B018


def test_specs_errors_and_the_packages_import_no_torch_ray_or_mlflow() -> None:
    code = (
        "import sys, lth_core; from lth_core import LthError, TicketSpec, open_store; TicketSpec()\n"
        "import sweeps.run; sweeps.__version__, callable(sweeps.run) or 1 / 0\n"
        "print({'torch', 'ray', 'mlflow', 'pydantic', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
