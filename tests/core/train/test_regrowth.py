"""SET and RigL: as sparse from the first step on, weights are swapped for others."""

from itertools import pairwise
from math import cos, pi

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from toys import jobs_of
from watched import Watch, counts, equal, watch

from lth_core import ModelSpec, PruneSpec, TicketSpec, Trainer, TrainSpec, data, models
from lth_core.jobs.recipes import Job
from lth_core.masks import Mask, State, chance_overlap, overlap
from lth_core.masks import counts as pairs
from lth_core.measures.weights import MaskAndTravel
from lth_core.train.batches import Order
from lth_core.train.masking.dynamic import SET

SWAPS, END = (3, 7, 11), 15
SGD = TrainSpec(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=0.01, steps=20)
ADAM = TrainSpec(lr=0.01, steps=20)
LAYERWISE = {"fc1.weight": 410, "fc2.weight": 102, "output.weight": 32}
ERK = {"fc1.weight": 307, "fc2.weight": 154, "output.weight": 83}
"""544 in proportion to 64 + 32, 32 + 16 and 16 + 10."""


def search(grow: str, train: TrainSpec = SGD, seed: int = 0, **prune: object) -> TicketSpec:
    """A fifth of the weights; swaps at steps 3, 7 and 11."""
    fields = {"fraction": 0.8, "scope": "erk", "begin": 3, "end": END, "every": 4, **prune}
    return TicketSpec(
        model=ModelSpec(widths=(32, 16)), train=train, branches=("ticket",), levels=1, seed=seed,
        prune=PruneSpec(when="during", grow=grow, **fields),  # type: ignore[arg-type]
    )  # fmt: skip


def job_of(grow: str, train: TrainSpec = SGD, seed: int = 0, **prune: object) -> Job:
    return jobs_of(search(grow, train, seed, **prune))[1]["ticket"]


def share(step: int) -> float:
    """Of each layer's weights: 0.3 at first, as a cosine to 0 at the end."""
    return 0.3 * (1 + cos(pi * (step - 3) / (END - 3))) / 2


def ranked(values: Tensor, among: Tensor) -> list[int]:
    """Places of the entries among those given, the lowest first."""
    flat = values.flatten().tolist()
    return sorted(among.flatten().nonzero().flatten().tolist(), key=lambda i: flat[i])


def left(weight: Tensor, alive: Tensor, step: int) -> tuple[Tensor, int]:
    """What stays when the lowest go, and how many go."""
    n = round(share(step) * int(alive.sum()))
    stays = alive.flatten().clone()
    stays[ranked(weight.abs(), alive)[:n]] = False
    return stays.view_as(alive), n


def gradients(job: Job, state: State, step: int) -> State:
    """Dense ones, of a step's batch."""
    dataset = data.load(job.data, torch.device("cpu"))
    model = models.build(job.model, dataset.shape, 10, torch.Generator()).train()
    model.load_state_dict(state)
    order = Order(len(dataset.train), job.train.batch_size, job.seed, job.level)
    ((_, index, _),) = order.batches(step, step + 1, torch.device("cpu"))
    batch = dataset.train.at(index)
    cross_entropy(model(dataset.normalize(batch.x)), batch.y).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def grown(seen: Watch, step: int, name: str) -> Tensor:
    """What a change grew: all that is there but what stayed."""
    stays, _ = left(seen.changing[step][name], seen.masks[step - 1][name], step)
    return seen.masks[step][name] & ~stays


def new(seen: Watch, step: int, name: str) -> Tensor:
    """What a change grew that was not there before it."""
    return seen.masks[step][name] & ~seen.masks[step - 1][name]


def authors_update(
    weight: list[float], momentum: list[float], mask: list[bool], gradient: list[float], n: int
) -> tuple[list[bool], list[float], list[float]]:
    """Mask, weights and momentum after RigL's authors swap n weights of a layer.

    google-research/rigl, rigl/sparse_optimizers_base.py: _get_update_op, reinit_when_same=False.
    """
    places = range(len(mask))
    score_drop = [abs(w) * m for w, m in zip(weight, mask, strict=True)]
    kept = set(sorted(places, key=lambda i: -score_drop[i])[: sum(mask) - n])
    score_grow = [abs(g) for g in gradient]
    lifted = [min(score_grow) - 1 if i in kept else score_grow[i] for i in places]
    grown = set(sorted(places, key=lambda i: -lifted[i])[:n])
    new_connections = {i for i in grown if not mask[i]}
    return (
        [i in kept | grown for i in places],
        [0.0 if i in new_connections else weight[i] for i in places],
        [0.0 if i in new_connections else momentum[i] for i in places],
    )


@pytest.fixture(scope="module", params=["random", "gradient"])
def seen(request: pytest.FixtureRequest) -> Watch:
    return watch(job_of(request.param))


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize(("scope", "expected"), [("layerwise", LAYERWISE), ("erk", ERK)])
def test_every_layer_keeps_its_count_at_every_step(
    grow: str, scope: str, expected: dict[str, int], trainer: Trainer
) -> None:
    job = job_of(grow, scope=scope)
    assert counts(trainer.mask(job.mask, job)) == expected
    assert [counts(mask) for mask in watch(job).masks] == [expected] * 20


def test_layers_keep_their_counts_where_all_compete_too(trainer: Trainer) -> None:
    job = job_of("gradient", scope="global")
    at_first = counts(trainer.mask(job.mask, job))
    assert sum(at_first.values()) == 544
    assert [counts(mask) for mask in watch(job).masks] == [at_first] * 20


def test_mask_to_begin_with_is_drawn(trainer: Trainer) -> None:
    jobs = [job_of("random"), job_of("random", seed=1)]
    one, other = (trainer.mask(job.mask, job) for job in jobs)
    weights = trainer.start(jobs[0])
    largest: Mask = {
        name: weights[name].abs() >= weights[name].abs().flatten().topk(ERK[name]).values[-1]
        for name in one
    }
    chance = chance_overlap(pairs(one, other))
    assert overlap(one, other) == pytest.approx(chance, abs=0.04)
    assert overlap(one, largest) == pytest.approx(chance, abs=0.04)


def test_masks_change_when_it_is_time_and_never_after_the_end(seen: Watch) -> None:
    changed = [s for s, (a, b) in enumerate(pairwise(seen.masks), start=1) if not equal(a, b)]
    assert changed == list(SWAPS)


def test_swap_takes_the_place_of_rigls_step_and_follows_sets(seen: Watch) -> None:
    is_set = isinstance(seen.masking, SET)
    assert [step for step, taken in enumerate(seen.taken) if not taken] == (
        [] if is_set else list(SWAPS)
    )
    for step in SWAPS:
        moved = seen.changing[step]["fc1.weight"] != seen.before[step]["fc1.weight"]
        assert bool(moved.any()) is is_set
        for name, value in seen.changing[step].items():
            mask = seen.masks[step].get(name)
            expected = value if mask is None else value * mask * ~new(seen, step, name)
            assert torch.equal(seen.after[step][name], expected)


def test_lowest_weights_go_and_fewer_at_each_change(seen: Watch) -> None:
    for step in SWAPS:
        for name, mask in seen.masks[step].items():
            stays, n = left(seen.changing[step][name], seen.masks[step - 1][name], step)
            assert not (stays & ~mask).any()
            assert int((mask & ~stays).sum()) == n
    assert [round(share(step) * 307) for step in SWAPS] == [92, 69, 23]


def test_rigl_grows_the_weights_of_largest_dense_gradient() -> None:
    job = job_of("gradient")
    seen = watch(job)
    for step in SWAPS:
        dense = gradients(job, seen.before[step], step)
        for name in seen.masks[step]:
            stays, n = left(seen.before[step][name], seen.masks[step - 1][name], step)
            largest = torch.zeros(stays.numel(), dtype=torch.bool)
            largest[ranked(dense[name].abs(), ~stays)[-n:]] = True
            assert torch.equal(grown(seen, step, name), largest.view_as(stays))


def test_rigl_updates_weights_and_momentum_as_the_authors_code() -> None:
    seen = watch(job_of("gradient"))
    names = [name for name, _ in seen.model.named_parameters()]
    for step in SWAPS:
        dense = dict(zip(names, seen.gradients[step], strict=True))
        for name, mask in seen.masks[step].items():
            (momentum,) = seen.moments_before[step][name]
            (after,) = seen.moments[step][name]
            before, alive = seen.before[step][name], seen.masks[step - 1][name]
            n = round(share(step) * int(alive.sum()))
            expected = authors_update(
                *(t.flatten().tolist() for t in (before, momentum, alive, dense[name])), n
            )
            assert mask.flatten().tolist() == expected[0]
            # The authors mask the weights in the forward pass, here they are masked in place.
            shown = [w * m for w, m in zip(expected[1], expected[0], strict=True)]
            assert seen.after[step][name].flatten().tolist() == shown
            assert after.flatten().tolist() == expected[2]


def test_set_grows_weights_as_they_are_drawn() -> None:
    job = job_of("random")
    one, again, other = watch(job), watch(job), watch(job_of("random", seed=1))
    assert equal(one.masks[-1], again.masks[-1])
    assert not equal(one.masks[-1], other.masks[-1])
    for name in ERK:
        first, second = (grown(one, step, name) for step in SWAPS[:2])
        large = gradients(job, one.before[3], 3)[name].abs()
        # Neither the same places each time, nor those of large gradient.
        assert int((first & second).sum()) < int(second.sum()) / 2
        stays, _ = left(one.changing[3][name], one.masks[2][name], 3)
        median = large[~stays].median()
        assert 0.3 < float((large[first] > median).float().mean()) < 0.7


@pytest.mark.parametrize("train", [SGD, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.slow
def test_new_weights_start_at_zero_without_a_past_and_come_alive(
    grow: str, train: TrainSpec
) -> None:
    seen = watch(job_of(grow, train))
    for step in SWAPS:
        for name in ERK:
            fresh = new(seen, step, name)
            assert not seen.after[step][name][fresh].any()
            assert seen.moments[step][name]
            for moment in seen.moments[step][name]:
                assert not moment[fresh].any()
                assert moment[seen.masks[step][name] & ~fresh].any()
            assert (seen.after[step + 1][name][fresh] != 0).float().mean() > 0.5


@pytest.mark.parametrize("schedule", ["constant", "linear"])
@pytest.mark.parametrize(
    ("grow", "train"), [("random", SGD), ("gradient", ADAM)], ids=["set", "rigl"]
)
def test_weights_that_one_change_drops_and_grows_keep_value_and_past(
    grow: str, train: TrainSpec, schedule: str
) -> None:
    """Also those that a falling density pruned before they were grown."""
    seen, both = watch(job_of(grow, train, schedule=schedule, scope="layerwise")), 0
    for step in SWAPS:
        for name in LAYERWISE:
            there = seen.masks[step - 1][name] & seen.masks[step][name]
            assert torch.equal(seen.after[step][name][there], seen.changing[step][name][there])
            for old, moment in zip(
                seen.moments_before[step][name], seen.moments[step][name], strict=True
            ):
                assert torch.equal(moment[there], old[there])
            both += int((there & grown(seen, step, name)).sum())
    assert both > 10


def test_what_is_pruned_is_exactly_zero_after_every_step(seen: Watch) -> None:
    for mask, state in zip(seen.masks, seen.after, strict=True):
        assert not any(state[name][~m].any() for name, m in mask.items())


def test_density_may_fall_while_weights_are_swapped() -> None:
    seen = watch(job_of("gradient", schedule="linear", scope="layerwise"))
    for step, progress in ((3, 0), (7, 1 / 3), (11, 2 / 3), (15, 1)):
        assert counts(seen.masks[step]) == {
            name: size - round(0.8 * progress * size)
            for name, size in {"fc1.weight": 2048, "fc2.weight": 512, "output.weight": 160}.items()
        }
    assert not equal(seen.masks[11], {n: m & seen.masks[7][n] for n, m in seen.masks[11].items()})


def test_weights_that_grew_back_have_travelled_from_zero_and_had_no_sign() -> None:
    trainer, job = Trainer(), job_of("gradient")
    trainer([job])
    first, start = trainer.mask(job.mask, job), trainer.start(job)
    state, last = trainer.final(job)
    moved, agree = list[float](), list[bool]()
    for name, mask in last.items():
        for at in mask.nonzero().tolist():
            was = float(start[name][tuple(at)]) if first[name][tuple(at)] else 0.0
            ends = float(state[name][tuple(at)])
            moved.append(abs(ends - was))
            if was:
                agree.append((was > 0) == (ends > 0))
    assert 20 < len(moved) - len(agree) < len(moved)
    taken = trainer.measured(MaskAndTravel(job=job, like=None, dense=job.dense))
    assert taken["travel"] == pytest.approx(sum(moved) / len(moved))
    assert taken["sign_agreement"] == pytest.approx(sum(agree) / len(agree))


def test_ignored_layer_stays_dense() -> None:
    seen = watch(job_of("gradient", ignore=("output",)))
    assert all(bool(mask["output.weight"].all()) for mask in seen.masks)
    assert counts(seen.masks[-1])["fc1.weight"] < 1000
