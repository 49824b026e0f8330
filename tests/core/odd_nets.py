"""Networks of a user's, for images of shape (1, 8, 8) and ten classes: sound ones and broken ones."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


class Through(nn.Module):
    """A network whose forward pass is a function of it; parts in the order given."""

    def __init__(self, forward: Callable[["Through", Tensor], object], **parts: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


class _ExtraState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 0}

    def set_extra_state(self, state: object) -> None: ...


def _tied() -> nn.Module:
    net = Through(
        lambda n, x: n.head(torch.relu(n.two(torch.relu(n.one(n.embed(x.flatten(1))))))),
        embed=nn.Linear(64, 12), one=nn.Linear(12, 12), two=nn.Linear(12, 12), head=nn.Linear(12, 10),
    )  # fmt: skip
    net.two.weight = net.one.weight
    return net


def _head_first() -> nn.Module:
    return Through(
        lambda n, x: n.head(torch.relu(n.body(x.flatten(1)))),
        head=nn.Linear(12, 10), body=nn.Linear(64, 12),
    )  # fmt: skip


def _scaled_head_first() -> nn.Module:
    return Through(
        lambda n, x: 3 * n.head(torch.relu(n.body(x.flatten(1)))) - 1,
        head=nn.Linear(12, 10), body=nn.Linear(64, 12),
    )  # fmt: skip


def _idle() -> nn.Module:
    """One layer is never called, one is called for nothing, one is frozen, one sees no gradient."""

    def forward(n: Through, x: Tensor) -> Tensor:
        x = n.body(x.flatten(1))
        n.wasted(x)
        return n.head(torch.relu(x) + n.frozen(x) + n.detached(x).detach())

    net = Through(
        forward, body=nn.Linear(64, 12), never=nn.Linear(500, 500), wasted=nn.Linear(12, 300),
        frozen=nn.Linear(12, 12), detached=nn.Linear(12, 12), head=nn.Linear(12, 10),
    )  # fmt: skip
    net.frozen.requires_grad_(False)
    return net


def _attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return Through(
        lambda n, x: n.head(n.block(x.view(len(x), 8, 8)).mean(1)),
        block=layer,
        head=nn.Linear(8, 10),
    )


def _cross_attention() -> nn.Module:
    layer = nn.MultiheadAttention(8, 2, kdim=4, vdim=2, batch_first=True)

    def forward(n: Through, x: Tensor) -> Tensor:
        rows = x.view(len(x), 8, 8)
        attended, _ = n.attend(rows[:, :3], key=rows[:, :5, :4], value=rows[:, :5, :2])
        return n.head(attended.mean(1))

    return Through(forward, attend=layer, head=nn.Linear(8, 10))


def _recurrent(kind: type[nn.RNNBase] = nn.LSTM, **options: object) -> nn.Module:
    layer = kind(8, 6, num_layers=2, batch_first=True, **options)
    width = 6 * (2 if options.get("bidirectional") else 1)
    return Through(
        lambda n, x: n.head(n.rows(x.view(len(x), 8, 8))[0][:, -1]), rows=layer,
        head=nn.Linear(width, 10),
    )  # fmt: skip


def _gru() -> nn.Module:
    return _recurrent(nn.GRU, bidirectional=True)


def _cell() -> nn.Module:
    def forward(n: Through, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for row in x.view(len(x), 8, 8).unbind(1):
            state = n.step(row, state)
        return n.head(state)

    return Through(forward, step=nn.GRUCell(8, 6), head=nn.Linear(6, 10))


def _transposed() -> nn.Module:
    return Through(
        lambda n, x: n.head(torch.relu(n.up(torch.relu(n.down(x)))).mean((2, 3))),
        down=nn.Conv2d(1, 4, 3, stride=2, padding=1), up=nn.ConvTranspose2d(4, 6, 2, stride=2),
        head=nn.Linear(6, 10),
    )  # fmt: skip


def _bilinear() -> nn.Module:
    return Through(
        lambda n, x: n.head(n.both(x.flatten(1)[:, :8], x.flatten(1)[:, 8:20])),
        both=nn.Bilinear(8, 12, 5), head=nn.Linear(5, 10),
    )  # fmt: skip


def _remembering(persistent: bool | None = None) -> nn.Module:
    """Its logits grow with its number of calls: a buffer, or where ``persistent`` is None, a number."""

    def forward(n: Through, x: Tensor) -> Tensor:
        n.calls = n.calls + 1
        return n.head(x.flatten(1)) * (1 + 0.01 * n.calls)

    net = Through(forward, head=nn.Linear(64, 10))
    if persistent is None:
        net.calls = 0
    else:
        net.register_buffer("calls", torch.zeros(()), persistent=persistent)
    return net


def _drawing_itself() -> nn.Module:
    stream = torch.Generator().manual_seed(0)
    return Through(
        lambda n, x: n.head(x.flatten(1) + 0.1 * torch.randn(1, 64, generator=stream)),
        head=nn.Linear(64, 10),
    )  # fmt: skip


SOUND = {
    "tied": _tied, "head_first": _head_first, "scaled_head_first": _scaled_head_first, "idle": _idle,
    "attention": _attention, "cross_attention": _cross_attention, "recurrent": _recurrent, "gru": _gru,
    "counter": lambda: _remembering(persistent=True), "cell": _cell, "transposed": _transposed, "bilinear": _bilinear,
}  # fmt: skip


def _plain(forward: Callable[[Through, Tensor], object], classes: int = 10) -> nn.Module:
    return Through(forward, fc=nn.Linear(64, classes))


def _flat(n: Through, x: Tensor) -> Tensor:
    return n.fc(x.flatten(1))


def _routed() -> nn.Module:
    """The input chooses one of two layers."""
    return Through(
        lambda n, x: n.head((n.one if x.sum() > 0 else n.other)(x.flatten(1))),
        one=nn.Linear(64, 12), other=nn.Linear(64, 12), head=nn.Linear(12, 10),
    )  # fmt: skip


class NotCopied(nn.Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("holds an open file")

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


def _with(change: Callable[[nn.Linear], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        net = _plain(_flat)
        change(net.fc)
        return net

    return make


def _holding(what: str) -> nn.Module:
    """A network with a value or a layer that no state has, or a function that holds the network."""
    net = Through(
        lambda n, x: n.fc(n.body(x.flatten(1))), body=nn.Linear(64, 64), fc=nn.Linear(64, 10)
    )
    body, gain = net.body, torch.randn(64)
    if what == "value":
        net._forward = lambda n, x: n.fc(n.body(x.flatten(1)) * n.gain)
        net.gain = gain
    elif what == "buffer":
        net._forward = lambda n, x: n.fc(n.body(x.flatten(1)) * n.gain)
        net.register_buffer("gain", gain, persistent=False)
    elif what == "list":
        del net.body
        net.layers = [body]
        net._forward = lambda n, x: n.fc(n.layers[0](x.flatten(1)))
    elif what == "function":
        net._forward = lambda n, x: n.fc(body(x.flatten(1)))
    elif what == "hook":
        net.gain = nn.Parameter(torch.ones(64))
        net.body.register_forward_hook(lambda module, inputs, output: output * net.gain)
    return net


def positive(spec: object, shape: Shape, classes: int) -> nn.Module:
    """A parameter that must stay positive, with a value that all seeds share."""
    net = _plain(lambda n, x: torch.distributions.Normal(_flat(n, x), n.scale).rsample())
    net.scale = nn.Parameter(torch.full((10,), 0.1))
    return net


BROKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a_tuple": (lambda: _plain(lambda n, x: (_flat(n, x), None)), "logits.* not a tuple"),
    "a_dict": (lambda: _plain(lambda n, x: {"logits": _flat(n, x)}), "logits.* not a dict"),
    "spatial": (lambda: _plain(lambda n, x: _flat(n, x)[:, :, None]), r"shape \(n, 10\).*\(2, 10, 1\)"),
    "more_outputs": (lambda: _plain(_flat, 1000), r"shape \(n, 10\).*not \(2, 1000\) for n = 2"),
    "fewer_outputs": (lambda: _plain(_flat, 2), r"shape \(n, 10\).*not \(2, 2\)"),
    "half": (lambda: _plain(_flat).half(), r"float32 weights.*fc\.weight is torch\.float16"),
    "double": (lambda: _plain(_flat).double(), r"fc\.weight is torch\.float64"),
    "complex": (lambda: _plain(_flat).to(torch.complex64), r"fc\.weight is torch\.complex64"),
    "lazy": (lambda: Through(_flat, fc=nn.LazyLinear(10)), "no lazy modules: give fc its sizes"),
    "scripted": (
        lambda: Through(_flat, fc=torch.jit.script(nn.Linear(64, 10))), "no scripted modules: fc",
    ),
    "nothing_to_prune": (
        lambda: Through(lambda n, x: n.norm(x.flatten(1))[:, :10], norm=nn.LayerNorm(64)),
        "a weight to prune",
    ),
    "routed": (lambda: _routed(), "same layers for all inputs, but these depend on the input: one"),
    "not_copied": (lambda: NotCopied(64, 10), "deepcopy.*holds an open file"),
    "wrong_shape": (lambda: Through(_flat, fc=nn.Linear(3, 10)), "cannot be run on shape"),
    "new_weight_norm": (_with(parametrizations.weight_norm), "weight of fc is computed from others"),
    "old_weight_norm": (_with(weight_norm), "weight of fc is computed from others"),
    "new_spectral_norm": (_with(parametrizations.spectral_norm), "weight of fc is computed from others"),
    "already_pruned": (
        _with(lambda fc: prune.l1_unstructured(fc, "weight", 0.2)), "weight of fc is computed",
    ),
    "counter_of_its_own": (lambda: _remembering(), "persistent buffers"),
    "buffer_that_is_not_stored": (lambda: _remembering(persistent=False), "persistent buffers"),
    "generator_of_its_own": (lambda: _drawing_itself(), "persistent buffers"),
    "value_drawn_when_built": (lambda: _holding("value"), "decided by its weights"),
    "buffer_drawn_when_built": (lambda: _holding("buffer"), "decided by its weights"),
    "layers_in_a_list": (lambda: _holding("list"), "decided by its weights"),
    "function_that_holds_a_layer": (lambda: _holding("function"), "decided by its weights"),
    "hook_that_holds_the_network": (lambda: _holding("hook"), "decided by its weights"),
    "squeezed": (lambda: _plain(lambda n, x: _flat(n, x).squeeze()), r"not \(10,\) for n = 1"),
    "fails_on_one": (
        lambda: _plain(lambda n, x: _flat(n, x).view(-1, 2, 10).flatten(0, 1)),
        r"evaluation mode on one example, .* fails \(RuntimeError",
    ),
    "extra_state": (lambda: Through(_flat, fc=_ExtraState(64, 10)), "fc has extra state"),
    "numpy_inside": (lambda: _plain(lambda n, x: torch.from_numpy(_flat(n, x).detach().numpy())),
                     "must have a weight to prune|must train on a batch"),
}  # fmt: skip


def __getattr__(name: str) -> Callable[[object, Shape, int], nn.Module]:
    made = SOUND.get(name) or (BROKEN[name][0] if name in BROKEN else None)
    if made is None:
        raise AttributeError(name)
    return lambda spec, shape, classes: made()


def one_draw(spec: object, shape: Shape, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return _plain(_flat)


_CACHED = _plain(_flat)


def cached(spec: object, shape: Shape, classes: int) -> nn.Module:
    return _CACHED


class _Counting(nn.Linear):
    """Counts its calls in a buffer, in evaluation too."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x.flatten(1))


def counting(spec: object, shape: Shape, classes: int) -> nn.Module:
    return _Counting()


class _DifferentiableOnce(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient.clone()


def differentiable_once(spec: object, shape: Shape, classes: int) -> nn.Module:
    return Through(
        lambda n, x: n.head(_DifferentiableOnce.apply(torch.relu(n.body(x.flatten(1))))),
        body=nn.Linear(64, 12), head=nn.Linear(12, 10),
    )  # fmt: skip


def with_norm(spec: object, shape: Shape, classes: int) -> nn.Module:
    return Through(
        lambda n, x: n.head(n.norm(n.body(x.flatten(1)))),
        body=nn.Linear(64, 12), norm=nn.BatchNorm1d(12), head=nn.Linear(12, 10),
    )  # fmt: skip


def trains_on_pairs(spec: object, shape: Shape, classes: int) -> nn.Module:
    """It runs on one example in evaluation mode, and fails on one in training."""

    def forward(n: Through, x: Tensor) -> Tensor:
        logits = _flat(n, x)
        return logits.view(-1, 2, 10).flatten(0, 1) if n.training else logits

    return _plain(forward)


def skipping(spec: object, shape: Shape, classes: int) -> nn.Module:
    """One layer is skipped in half of the training steps (Huang et al. 2016)."""

    def forward(n: Through, x: Tensor) -> Tensor:
        x = torch.relu(n.body(x.flatten(1)))
        return n.head(x if n.training and torch.rand(()) < 0.5 else x + torch.relu(n.middle(x)))

    return Through(
        forward, body=nn.Linear(64, 12), middle=nn.Linear(12, 12), head=nn.Linear(12, 10)
    )


def counted_flops(model: nn.Module, shape: Shape) -> int:
    """FLOPs of one example by torch's own counter, which counts matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.train()(torch.zeros(1, *shape))
    return int(counter.get_total_flops())
