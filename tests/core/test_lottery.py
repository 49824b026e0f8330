import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from toys import jobs_of

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, find_tickets
from lth_core.errors import DivergedError, SpecError
from lth_core.jobs.recipes import Job
from lth_core.lottery import levels
from lth_core.masks import nested
from lth_core.resolve import resolve
from lth_core.results import LevelResult


def test_levels_are_the_dense_run_then_one_per_pruning(small: TicketSpec) -> None:
    jobs = jobs_of(small)
    assert [list(level) for level in jobs] == [["dense"], *[list(small.branches)] * 2]
    dense = jobs[0]["dense"]
    assert (dense.first, dense.last, dense.keep) == (0, 40, (7,))
    assert [level["ticket"].start for level in jobs[1:]] == [dense.at(7)] * 2


def test_levels_is_pure_and_cheap(tmp_path: Path) -> None:
    """A plan of a thousand jobs touches no data, and knows each by its digest."""
    spec = TicketSpec(data=DataSpec(name="mnist", root=str(tmp_path / "absent")), levels=300)
    resolve(spec)
    started = time.process_time()
    one = [job.digest for level in jobs_of(spec) for job in level.values()]
    assert time.process_time() - started < 2  # it takes 0.02
    assert len(set(one)) == len(one) == 1 + 3 * 300
    assert one == [job.digest for level in levels(resolve(spec)) for job in level.values()]


def test_search_shares_trainings_with_a_deeper_one_with_other_branches(small: TicketSpec) -> None:
    def digests(**changes: object) -> set[str]:
        return {j.digest for lvl in jobs_of(replace(small, **changes)) for j in lvl.values()}

    assert digests(levels=1) < digests()
    assert digests(branches=("ticket",)) < digests()
    assert len(digests() & digests(prune=PruneSpec())) == 1  # the dense run
    # And what is drawn anew under the first mask, for that one hangs on the dense run alone.
    reinit = jobs_of(small)[1]["reinit"].digest
    assert digests() & digests(rewind=5) == {jobs_of(small)[0]["dense"].digest, reinit}


def test_masks_of_a_search_are_nested_and_exact_level_by_level(search: list[LevelResult]) -> None:
    counts = [{"fc1.weight": 2048, "fc2.weight": 512, "output.weight": 160}]
    for level in search:
        assert {name: int(m.sum()) for name, m in level.mask.items()} == counts[-1]
        counts.append(
            {
                n: k - round((0.25 if n == "output.weight" else 0.5) * k)
                for n, k in counts[-1].items()
            }
        )
    assert nested(search[1].mask, search[0].mask)
    assert nested(search[2].mask, search[1].mask)


def test_pruning_takes_the_weights_the_level_before_trained_smallest(
    search: list[LevelResult], trainer: Trainer
) -> None:
    for before, after in pairwise(search):
        trained = trainer.final(before.results[before.branch].job)[0]
        for name, kept in after.mask.items():
            gone, size = before.mask[name] & ~kept, trained[name].abs()
            assert size[gone].max() <= size[kept].min()


def test_one_shot_prunes_the_dense_run_to_the_same_counts(
    small: TicketSpec, search: list[LevelResult], trainer: Trainer
) -> None:
    spec = replace(small, prune=replace(small.prune, one_shot=True), branches=("ticket",))
    shots = list(find_tickets(spec, trainer))
    dense = trainer.final(shots[0].results["dense"].job)[0]
    assert nested(shots[2].mask, shots[1].mask)
    for shot, level in zip(shots, search, strict=True):
        assert shot.records[0]["density"] == level.records[0]["density"]
        assert shot.records[0]["requested_density"] == level.records[0]["requested_density"]
        for name, kept in shot.mask.items():
            if not kept.all():
                assert dense[name][~kept].abs().max() <= dense[name][kept].abs().min()
    # One level is the same pruning either way; two are not.
    assert shots[1].ticket.digest == search[1].ticket.digest
    assert shots[2].ticket.digest != search[2].ticket.digest


def test_one_shot_levels_are_nested_where_scores_tie(small: TicketSpec, trainer: Trainer) -> None:
    spec = TicketSpec(
        model=ModelSpec(name="toys:tied_net", init="as_built"),
        train=TrainSpec(optimizer="sgd", lr=1e-20, steps=1),
        prune=PruneSpec(fraction=0.3, one_shot=True),
        levels=4,
        branches=("ticket",),
    )
    masks = [level.mask for level in find_tickets(spec, trainer)]
    assert all(nested(inner, outer) for outer, inner in pairwise(masks))


def test_replayed_order_makes_a_full_ticket_repeat_the_dense_run(
    small: TicketSpec, trainer: Trainer
) -> None:
    """Nothing pruned, nothing rewound: only the order can tell the ticket from the dense run."""

    def ends(*, replay: bool) -> list[str]:
        spec = replace(
            small,
            train=replace(small.train, replay_order=replay),
            prune=PruneSpec(fraction=0.0),
            rewind=0,
            branches=("ticket",),
        )
        dense, first, second = (lvl.results[lvl.branch].job for lvl in find_tickets(spec, trainer))
        return [str(trainer.final(job)[0]["fc1.weight"].tolist()) for job in (dense, first, second)]

    assert len(set(ends(replay=True))) == 1
    assert len(set(ends(replay=False))) == 3


def test_collapsed_layer_is_flagged_and_training_goes_on(
    small: TicketSpec, trainer: Trainer
) -> None:
    prune = PruneSpec(fraction=0.5, layer_fractions={"fc2": 0.9995})
    levels = list(find_tickets(replace(small, prune=prune), trainer))
    assert [level.records[0]["collapsed_layers"] for level in levels] == [0, 1, 1]
    assert levels[2].records[0]["layer_density"]["fc2"] == 0
    for level in levels[1:]:
        for result in level.results.values():
            curves = result.training.curves
            assert all(0 < loss < 100 for loss in (*curves.train_loss, *curves.validation_loss))


class Untrained(Trainer):
    """Fails when asked to train."""

    def __call__(self, jobs: object) -> list[object]:  # type: ignore[override]
        raise AssertionError(f"trained {jobs}")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prune": PruneSpec(ignore=("fc9",))}, "prune.ignore"),
        ({"prune": PruneSpec(layer_fractions={"fc9": 0.1})}, "prune.layer_fractions"),
        ({"prune": PruneSpec(score="snap")}, "prune.score"),
        ({"branches": ("ticket", "tocket")}, "branches"),
        ({"model": ModelSpec(name="conv-6", depth=3)}, "model.depth"),
        ({"data": DataSpec(validation=5000)}, "data.validation"),
        ({"rewind": 41}, "rewind"),
    ],
)
def test_wrong_spec_is_refused_before_anything_is_trained(
    changes: dict[str, object], field: str, small: TicketSpec
) -> None:
    with pytest.raises(SpecError) as refused:
        list(find_tickets(replace(small, **changes), Untrained()))
    assert refused.value.field == field


def test_diverging_search_stops_with_an_error_that_says_so(small: TicketSpec) -> None:
    train = replace(small.train, optimizer="sgd", lr=1e18)
    with pytest.raises(DivergedError, match="not finite at step 10"):
        list(find_tickets(replace(small, train=train)))


def test_search_trains_only_while_it_is_iterated(small: TicketSpec) -> None:
    trainer = Trainer()
    next(find_tickets(small, trainer))
    known: list[Job] = [
        job for level in jobs_of(small) for job in level.values() if trainer.known(job)
    ]
    assert known == [jobs_of(small)[0]["dense"]]
