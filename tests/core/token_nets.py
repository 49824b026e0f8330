"""A user's networks on token ids, and their data."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lth_core.data import Dataset, Split
from lth_core.spec import DataSpec, ModelSpec

TOKENS, LENGTH = 12, 6
Shape = tuple[int, ...]


def tokens(spec: DataSpec) -> Dataset:
    """Rows of six ids in 0..11, 0 for padding; the class is whether the mean id is above 5."""
    ids = torch.randint(0, TOKENS, (160, LENGTH), generator=torch.Generator().manual_seed(3))
    y = (ids.double().mean(1) > 5).long()
    splits = [Split(ids[part], y[part]) for part in (slice(100), slice(100, 130), slice(130, 160))]
    return Dataset(*splits, mean=0.0, std=1.0, classes=2)  # type: ignore[arg-type]


def scaled(spec: DataSpec) -> Dataset:
    """`tokens` with a deviation that ids do not survive."""
    return replace(tokens(spec), std=2.0)


def shifted(spec: DataSpec) -> Dataset:
    """`tokens`, counted from 1."""
    data = tokens(spec)
    parts = [Split(part.x + 1, part.y) for part in (data.train, data.validation, data.test)]
    return Dataset(*parts, mean=1.0, std=1.0, classes=2)  # type: ignore[arg-type]


def one_too_many(spec: DataSpec) -> Dataset:
    """`tokens` with an id beyond the vocabulary, in the test part alone."""
    data = tokens(spec)
    data.test.x[0, 3] = TOKENS
    return data


def pictured(spec: DataSpec) -> Dataset:
    """`tokens` as images of 2 x 3."""
    data = tokens(spec)
    parts = (data.train, data.validation, data.test)
    images = [Split(part.x.view(-1, 1, 2, 3), part.y) for part in parts]
    return Dataset(*images, mean=0.0, std=1.0, classes=2)  # type: ignore[arg-type]


def next_token(spec: DataSpec) -> Dataset:
    """Rows of six ids in 0..11; the class is the last id's successor."""
    ids = torch.randint(0, TOKENS, (160, LENGTH), generator=torch.Generator().manual_seed(4))
    part = Split(ids, (ids[:, -1] + 1) % TOKENS)
    return Dataset(part, None, part, mean=0.0, std=1.0, classes=TOKENS)  # type: ignore[arg-type]


class Words(nn.Module):
    """Embedding, attention, mean, head; or without attention."""

    def __init__(self, classes: int, attention: bool = True, **options: object) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, 8, **options)  # type: ignore[arg-type]
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True) if attention else None
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.words(x.long())
        if self.mix is not None:
            rows = rows + self.mix(rows, rows, rows, need_weights=False)[0]
        return self.head(rows.mean(1))


class Bag(nn.Module):
    """Logits are sums of an embedding bag's rows."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(TOKENS, classes, mode="sum")

    def forward(self, x: Tensor) -> Tensor:
        return self.bag(x.long())


class Tied(nn.Module):
    """A small language model: the head's weight is the embedding's."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(TOKENS, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, classes, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(self.words(x[:, -1].long()))))


NETS: dict[str, Callable[[int], nn.Module]] = {
    "attending": Words,
    "averaging": lambda classes: Words(classes, attention=False),
    "padded": lambda classes: Words(classes, attention=False, padding_idx=0),
    "bounded": lambda classes: Words(classes, attention=False, max_norm=1.0),
    "sparse": lambda classes: Words(classes, attention=False, sparse=True),
    "flat": lambda classes: nn.Sequential(nn.Flatten(), Words(classes, attention=False)),
    "bag": Bag,
    "tied": Tied,
}


def __getattr__(name: str) -> Callable[[ModelSpec, Shape, int], nn.Module]:
    if name not in NETS:
        raise AttributeError(name)
    return lambda spec, shape, classes: NETS[name](classes)
