"""The order in which work goes to Tune: nothing that several need is trained by two at once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from lth_core.jobs import Job

RETRIES = 2
"""Times that a piece whose worker died goes out again without having come any further."""
LOOKING = 10
"""Looking into the store takes one part of the time in so many, however slow it is."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one Tune trial is to do.

    config: handed to the worker.
    shared: the trainings in it that other pieces need too.
    """

    config: dict[str, Any]
    shared: Sequence[Job]


class TrainOnce(Searcher):  # type: ignore[misc]
    """Hands out pieces; one that needs what another is training waits until the store has it.

    Tune asks again while it has resources to spare, so a training that several need is run by the
    first of them, and the others start the moment it is kept. A piece whose worker died (a spot
    instance that went, a kill) goes out again, as often as it comes further each time.

    Args:
        pieces: in the order in which they are handed out.
        known: whether the store has a training and all its rewind points.
        standing: how far the store has come with a piece.
        then: what a finished piece is followed by, if by anything.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        known: Callable[[Job], bool],
        standing: Callable[[Piece], object] = lambda piece: None,
        then: Callable[[Piece], Iterable[Piece]] = lambda piece: (),
    ) -> None:
        super().__init__()
        self._known, self._standing, self._then = known, standing, then
        self._ready = deque(pieces)
        self._waiting: dict[Job, list[Piece]] = {}
        """By the training that they wait for."""
        self._running: dict[str, Piece] = {}
        """By Tune's trial."""
        self._training: Counter[str] = Counter()
        """Digests of the shared trainings in the running pieces."""
        self._trained: set[str] = set()
        """Of these the ones that were seen in the store."""
        self._look_again = 0.0
        self._deaths: Counter[str] = Counter()
        """By what a piece had come to when its worker died."""
        self._left = 0
        """Pieces that this round may still hand out."""

    def rounds(self, pieces: int) -> Iterator[TrainOnce]:
        """Itself, once for each Tuner, as long as there is work.

        A Tuner remembers each of its trials for good, some 50 KB, so one is given so many pieces.

        Raises:
            KeyboardInterrupt: the last one was stopped by Ctrl-C, which Tune keeps to itself.
        """
        while self._ready or self._waiting:
            self._left = pieces
            yield self
            if self._left and (self._ready or self._waiting):
                raise KeyboardInterrupt

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._left:
            return str(Searcher.FINISHED)
        self._wake()
        while self._ready:
            piece = self._ready.popleft()
            needed = next((job for job in piece.shared if self._is_being_trained(job)), None)
            if needed:
                self._waiting.setdefault(needed, []).append(piece)
                continue
            self._running[trial_id] = piece
            self._training.update(job.digest for job in piece.shared)
            self._left -= 1
            return piece.config
        return None if self._waiting or self._running else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        piece = self._running.pop(trial_id)
        self._training -= Counter(job.digest for job in piece.shared)
        self._look_again = 0
        if error and self._goes_again(piece):
            self._ready.appendleft(piece)
        elif result and "store" in result:  # every other piece would meet the same
            self._ready.clear()
            self._waiting.clear()
        else:
            self._ready.extend(self._then(piece))

    def _goes_again(self, piece: Piece) -> bool:
        now = repr((piece.config.get("name"), self._standing(piece)))
        self._deaths[now] += 1
        return self._deaths[now] <= RETRIES

    def _is_being_trained(self, job: Job) -> bool:
        return self._training[job.digest] > 0 and job.digest not in self._trained

    def _wake(self) -> None:
        """Let go those that wait for what the store has by now, or for what nobody trains."""
        begun = time.monotonic()
        if begun < self._look_again:
            return
        self._trained |= {
            job.digest for job in self._waiting if self._training[job.digest] and self._known(job)
        }
        for job in [job for job in self._waiting if not self._is_being_trained(job)]:
            self._ready.extendleft(reversed(self._waiting.pop(job)))
        self._look_again = time.monotonic() + LOOKING * (time.monotonic() - begun)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a Tuner keeps itself on disk, to be restored: the store does that for us

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a later sweep goes by."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""
