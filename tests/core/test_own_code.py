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

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import SpecError
from lth_core.own_code import factory_digest, function_digest, module_digest, user_sources
from lth_core.resolve import check_unchanged, forget_pins, resolve


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


def edit_counts(folder: Path, edited: str, **sources: str) -> bool:
    """Whether `net` has another digest once one of the modules is edited."""
    written(folder, **sources)
    before = module_digest(loaded("net"))
    assert module_digest(loaded("net")) == before
    written(folder, **{edited: sources[edited] + "# edited\n"})
    return module_digest(loaded("net")) != before


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
    assert edit_counts(folder, edited, **TREE)


@pytest.mark.parametrize("imports", [
    "import importlib\nother = importlib.import_module('plain')\n",
    "try:\n    import plain\nexcept ImportError:\n    pass\n",
    "class A:\n    def f(self):\n        from plain import x\n",
    "if False:\n    from plain import *\n",
    "from importlib import import_module as load\nload('plain')\n",
])  # fmt: skip
def test_an_import_counts_wherever_it_stands(folder: Path, imports: str) -> None:
    assert edit_counts(folder, "plain", net=imports, plain="x = 1\n")


@pytest.mark.parametrize("imports", [
    "from importlib import import_module as load, import_module\nimport_module('.deep', __package__)",
    "import importlib\nimportlib.import_module('.blocks', package='parts')",
    "import importlib\ndef __getattr__(name): return importlib.import_module('.' + name, __name__)",
    "import lazy_loader as lazy\n__getattr__, __dir__, __all__ = lazy.attach(__name__)",
])  # fmt: skip
def test_module_that_a_package_imports_by_its_name_counts(folder: Path, imports: str) -> None:
    written(folder, **{**TREE, "parts__dot____init__": imports, "net": "import parts\n"})
    assert "parts.deep" in user_sources("net")


@pytest.mark.parametrize("name", ["f'parts.{n}'", "'parts.' + n"])
def test_all_modules_of_a_package_with_which_an_imported_name_begins_count(
    folder: Path, name: str
) -> None:
    source = f"from importlib import import_module\ndef get(n): return import_module({name})\n"
    written(folder, **{**TREE, "net": source})
    assert set(user_sources("net")) == {"net", "parts", "parts.blocks", "parts.deep"}


def test_module_that_puts_an_object_in_its_place_counts(folder: Path) -> None:
    plain = "import sys\nclass C: x = 1\nsys.modules[__name__] = C()\n"
    assert edit_counts(folder, "plain", net="import plain\n", plain=plain)


def test_module_that_defines_a_named_function_counts(folder: Path) -> None:
    written(folder, net="import sys\nnet = sys.modules['plain'].net\n", plain="def net(): ...\n")
    loaded("plain")
    module = importlib.import_module("net")
    before = factory_digest(module.net, module)
    assert before != module_digest(module)
    written(folder, plain="def net(): ...\nx = 1\n")
    loaded("plain")
    module = importlib.import_module("net")
    assert factory_digest(module.net, module) != before


def test_helper_with_the_name_of_a_module_of_python_counts(folder: Path) -> None:
    written(folder, net="import antigravity\n", antigravity="")
    assert set(user_sources("net")) == {"net", "antigravity"}


def test_no_package_is_imported_to_find_its_modules(folder: Path) -> None:
    written(folder, net="def later():\n    from parts.sub import x\n",
            parts__dot____init__="raise RuntimeError", parts__dot__sub="x = 1\n")  # fmt: skip
    assert set(user_sources("net")) == {"net", "parts", "parts.sub"}
    assert "parts" not in sys.modules


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


SET = """
from dataclasses import dataclass, field
from types import SimpleNamespace
import torch
from torch import nn
from torch.nn import ReLU as Act
from plain import LAYERS, x
WIDTH = 3
ACT = nn.ReLU
NORM = None
AREA = 4 * 8
H, W = 4, 8
SIZES = [4, 8]
WORDS = {"a": 1, "b": nn.ReLU}
CACHE = {}
@dataclass
class Config:
    width: int = 3
    name: str = "a"
    sizes: list = field(default_factory=lambda: [4, 8])
CONFIG = Config(name="b")
SPACE = SimpleNamespace(width=16)
MADE = dict(width=2 * WIDTH, dtype=torch.float32)
act = lambda x: x
def helper(n, *, k=3):
    width = n
    return width
def other(n): return -n
class Net:
    width = 16
    def __init__(self): self.size = helper(3)
    def forward(self, x): return x
    @staticmethod
    def part(): return 1
    class Inner: depth = 2
"""
LISTED = "LAYERS = {'relu': 1}\nx = 1\n"


@pytest.mark.parametrize(("name", "change"), [
    ("WIDTH", "WIDTH = 4"), ("ACT", "ACT = nn.Identity"), ("nn", "nn = torch.nn.functional"), ("NORM", "NORM = nn.LayerNorm"),
    ("AREA", "AREA = 16"), ("W", "W = 1"), ("SIZES", "SIZES = [1]"), ("SIZES", "SIZES.append(1)"),
    ("WORDS", "WORDS['a'] = 2"), ("CACHE", "CACHE = None"), ("CONFIG", "CONFIG.width = 4"),
    ("CONFIG", "CONFIG = Config(name='c')"),
    ("SPACE", "SPACE.width = 32"), ("MADE", "MADE['width'] = 32"), ("MADE", "MADE['dtype'] = torch.half"), ("act", "act = lambda x: -x"),
    ("helper", "helper = other"),
    ("helper", "def helper(n, *, k=3): return 2"), ("Act", "Act = nn.GELU"),
    ("x", "x = 2"), ("Net", "Net = nn.Module"), ("Net", "Net = other"), ("Net.width", "Net.width = 32"),
    ("Net.forward", "Net.forward = lambda self, x: -x"), ("Net.part", "Net.part = len"),
    ("Net.Inner.depth", "Net.Inner.depth = 3"),
])  # fmt: skip
@pytest.mark.parametrize("seen", [False, True])
def test_name_that_is_set_is_refused_whenever_it_is(
    folder: Path, name: str, change: str, seen: bool
) -> None:
    written(folder, net=SET, plain=LISTED)
    module = loaded("net")
    if seen:
        module_digest(module)
    exec(change, vars(module))
    with pytest.raises(ValueError, match=rf"net.py was edited after .*, or {name} was set"):
        module_digest(module)


@pytest.mark.parametrize("rebound", [
    "for ACT in (nn.Identity,): pass\n",
    "try:\n    from plain import ACT\nexcept ImportError:\n    pass\n",
    "from plain import *\n",
    "def ACT(): ...\n",
    "nn = 1\n",
    "Net.width = 3\nCONFIG.width = 5\nMADE['a'] = {}\nMADE['a']['b'] = 1\nSIZES.append(3)\nCACHE[1] = 2\nLAYERS['mine'] = Net\n",
    "setattr(Net, 'width', 3)\ndef count():\n    global NORM\n    NORM = 1\ncount()\n",
    "class Base:\n    def __init_subclass__(cls): cls.size = cls.size + 1\n"
    "class Sub(Base): size = 3\n",
    "from typing import NamedTuple\nfrom enum import Enum\nclass Size(NamedTuple): width: int = 3\n"
    "class Mode(str, Enum): on = 'on'\nSIZE, MODE = Size(), Mode.on\n",
    "class Model(Net): config = Config\nConfig.model = Model\n",
    # Values that change under another name, and names that only the running code knows.
    "def change(table):\n    table['a'] = 4\nchange(WORDS)\nfor each in (SIZES,): each[0] = 5\n",
    "ALL = {'a': {'n': 1}}\nentry = ALL['a']\nentry['n'] = 2\nCONFIG.sizes[0] = 2\n",
    "for k in ('width',): setattr(Net, k, 9)\n", "globals()['WIDTH'] = 9\n", "exec('WIDTH = 9')\n",
    "class Attributes(dict): __getattr__ = dict.__getitem__\nNOTES = Attributes(a=1)\n",
    "NONE = 1e999 - 1e999\n",
])  # fmt: skip
def test_name_that_the_file_binds_again_or_changes_is_no_constant(
    folder: Path, rebound: str
) -> None:
    written(folder, net=SET + rebound, plain=LISTED + "ACT = WIDTH = 5\n")
    before = module_digest(loaded("net"))
    assert module_digest(importlib.import_module("net")) == before


def test_constant_that_another_module_sets_is_named_with_both(folder: Path) -> None:
    written(folder, net="import plain\n\nplain.x = 2\n", plain="x = 1\n")
    with pytest.raises(ValueError, match=r"^x of .*plain.py was set, as .*net.py:3 does, .*write"):
        module_digest(loaded("net"))


def test_import_of_a_module_that_was_loaded_again_is_the_files_unless_it_is_another(
    folder: Path,
) -> None:
    plain = "x = 1\nclass A:\n    size = {}\n    def f(self): ...\ndef f(): return 1\n"
    written(folder, net="from plain import A, f, x\n", plain=plain.format(1))
    net, parts = loaded("net"), importlib.import_module("plain")
    before = module_digest(net)
    importlib.reload(parts)
    assert module_digest(net) == before
    written(folder, plain=plain.format(2))
    importlib.reload(parts)
    with pytest.raises(ValueError, match=r"net.py was edited .*, or A was set"):
        module_digest(net)


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
from lth_core.own_code import function_digest
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
                                     "import importlib; importlib.import_module('plain')",
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


@pytest.mark.parametrize("made", [
    "io.StringIO()", "torch.Generator()", "os.environ", "iter([1])", "random.Random(0)",
    "random.Random(0).random", "np.random.RandomState(0)", "torch.eye(2).to_sparse()",
    "torch.zeros(2, device='meta')", "threading.local()",
])  # fmt: skip
def test_function_that_uses_a_value_of_unknown_content_is_refused(made: str) -> None:
    scope: dict[str, object] = {"__name__": "__main__"}
    exec(
        f"import io, os, random, threading, torch\nimport numpy as np\nthing = {made}\ndef net(): return (lambda: [thing])",
        scope,
    )
    with pytest.raises(TypeError, match=r"^thing is a .*, whose content is not known"):
        function_digest(scope["net"])


VALUES = """
import functools, logging, operator, re, torch
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Optional
class Mode(Enum):
    on, off = 1, 2
class Plain:
    def __init__(self, size): self.size = size
@dataclass(slots=True)
class Slotted:
    size: int
class Word(str, Enum):
    on = "on"
    def build(self): return {one}
class Pair(NamedTuple):
    size: int
    @property
    def area(self): return self.size * {one}
class Keys(dict):
    def __init__(self, **items):
        super().__init__(items)
        self.extra = {one}
class Whole(int):
    def twice(self): return self * {one}
class Bare:
    __slots__ = ("size", "unset")
    def __init__(self, size): self.size = size
class Below(Bare): ...
class Kind(type):
    @property
    def width(cls): return {one}
class Made(metaclass=Kind): ...
class Lists(Enum):
    one = [{one}]
class Cached:
    size = 1
    @functools.cached_property
    def area(self): return self.size + 1
@functools.singledispatch
def dispatched(x): return {one}
def tries(a, b):
    try:
        a() {after}
    except ValueError:
        b()
    {otherwise}
def counted(): return counted.size
counted.size = {one}
"""


def digest_of_value(source: str, one: int = 1) -> str:
    """Digest of a function that uses a value; what the value uses has the number."""
    after, otherwise = ("; b()", "") if one == 1 else ("", "else: b()")
    code = VALUES.replace("{one}", str(one)).replace("{after}", after)
    scope: dict[str, object] = {"__name__": "__main__"}
    code = code.replace("{otherwise}", otherwise)
    exec(code + f"value = {source}\ndef net(): return value", scope)
    return function_digest(scope["net"])


@pytest.mark.parametrize("source", ["Word.on", "Pair(1)", "Pair", "Keys(a=1)", "Whole(3)", "Made",
                                    "Lists.one", "dispatched", "tries", "counted"])  # fmt: skip
def test_behaviour_of_a_value_counts_beside_its_content(source: str) -> None:
    assert digest_of_value(source) == digest_of_value(source) != digest_of_value(source, 2)


def test_value_of_a_cached_property_does_not_count() -> None:
    assert digest_of_value("Cached()") == digest_of_value("Cached()\nvalue.area")


def test_values_count_by_content() -> None:
    digest = digest_of_value
    for one, other in (("torch.zeros(2)", "torch.ones(2)"), ("{1, 2}", "{1, 3}"), ("[1]", "(1,)"),
                       ("{'a': 1}", "{'a': 2}"), ("torch.float32", "torch.float64"),
                       ("torch.relu", "torch.sigmoid"), ("1", "True"),
                       ("Mode.on", "Mode.off"), ("re.compile('a')", "re.compile('b')"),
                       ("torch.nn.ELU(1.0)", "torch.nn.ELU(2.0)"), ("range(2)", "range(3)"),
                       ("Plain(1)", "Plain(2)"), ("torch.no_grad()", "torch.enable_grad()"),
                       ("Slotted(1)", "Slotted(2)"), ("deque([1])", "deque([2])"),
                       ("list[int]", "list[str]"), ("date(2026, 1, 1)", "date(2026, 1, 2)"),
                       ("Bare(1)", "Bare(2)"), ("Below(1)", "Below(2)"), ("{1: 2}.get", "{1: 3}.get"),
                       ("operator.itemgetter(0)", "operator.itemgetter(1)"),
                       ("Optional[int]", "Optional[str]"), ("str.upper", "str.lower"),
                       ("deque([1], 2)", "deque([1], 3)"),
                       ("defaultdict(lambda: 1)", "defaultdict(lambda: 2)"),
                       ("torch.ones(1).bfloat16()", "torch.zeros(1).bfloat16()"),
                       ("torch.ones(1)", "torch.ones(1, requires_grad=True)"),
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


def test_global_that_a_network_changes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", cells)
    code = CODE.format(**FIRST).replace("def act(x):", "TABLES = {}\ndef act(x): TABLES[1] = 1;")
    exec(code, cells.__dict__)
    spec = TicketSpec(
        data=DataSpec(name="__main__:data"), model=ModelSpec(name="__main__:net", init="as_built"),
        train=TrainSpec(steps="1it"), levels=0,
    )  # fmt: skip
    forget_pins()
    spec = resolve(spec)
    forget_pins()
    with pytest.raises(SpecError, match=r"planned; TABLES is another now: put .* into a file"):
        check_unchanged(spec, "the sweep was planned")


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
