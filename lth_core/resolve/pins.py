"""Pins: fingerprints of data and code outside of this package."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from lth_core import data, models
from lth_core.data import DATASETS, Outline
from lth_core.errors import SpecError
from lth_core.models.layers import prunable_layers
from lth_core.plugins import source_fingerprint
from lth_core.prune import scores
from lth_core.seeds import generator
from lth_core.spec import DataSpec, ModelSpec, PruneBase


class DataPin(NamedTuple):
    """Fingerprint and size of data outside of this package."""

    fingerprint: str
    """Digest of the content."""
    examples: int
    """Number of training examples."""
    evaluated: int
    """Number of validation and test examples; 0 in pins of older code, which did not need it."""


@dataclass(frozen=True, slots=True)
class Pins:
    """Fingerprints of code and data outside of this package: a user's own data, models and
    scores, and folders of images. With them a spec resolves to the same on another machine."""

    data: dict[DataSpec, DataPin] = field(default_factory=dict)
    """Pins of data by spec."""
    sources: dict[str, str] = field(default_factory=dict)
    """Fingerprint of the source, by ``package.module:name``."""
    tickets: dict[str, str] = field(default_factory=dict)
    """Digest of each given ticket, by the name that a spec gives."""

    def of_data(self, spec: DataSpec) -> tuple[DataSpec, int, int]:
        """The pinned spec, and its numbers of training and of evaluated examples.

        Raises:
            SpecError: the data have no pin.
        """
        if spec.name in DATASETS:
            pinned, (examples, _, _) = pin_data(spec)
            return pinned, examples, evaluated_examples(spec)
        if spec not in self.data:
            raise SpecError("data.name", _NO_PIN, spec.name)
        pin = self.data[spec]
        pinned = replace(data.absolute(spec), fingerprint=pin.fingerprint)
        return pinned, pin.examples, pin.evaluated

    def of_model(self, spec: ModelSpec) -> ModelSpec:
        """The pinned spec.

        Raises:
            SpecError: the model has no pin.
        """
        custom = ":" in spec.name
        source = self._source("model.name", spec.name) if custom else models.fingerprint(spec)
        return replace(spec, fingerprint=source)

    def of_score(self, spec: PruneBase) -> str:
        """Fingerprint of the spec's score.

        Raises:
            SpecError: the score has no pin.
        """
        custom = ":" in spec.score
        return self._source("prune.score", spec.score) if custom else scores.fingerprint(spec)

    def _source(self, field: str, name: str) -> str:
        if name not in self.sources:
            raise SpecError(field, _NO_PIN, name)
        return self.sources[name]


_NO_PIN = "must have a stored fingerprint, because it is neither imported nor read here"


def find_pins(
    datasets: Iterable[DataSpec], networks: Iterable[str], criteria: Iterable[str]
) -> Pins:
    """Pins of the data, models and scores outside of this package, all imported or read for it.

    Args:
        networks, criteria: names of models and of scores.

    Raises:
        SpecError: a model or score cannot be imported, or fails.
        DataError: data are missing or broken.
    """
    pins = Pins()
    for spec in datasets:
        if spec.name not in DATASETS:
            pinned, (examples, _, _) = pin_data(spec)
            pins.data[spec] = DataPin(pinned.fingerprint, examples, evaluated_examples(spec))
    for path, names in (("model.name", networks), ("prune.score", criteria)):
        custom = {name for name in names if ":" in name}
        pins.sources.update((name, source_fingerprint(path, name)) for name in custom)
    return pins


# Trials of a study share most parts of their specs, so each part is pinned once.


@lru_cache(maxsize=256)
def pin_data(spec: DataSpec) -> tuple[DataSpec, Outline]:
    """The pinned spec, and the outline of its data."""
    pinned = replace(data.absolute(spec), fingerprint=data.fingerprint(spec))
    return pinned, data.outline(spec)


def forget_pins() -> None:
    """Look again at all data and code that are pinned from now on: files may have changed, and
    functions of a notebook may have been defined anew."""
    for cached in (pin_data, evaluated_examples, pin_model):
        cached.cache_clear()
    data.forget_functions()


@lru_cache(maxsize=256)
def evaluated_examples(spec: DataSpec) -> int:
    """Number of validation and test examples."""
    _, validation, test = data.part_sizes(spec)
    return validation + test


@lru_cache(maxsize=256)
def pin_model(spec: ModelSpec) -> ModelSpec:
    """The pinned spec."""
    return replace(spec, fingerprint=models.fingerprint(spec))


@lru_cache(maxsize=256)
def prunable_shapes(
    spec: ModelSpec, shape: tuple[int, ...], classes: int, include: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """The prunable layers' shapes of a pinned spec.

    Checks that the network can be built, and that it has the layers to include.
    """
    model = models.build(spec, shape, classes, generator(0, "structure"))
    known, layers = prunable_layers(model, ("*",)), prunable_layers(model, include)
    for pattern in include:
        if not any(fnmatchcase(name, pattern) for name in known):
            rule = "must match an embedding, or a layer that is prunable anyway"
            raise SpecError("prune.include", rule, pattern, known)
    return {name: tuple(layer.weight.shape) for name, layer in layers.items()}
