"""The order in which lots of trials are handed to Tune: no dense run is trained by two at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from lth_core.jobs import Job


class DenseFirst(Searcher):  # type: ignore[misc]
    """Hands out lots by number; one whose dense run another lot is training waits until it is kept.

    Tune asks again while it has resources to spare, so a dense run that several lots need is
    trained by the first of them, and the others start the moment the store has it. Where the first
    one fails, the next takes its place.

    Args:
        dense: for each lot the dense run that it shares with others, or None.
        known: whether the store has a dense run and all its rewind points.
    """

    def __init__(self, dense: Sequence[Job | None], known: Callable[[Job], bool]) -> None:
        super().__init__()
        self._dense, self._known = dense, known
        self._waiting = list(range(len(dense)))
        self._training: dict[str, str] = {}
        """Dense run -> the Tune trial that trains it."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for number in self._waiting:
            job = self._dense[number]
            if job is None or self._known(job) or job.digest not in self._training:
                self._waiting.remove(number)
                if job is not None:
                    self._training.setdefault(job.digest, trial_id)
                return {"work": number}
        return None if self._waiting else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._training = {d: trial for d, trial in self._training.items() if trial != trial_id}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a later sweep goes by."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""
