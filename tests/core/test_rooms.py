"""lth_core stands alone: what it may import, and what it never calls."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lth_core

CORE = Path(lth_core.__file__).parent
SOURCES = sorted(CORE.rglob("*.py"))
SEEDS_GLOBALLY = CORE / "seeds.py"
"""The one file that seeds global generators, around a user's code, and restores them."""


def imported(tree: ast.AST) -> set[str]:
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


@pytest.mark.slow
def test_core_imports_no_other_room_and_no_pickle() -> None:
    paths = [path for path in SOURCES if path != SEEDS_GLOBALLY]
    everything = set().union(*(imported(ast.parse(path.read_text())) for path in paths))
    forbidden = {
        "ray",
        "mlflow",
        "optuna",
        "tracking",
        "sweeps",
        "pickle",
        "dill",
        "cloudpickle",
        "random",
    }
    assert "lth_core" in everything
    assert everything & forbidden == set()


def test_core_never_seeds_globally_and_never_unpickles() -> None:
    calls = {
        ast.unparse(node.func)
        for path in SOURCES
        if path != SEEDS_GLOBALLY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    assert "torch.randperm" in calls
    assert (
        calls & {"torch.manual_seed", "np.random.seed", "torch.load", "torch.save", "np.load"}
        == set()
    )


@pytest.mark.slow
def test_importing_core_loads_nothing_it_may_do_without() -> None:
    heavy = "{'torchvision', 'sklearn', 'scipy', 'pyarrow', 'ray', 'mlflow', 'PIL'}"
    code = f"import sys, lth_core; print(sorted({heavy} & set(sys.modules)))"
    got = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(lth_core.__file__).parents[1],
    )  # fmt: skip
    assert got.stdout.strip() == "[]"
