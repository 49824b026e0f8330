"""Magnitude: the smallest weights go (Han et al. 2015; Frankle & Carbin 2019)."""

from __future__ import annotations

from lth_core.prune.candidate import Candidate, Scores


def magnitude(network: Candidate) -> Scores:
    """|w|: the smallest weights go (Han et al. 2015; Frankle & Carbin 2019).

    Equal ones are told apart by a seeded draw. Globally, the last weight of a layer goes as any
    other, and a layer without survivors stays so.

    >>> import torch
    >>> from lth_core.prune.candidate import plain
    >>> magnitude(plain({"fc.weight": torch.tensor([-2.0, 0.5])}))
    {'fc.weight': tensor([2.0000, 0.5000])}
    """
    return network.each(lambda w, initial: w.abs())
