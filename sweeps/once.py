"""The order in which work goes to Tune: no training that several need is run by two at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from lth_core.jobs import Job


@dataclass(frozen=True, slots=True)
class Piece:
    """What one Tune trial is to do.

    config: handed to the trainable.
    shared: the trainings in it that other pieces need too.
    """

    config: dict[str, Any]
    shared: Sequence[Job]


class TrainOnce(Searcher):  # type: ignore[misc]
    """Hands out pieces; one that needs what another is training waits until the store has it.

    Tune asks again while it has resources to spare, so a training that several need is run by the
    first of them, and the others start the moment it is kept. Where the first one fails, the next
    takes its place.

    Args:
        pieces: in the order in which they are handed out.
        known: whether the store has a training and all its rewind points.
        then: what a finished piece is followed by, if by anything.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        known: Callable[[Job], bool],
        then: Callable[[Piece], Iterable[Piece]] = lambda piece: (),
    ) -> None:
        super().__init__()
        self._waiting, self._known, self._then = list(pieces), known, then
        self._running: dict[str, Piece] = {}
        """By Tune's trial."""
        self._trained: set[str] = set()
        """Of the shared trainings those that were seen in the store."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for piece in self._waiting:
            if not self._must_wait(piece):
                self._waiting.remove(piece)
                self._running[trial_id] = piece
                return piece.config
        return None if self._waiting or self._running else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        done = self._running.pop(trial_id)
        self._waiting += self._then(done)

    def _must_wait(self, piece: Piece) -> bool:
        training = {job.digest for other in self._running.values() for job in other.shared}
        needed = [job for job in piece.shared if job.digest in training - self._trained]
        self._trained |= {job.digest for job in needed if self._known(job)}
        return any(job.digest not in self._trained for job in needed)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a later sweep goes by."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""
