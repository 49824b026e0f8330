"""What is trained at each level, by when and how often the mask is found."""

from dataclasses import replace
from typing import Any

import pytest
from toys import jobs_of

from lth_core import PruneSpec, TicketSpec, Trainer, find_tickets
from lth_core.jobs.branches import BRANCHES, RETRAINED, SCRATCH
from lth_core.jobs.recipes import Full, Job, Pruned
from lth_core.masks import nested

WAYS: dict[str, dict[str, Any]] = {
    "imp": {"when": "after"},
    "one-shot": {"when": "after", "one_shot": True},
    "snip": {"when": "before", "score": "snip"},
    "gmp": {"when": "during"},
    "rigl": {"when": "during", "grow": "gradient"},
    "edge-popup": {"when": "never", "score": "edge-popup"},
    "supermask": {"when": "never", "score": "supermask"},
}
ALL = tuple(name for name in BRANCHES if name not in (*RETRAINED, *SCRATCH, "twin"))


def tickets(small: TicketSpec, way: str, **changes: Any) -> list[Job]:
    """The dense run's job and each level's ticket's."""
    fields = {"fraction": 0.5, "output_fraction": 0.25, **WAYS[way]}
    if fields["when"] == "during":
        fields["begin"] = "25%"
    prune = PruneSpec(**fields)
    spec = replace(small, prune=prune, **{"branches": ("ticket",), "levels": 3, **changes})
    jobs = jobs_of(spec)
    return [jobs[0]["dense"], *(level["ticket"] for level in jobs[1:])]


def test_iterative_pruning_scores_the_ticket_before(small: TicketSpec) -> None:
    jobs = tickets(small, "imp")
    for level in (1, 2, 3):
        mask = jobs[level].mask
        assert isinstance(mask, Pruned)
        assert (mask.of, mask.prune.fraction, mask.prune.output_fraction) == (
            jobs[level - 1], 0.5, 0.25,
        )  # fmt: skip


@pytest.mark.parametrize("way", ["one-shot", "snip", "gmp", "rigl", "edge-popup", "supermask"])
def test_other_ways_find_each_levels_mask_anew_at_the_compounded_density(
    way: str, small: TicketSpec
) -> None:
    dense, *levels = tickets(small, way)
    for level, job in enumerate(levels, start=1):
        spec = job.finds or (job.mask.prune if isinstance(job.mask, Pruned) else None)
        assert spec is not None
        assert spec.fraction == pytest.approx(1 - 0.5**level)
        assert spec.output_fraction == pytest.approx(1 - 0.75**level)
        assert job.level == level
        if isinstance(job.mask, Pruned):
            assert job.mask.of == (dense if way == "one-shot" else dense.at(7))
        else:
            assert job.mask == Full()
    assert len({job.digest for job in levels}) == 3


def test_rigl_begins_with_a_random_mask_as_sparse_and_gmp_with_all(small: TicketSpec) -> None:
    assert [job.mask for job in tickets(small, "gmp")] == [Full()] * 4
    for level, job in enumerate(tickets(small, "rigl")[1:], start=1):
        assert isinstance(job.mask, Pruned)
        assert job.mask.prune.score == "random"
        assert job.mask.prune.fraction == pytest.approx(1 - 0.5**level)


@pytest.mark.parametrize("way", ["snip", "edge-popup", "rigl"])
def test_masks_found_before_training_score_the_rewind_point(way: str, small: TicketSpec) -> None:
    for rewind in (0, 7):
        dense, *levels = tickets(small, way, rewind=rewind)
        assert {job.start.digest for job in levels} == {dense.at(rewind).digest}
        for job in levels:
            assert not isinstance(job.mask, Pruned) or job.mask.of == dense.at(rewind)


def test_first_level_of_one_shot_and_iterative_pruning_is_one_training(small: TicketSpec) -> None:
    iterative, shot = tickets(small, "imp"), tickets(small, "one-shot")
    assert shot[1].digest == iterative[1].digest
    assert {job.digest for job in shot[2:]}.isdisjoint({job.digest for job in iterative})


@pytest.mark.parametrize("way", WAYS)
def test_rewind_points_and_ways_share_the_dense_run(way: str, small: TicketSpec) -> None:
    jobs = {rewind: tickets(small, way, rewind=rewind) for rewind in (0, 5, 10)}
    assert {level[0].digest for level in jobs.values()} == {tickets(small, "imp")[0].digest}
    assert len({level[1].digest for level in jobs.values()}) == 3
    masks = {level[1].mask.digest for level in jobs.values()}
    # After training it is the dense run that is pruned, wherever one rewinds to.
    shared = way in ("imp", "one-shot") or isinstance(jobs[0][1].mask, Full)
    assert len(masks) == (1 if shared else 3)


@pytest.mark.parametrize("way", WAYS)
def test_every_branch_takes_the_tickets_steps_and_reinit_all_of_them(
    way: str, small: TicketSpec
) -> None:
    when = WAYS[way]["when"]
    more = {"after": (*RETRAINED, "twin"), "before": ("twin",)}.get(when, ())
    fields = {"begin": "25%"} if when == "during" else {}
    prune = PruneSpec(fraction=0.5, **WAYS[way], **fields)
    for level in jobs_of(replace(small, prune=prune, branches=(*ALL, *more)))[1:]:
        for branch, job in level.items():
            untrained = when == "never" and branch not in ("ticket", "trained")
            first = 0 if branch == "reinit" and not untrained else 7
            assert (job.first, job.last) == (first, 7 if untrained else 40)
            assert job.level == level["ticket"].level
            assert job.dense is not None
            assert job.dense.level == 0


def test_random_and_magnitude_masks_before_training_are_nested(
    small: TicketSpec, trainer: Trainer
) -> None:
    """Each level's mask is found anew, but of one and the same ranking."""
    for score in ("random", "magnitude"):
        prune = PruneSpec(when="before", score=score, fraction=0.5)
        spec = replace(small, prune=prune, branches=("ticket",))
        found = [level.mask for level in find_tickets(spec, trainer)]
        assert nested(found[2], found[1])
