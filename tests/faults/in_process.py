"""A sweep's trials one after another in one process, without Ray.

Its processes are forked from one that has imported everything, so one costs a fraction of a second
and can be killed or stopped dozens of times.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from multiprocessing.context import ForkServerProcess
from typing import Any

from forked import CONTEXT
from swept import PATIENCE, Swept

from lth_core.store import locks as claims
from lth_core.store import open_store
from lth_core.train import trainer as engine
from sweeps.plan.plan import make_plan
from sweeps.run.launch import make_context
from sweeps.run.trial import make_trainer, run_trial, use_threads
from sweeps.store.records import register
from sweeps.studies.reader import parse_study
from tracking.publish.background import background_of


def start(swept: Swept, lease: float = claims.LEASE) -> ForkServerProcess:
    """Train what a study lacks.

    Args:
        lease: seconds after which a claim that was not renewed may be taken over.
    """
    work = str(swept.folder), swept.fields, lease
    process = CONTEXT.Process(target=_train, args=work, daemon=True)
    process.start()
    return process


def _train(folder: str, fields: dict[str, Any], lease: float) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)  # where the study's network is
    use_threads(1)
    engine.claimed = partial(claims.claimed, lease=lease)
    study = parse_study(fields)
    context = make_context(study)
    open_store(context.store)  # a trainer makes none
    trainer = make_trainer(context.store, context.checkpoint_every)
    register(trainer.store, study)
    for trial in make_plan(study).trials:
        for _ in run_trial(trial, context, trainer):
            pass
    if context.tracking:
        background_of(context.tracking).drain(PATIENCE)
