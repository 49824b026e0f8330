"""What decides a result is in its digest: a user's code, however deep, and as it runs."""

import importlib
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.source_code import factory_digest, function_digest, module_digest, user_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules on Python's path; what is imported from it is forgotten again."""
    monkeypatch.syspath_prepend(tmp_path)
    # Bytecode is known by the source's size and second: two edits in a second may look like one.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        path = folder / (name.replace("__dot__", "/") + ".py")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(source)


def loaded(name: str) -> ModuleType:
    for known in [m for m in sys.modules if m.split(".")[0] in ("net", "parts", "plain", "lazy")]:
        del sys.modules[known]
    importlib.invalidate_caches()
    return importlib.import_module(name)


NET = "from parts import blocks\nWIDTH = 3\ndef make():\n    return blocks.block(WIDTH)\n"
TREE = {
    "net": NET,
    "parts__dot____init__": "",
    "parts__dot__blocks": "from .deep import layer\ndef block(n):\n    return [layer] * n\n",
    "parts__dot__deep": "layer = 1\n",
    "lazy": "import torch\ndef make():\n    import plain\n    return plain\n",
    "plain": "import numpy.linalg\nx = 1\n",
}


def test_sources_are_those_of_the_module_and_of_all_that_it_imports(folder: Path) -> None:
    written(folder, **TREE)
    assert set(user_sources("net")) == {"net", "parts", "parts.blocks", "parts.deep"}
    assert set(user_sources("lazy")) == {"lazy", "plain"}
    assert set(user_sources("plain")) == {"plain"}


@pytest.mark.parametrize("edited", ["net", "parts__dot____init__", "parts__dot__blocks",
                                    "parts__dot__deep"])  # fmt: skip
def test_an_edit_of_any_of_them_is_another_digest(folder: Path, edited: str) -> None:
    written(folder, **TREE)
    before = module_digest(loaded("net"))
    assert module_digest(loaded("net")) == before
    written(folder, **{edited: TREE[edited] + "# edited\n"})
    assert module_digest(loaded("net")) != before


@pytest.mark.parametrize("imports", [
    "import importlib\nother = importlib.import_module('plain')\n",
    "try:\n    import plain\nexcept ImportError:\n    pass\n",
    "class A:\n    def f(self):\n        from plain import x\n",
    "if False:\n    from plain import *\n",
])  # fmt: skip
def test_an_import_counts_wherever_it_stands(folder: Path, imports: str) -> None:
    written(folder, net=imports, plain="x = 1\n")
    before = module_digest(loaded("net"))
    written(folder, plain="x = 2\n")
    assert module_digest(loaded("net")) != before


def test_modules_that_import_each_other_end(folder: Path) -> None:
    written(folder, net="import plain\n", plain="import net\n")
    assert set(user_sources("net")) == {"net", "plain"}


@pytest.mark.parametrize("edit", [
    ("return [layer] * n", "return [layer] * (n + 1)"),
    ("return [layer] * n", "return [layer] * n + [0]"),
    ("n):", "n, m=2):"),
])  # fmt: skip
def test_code_that_was_edited_after_its_import_is_refused(
    folder: Path, edit: tuple[str, str]
) -> None:
    written(folder, **TREE)
    module, path = loaded("net"), folder / "parts/blocks.py"
    path.write_text(path.read_text().replace(*edit))
    with pytest.raises(ValueError, match=r"parts/blocks.py was edited after .*: restart"):
        module_digest(module)


def test_code_that_was_edited_after_its_digest_was_taken_is_refused(folder: Path) -> None:
    written(folder, **TREE)
    module = loaded("net")
    module_digest(module)
    (folder / "parts/deep.py").write_text("layer = 1  # a comment\n")
    with pytest.raises(ValueError, match=r"parts/deep.py was edited"):
        module_digest(module)
    (folder / "parts/deep.py").write_text("layer = 1\n")
    module_digest(module)


def test_a_constant_that_was_edited_or_set_is_refused(folder: Path) -> None:
    written(folder, **TREE)
    module = loaded("net")
    (folder / "net.py").write_text(NET.replace("WIDTH = 3", "WIDTH = 4"))
    with pytest.raises(ValueError, match=r"net.py was edited"):
        module_digest(module)


SET = "from torch import nn\nWIDTH = 3\nACT = nn.ReLU\n"


@pytest.mark.parametrize(("name", "value"), [("WIDTH", 4), ("ACT", torch.nn.Identity)])
@pytest.mark.parametrize("seen", [False, True])
def test_constant_that_is_set_is_refused_whenever_it_is(
    folder: Path, name: str, value: object, seen: bool
) -> None:
    written(folder, net=SET)
    module = loaded("net")
    if seen:
        module_digest(module)
    setattr(module, name, value)
    with pytest.raises(ValueError, match=rf"net.py was edited after .*, or {name} was set"):
        module_digest(module)


@pytest.mark.parametrize("rebound", [
    "for ACT in (nn.Identity,): pass\n",
    "try:\n    from plain import ACT\nexcept ImportError:\n    pass\n",
    "from plain import *\n",
    "def ACT(): ...\n",
    "nn = 1\n",
])  # fmt: skip
def test_name_that_the_file_binds_again_is_no_constant(folder: Path, rebound: str) -> None:
    written(folder, net=SET + rebound, plain="ACT = WIDTH = 5\n")
    module_digest(loaded("net"))


def test_counters_and_caches_of_a_module_are_no_edits(folder: Path) -> None:
    source = "CALLS = 0\nCACHE = {}\ndef f():\n    global CALLS\n    CALLS += 1\n    CACHE[1] = 2\n"
    written(folder, net=source)
    module = loaded("net")
    module.f()
    module_digest(module)


def test_a_module_that_was_loaded_again_is_the_files(folder: Path) -> None:
    written(folder, net="x = 1\n")
    module = loaded("net")
    before = module_digest(module)
    (folder / "net.py").write_text("x = 22\n")
    importlib.reload(module)
    assert module_digest(module) != before


# Functions of a script, and of no file


def test_global_that_a_script_sets_is_another_digest(folder: Path) -> None:
    source = (
        "import functools\nfrom argparse import Namespace\nfrom dataclasses import dataclass\n"
        "from pathlib import Path\n@dataclass\nclass Size:\n    width: int = 3\n"
        "WHERE, ARGS, SIZE, ACT = Path('a'), Namespace(lr=1), Size(), len\n"
        "@functools.cache\ndef helper(): return WHERE, ARGS.lr, SIZE.width\n"
        "class Net:\n    def make(self): return ACT, helper()\n"
        "def net(): return Net().make()\n"
    )
    written(folder, script=source)
    script, path = ModuleType("__main__"), folder / "script.py"
    script.__file__ = str(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", script)
        exec(compile(source, path, "exec"), vars(script))
        before = factory_digest(script.net, script)
        path.write_text(source + "# edited\n")
        assert factory_digest(script.net, script) == before
        for change in ("WHERE = Path('b')", "ARGS.lr = 2", "SIZE.width = 4", "ACT = max",
                       "def helper(): return 1"):  # fmt: skip
            exec(change, vars(script))
            assert factory_digest(script.net, script) != before, change
            exec(compile(source, path, "exec"), vars(script))
            assert factory_digest(script.net, script) == before, change


CELL = """
import functools, torch
from torch import nn
WIDTH = {width}
def helper(n):
    return nn.Linear(n, {out})
class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layer = helper(n)
    def forward(self, x):
        return {forward}
def outer(k):
    def make(spec, shape, classes):
        return Net(WIDTH + k)
    return make
net = outer({k})
UNUSED = {unused}
from lth_core.source_code import function_digest
print(function_digest(net))
"""
AS_IT_IS = {"width": 3, "out": 4, "forward": "self.layer(x)", "k": 5, "unused": 0}


def cell(**changes: object) -> str:
    return CELL.format(**{**AS_IT_IS, **changes})


def digest_of(**changes: object) -> str:
    """Digest of the cell's function where the cell is `__main__`, as in a notebook."""
    main, printed = ModuleType("__main__"), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setitem(sys.modules, "__main__", main)
        exec(cell(**changes), main.__dict__)
    return printed.getvalue().strip()


def test_function_of_no_file_is_known_by_what_it_uses() -> None:
    before = digest_of()
    assert len(before) == 64
    assert digest_of(unused="object()") == before
    for changes in ({"width": 4}, {"out": 5}, {"forward": "self.layer(-x)"}, {"k": 6}):
        assert digest_of(**changes) != before, changes


@pytest.mark.long
@pytest.mark.slow
def test_function_of_no_file_is_the_same_in_another_process() -> None:
    called = subprocess.run(
        [sys.executable, "-c", cell()], capture_output=True, text=True, check=True
    )
    assert called.stdout.strip() == digest_of()


@pytest.mark.parametrize("imports", ["import plain", "from plain import x", "from parts import deep",
                                     "import parts.deep as d", "from parts.deep import layer"])  # fmt: skip
def test_module_that_a_function_of_a_script_imports_counts(folder: Path, imports: str) -> None:
    def digest() -> str:
        loaded("net")
        scope: dict[str, object] = {"__name__": "__main__"}
        exec(f"def net():\n    def inner():\n        {imports}\n    return inner", scope)
        return function_digest(scope["net"])

    written(folder, **TREE)
    before = digest()
    assert digest() == before
    written(folder, plain="x = 2\n", parts__dot__deep="layer = 2\n")
    assert digest() != before


@pytest.mark.parametrize("made", ["io.StringIO()", "torch.Generator()", "os.environ", "iter([1])"])
def test_function_that_uses_a_value_of_unknown_content_is_refused(made: str) -> None:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(f"import io, os, torch\nthing = {made}\ndef net(): return (lambda: [thing])", scope)
    with pytest.raises(TypeError, match=r"^thing is a .*, whose content is not known"):
        function_digest(scope["net"])


VALUES = """
import logging, re, torch
from collections import deque
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import MappingProxyType
class Mode(Enum):
    on, off = 1, 2
class Plain:
    def __init__(self, size): self.size = size
@dataclass(slots=True)
class Slotted:
    size: int
"""


def test_values_count_by_content() -> None:
    def digest(source: str) -> str:
        scope: dict[str, object] = {"__name__": "__main__"}
        exec(VALUES + f"value = {source}\ndef net(): return value", scope)
        return function_digest(scope["net"])

    for one, other in (("torch.zeros(2)", "torch.ones(2)"), ("{1, 2}", "{1, 3}"), ("[1]", "(1,)"),
                       ("{'a': 1}", "{'a': 2}"), ("torch.float32", "torch.float64"),
                       ("torch.relu", "torch.sigmoid"), ("1", "True"),
                       ("Mode.on", "Mode.off"), ("re.compile('a')", "re.compile('b')"),
                       ("torch.nn.ELU(1.0)", "torch.nn.ELU(2.0)"), ("range(2)", "range(3)"),
                       ("Plain(1)", "Plain(2)"), ("torch.no_grad()", "torch.enable_grad()"),
                       ("Slotted(1)", "Slotted(2)"), ("deque([1])", "deque([2])"),
                       ("list[int]", "list[str]"), ("date(2026, 1, 1)", "date(2026, 1, 2)"),
                       ("MappingProxyType({1: 1})", "MappingProxyType({1: 2})"),
                       ("logging.getLogger('a')", "logging.getLogger('b')")):  # fmt: skip
        assert digest(one) == digest(one)
        assert digest(one) != digest(other), (one, other)


# Cells that are run again in one process

CODE = """
import numpy as np
import torch
from torch import nn
from lth_core.data import Dataset, Split
def act(x): return {act}
class Net(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.first, self.output = nn.Linear(inputs, 8), nn.Linear(8, classes)
    def forward(self, x): return self.output(act(self.first(x.flatten(1))))
def net(spec, shape, classes): return Net(shape[0], classes)
def data(spec):
    x = np.random.default_rng(0).normal(size=(60, 5))
    y = ({sign} * x[:, 0] > 0).astype(int)
    train, validation, test = (Split(x[r], y[r]) for r in np.split(np.arange(60), [30, 45]))
    return Dataset(train, validation, test, mean=0.0, std=1.0, classes=2)
def score(network):
    return {{name: {score} for name, w in network.weights.items()}}
"""
FIRST = {"act": "torch.relu(x)", "sign": "1", "score": "w.abs()"}


@pytest.mark.parametrize("changes", [{"act": "x"}, {"sign": "-1"}, {"score": "-w.abs()"}])
def test_cell_that_is_run_again_with_other_code_is_trained_anew(
    changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", cells)
    spec = TicketSpec(
        data=DataSpec(name="__main__:data"), model=ModelSpec(name="__main__:net", init="as_built"),
        prune=PruneSpec(score="__main__:score"), train=TrainSpec(steps="5it"), levels=1,
        branches=("ticket",),
    )  # fmt: skip

    def records(trainer: Trainer, **code: str) -> list[tuple[object, object]]:
        exec(CODE.format(**{**FIRST, **code}), cells.__dict__)
        rows = [level.records[-1] for level in find_tickets(spec, trainer)]
        return [(row["training_digest"], row["final_test_accuracy"]) for row in rows]

    trainer = Trainer()
    first = records(trainer)
    changed = records(trainer, **changes)
    assert changed[-1] not in first
    assert changed == records(Trainer(), **changes)
    assert first == records(trainer) == records(Trainer())


def test_data_of_unchanged_code_are_made_once_for_all_searches(folder: Path) -> None:
    code = CODE.format(**FIRST).replace(
        "def data(spec):", "calls = []\ndef data(spec):\n    calls.append(1)"
    )
    written(folder, counted=code)
    spec = TicketSpec(
        data=DataSpec(name="counted:data"), model=ModelSpec(widths=(4,)),
        train=TrainSpec(steps="2it"), levels=0,
    )  # fmt: skip
    for seed in range(3):
        list(find_tickets(replace(spec, seed=seed)))
    assert len(importlib.import_module("counted").calls) == 1
