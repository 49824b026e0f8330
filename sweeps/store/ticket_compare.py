"""Comparison of two tickets by layer, and of a ticket with one that is made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lth_core.errors import SpecError
from lth_core.jobs.recipes import Job
from lth_core.jobs.transfer import GivenTicket
from lth_core.lottery import levels
from lth_core.masks import chance_overlap, layer_of, overlap
from lth_core.store import Entry, Store
from lth_core.store.decode import read_entry
from lth_core.ticket import Ticket
from lth_core.train import Trainer
from lth_core.train.training import Training
from sweeps.store.tickets import find_ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDifference:
    """Masks and starting weights of two tickets in one layer, or in all.

    weights, kept_a, kept_b, kept_both: numbers of weights.
    overlap, chance: `lth_core.masks.overlap`, and that expected by chance, in [0, 1].
    same_signs: number of weights in both masks whose starting values have the same sign.
    """

    layer: str
    weights: int
    kept_a: int
    kept_b: int
    kept_both: int
    overlap: float
    chance: float
    same_signs: int

    @property
    def signs(self) -> float | None:
        """Share of the weights in both masks whose starting values have the same sign."""
        return self.same_signs / self.kept_both if self.kept_both else None

    def to_json(self) -> dict[str, Any]:
        """Flat JSON object."""
        return {
            "layer": self.layer, "weights": self.weights, "density_a": self.kept_a / self.weights,
            "density_b": self.kept_b / self.weights, "overlap": self.overlap,
            "overlap_chance": self.chance, "same_signs": self.signs,
        }  # fmt: skip


def layer_differences(a: Ticket, b: Ticket) -> list[LayerDifference]:
    """Difference of two tickets in each masked layer, then in all as `all`.

    Raises:
        SpecError: the tickets are of different networks.
    """
    shapes = [{name: tuple(mask.shape) for name, mask in ticket.mask.items()} for ticket in (a, b)]
    if shapes[0] != shapes[1]:
        raise SpecError("B", f"must have the layers of A, {_text(shapes[0])}", _text(shapes[1]))
    layers = [
        _layer(name, a.mask[name], b.mask[name], a.start[name], b.start[name]) for name in a.mask
    ]
    counts = [(each.kept_a, each.kept_b, each.weights) for each in layers]
    sums = (sum(each) for each in zip(*counts, strict=True))
    kept_a, kept_b, weights = sums
    whole = LayerDifference(
        layer="all", weights=weights, kept_a=kept_a, kept_b=kept_b,
        kept_both=sum(each.kept_both for each in layers), overlap=overlap(a.mask, b.mask),
        chance=chance_overlap(counts), same_signs=sum(each.same_signs for each in layers),
    )  # fmt: skip
    return [*layers, whole]


def _layer(name: str, a: Tensor, b: Tensor, start_a: Tensor, start_b: Tensor) -> LayerDifference:
    both = a & b
    kept_a, kept_b = int(a.sum()), int(b.sum())
    same = torch.sign(start_a[both]) == torch.sign(start_b[both])
    return LayerDifference(
        layer=layer_of(name), weights=a.numel(), kept_a=kept_a, kept_b=kept_b,
        kept_both=int(both.sum()), overlap=overlap({name: a}, {name: b}),
        chance=chance_overlap([(kept_a, kept_b, a.numel())]), same_signs=int(same.sum()),
    )  # fmt: skip


def _text(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{layer_of(name)} {'x'.join(map(str, s))}" for name, s in shapes.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """A ticket of the store, and whether making it again from its recipe gave the same.

    trainings: number of trainings that were made again.
    differences: layers whose masks or starting weights differ.
    made_with: differing versions, device and arithmetic, as (name, stored, now).
    """

    digest: str
    trainings: int
    differences: list[str]
    made_with: list[tuple[str, str, str]]

    def lines(self) -> Iterator[str]:
        """Result in words."""
        if not self.differences:
            made = f"{self.trainings} training{'s' * (self.trainings != 1)}"
            yield f"{self.digest}: the same, bit for bit, after {made}"
            return
        yield f"{self.digest}: differs in {', '.join(self.differences)}"
        for name, stored, now in self.made_with:
            yield f"{name}: {stored} when it was found, {now} now"


def remake(store: str, digest: str) -> Remade:
    """Make a ticket of the store again from its recipe, in memory, and compare it bit for bit.

    Raises:
        SpecError: no ticket, or more than one, has the digest, or the search that found it is not
            in the store.
        StoreError: the store lacks the training of the ticket.
    """
    found = find_ticket(store, digest)
    if found.record.get("source_ticket") == found.record["ticket_digest"]:
        rule = "must be of a search in the store; this one was given to its search"
        raise SpecError("DIGEST", rule, digest)
    again = Trainer(Store(), "cpu", pack=1)
    if found.spec.ticket:  # its search began with a ticket from elsewhere
        key = GivenTicket(content=found.spec.ticket).digest
        if entry := found.trainer.store.get("tickets", key):
            again.store.put("tickets", key, entry.meta, {n: entry.blob(n) for n in entry.blobs})
    stored, before = found.ticket(), _digests_before(found.job)
    for branches in islice(levels(found.spec), found.record["level"]):
        again([job for job in branches.values() if job.digest in before])
    made = again.ticket(found.spec, found.record["level"], found.record["branch"], found.job)
    trained = again.store.digests("trainings")
    return Remade(
        digest=stored.digest, trainings=len(trained), differences=_differing(stored, made),
        made_with=_made_otherwise(trained, found.trainer.store, again.store),
    )  # fmt: skip


def _digests_before(job: Job) -> set[str]:
    """Digests of all that a job's mask and starting weights are made from."""
    found, todo = set[str](), [job.mask, job.start]
    while todo:
        recipe = todo.pop()
        if recipe.digest not in found:
            found.add(recipe.digest)
            todo += recipe.parts
    return found


def _differing(a: Ticket, b: Ticket) -> list[str]:
    """Names of the masks and starting weights that are not equal bit for bit."""
    masks = [f"mask of {layer_of(name)}" for name in a.mask if _differs(a.mask, b.mask, name)]
    return masks + [f"start of {name}" for name in a.start if _differs(a.start, b.start, name)]


def _differs(a: Mapping[str, Tensor], b: Mapping[str, Tensor], name: str) -> bool:
    return not torch.equal(a[name], b[name])


def _made_otherwise(trainings: Iterable[str], a: Store, b: Store) -> list[tuple[str, str, str]]:
    """Versions, device and arithmetic of trainings that differ between two stores."""
    found = dict[tuple[str, str, str], None]()
    for digest in trainings:
        of_a, of_b = (_made_with(store, digest) for store in (a, b))
        for name in sorted({*of_a, *of_b}) if of_a else ():
            if of_a.get(name) != of_b.get(name):
                found[name, of_a.get(name, "none"), of_b.get(name, "none")] = None
    return list(found)


def _made_with(store: Store, digest: str) -> dict[str, str]:
    def read(entry: Entry) -> dict[str, str]:
        return Training.from_json(entry.meta).made_with

    return read_entry(store, "trainings", digest, read) or {}
