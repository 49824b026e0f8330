"""The order in which work goes to Tune: nothing that several need is trained by two at once."""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from lth_core.errors import StoreError
from lth_core.jobs.recipes import Job
from lth_core.store import Store

RETRIES = 2
"""Times that a piece whose worker died, or whose store failed, goes out again without having come
any further."""
PATIENCE, PAUSE = 60.0, 5.0
"""Seconds that a store may fail before the sweep ends, and between two tries of it meanwhile."""
PROBE = 2**20
"""Bytes of a try: as much as the weights of a small network."""
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
        try_store: see that the store takes an entry; raises StoreError.

    Where a piece meets a store that fails, no other goes out until the store takes entries again;
    a full disk and a lost bucket do not get well, a busy or a restarted one does.
    """

    def __init__(
        self,
        pieces: Iterable[Piece],
        known: Callable[[Job], bool],
        standing: Callable[[Piece], object] = lambda piece: None,
        then: Callable[[Piece], Iterable[Piece]] = lambda piece: (),
        try_store: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.store_error = ""
        """Why the store was given up, and with it all that was left."""
        self._known, self._standing, self._then = known, standing, then
        self._try_store = try_store
        self._ill_since: float | None = None
        """When the store began to fail, if it does."""
        self._try_again = 0.0
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
        """
        while self._ready or self._waiting:
            self._left = pieces
            yield self

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if not self._left:
            return str(Searcher.FINISHED)
        self._wake()
        while self._ready and self._store_is_well():
            piece = self._ready.popleft()
            needed = next((job for job in piece.shared if self._is_being_trained(job)), None)
            if needed:
                self._waiting.setdefault(needed, []).append(piece)
                continue
            self._running[trial_id] = piece
            self._training.update(job.digest for job in piece.shared)
            self._left -= 1
            return piece.config
        there_is_more = self._ready or self._waiting or self._running
        return None if there_is_more else str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        piece = self._running.pop(trial_id)
        self._training -= Counter(job.digest for job in piece.shared)
        self._trained &= self._training.keys()
        self._look_again = 0
        store_error = "" if error else (result or {}).get("store", "")
        if store_error:
            self._fell_ill()
        if (error or store_error) and self._goes_again(piece):
            self._ready.appendleft(piece)
        elif store_error:
            self._give_up(store_error)
        else:
            self._ready.extend(self._then(piece))

    def _goes_again(self, piece: Piece) -> bool:
        try:
            standing = self._standing(piece)
        except StoreError:
            self._fell_ill()
            standing = None
        now = repr((piece.config.get("name"), standing))
        self._deaths[now] += 1
        return self._deaths[now] <= RETRIES

    def _fell_ill(self) -> None:
        self._ill_since = self._ill_since or time.monotonic()

    def _store_is_well(self) -> bool:
        """Whether it takes entries, as far as is known; tried now and then while it does not."""
        if self._ill_since is None:
            return True
        if time.monotonic() < self._try_again:
            return False
        try:
            self._try_store()
        except StoreError as error:
            self._try_again = time.monotonic() + PAUSE
            if time.monotonic() - self._ill_since > PATIENCE:
                self._give_up(str(error))
            return False
        self._ill_since = None
        return True

    def _give_up(self, why: str) -> None:
        """Every other piece would meet the same."""
        self.store_error = why
        self._ready.clear()
        self._waiting.clear()

    def _is_being_trained(self, job: Job) -> bool:
        return self._training[job.digest] > 0 and job.digest not in self._trained

    def _wake(self) -> None:
        """Let go those that wait for what the store has by now, or for what nobody trains."""
        begun = time.monotonic()
        if begun < self._look_again:
            return
        try:
            self._trained |= {
                job.digest
                for job in self._waiting
                if self._training[job.digest] and self._known(job)
            }
        except StoreError:  # those that wait can wait on
            self._fell_ill()
        for job in [job for job in self._waiting if not self._is_being_trained(job)]:
            self._ready.extendleft(reversed(self._waiting.pop(job)))
        self._look_again = time.monotonic() + LOOKING * (time.monotonic() - begun)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a Tuner keeps itself on disk, to be restored: the store does that for us

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a later sweep goes by."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


def try_store(store: Store) -> None:
    """See that a store takes an entry.

    Raises:
        StoreError: it does not.
    """
    path = f".tried/{uuid.uuid4().hex}"
    store.files.write(path, bytes(PROBE))
    store.files.delete(path)
