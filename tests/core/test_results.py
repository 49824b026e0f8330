import json
from dataclasses import replace

import jsonschema
import pytest
from toys import jobs_of

from lth_core import DataSpec, ModelSpec, PruneSpec, TicketSpec, Trainer, find_tickets
from lth_core.columns import record_schema
from lth_core.errors import CorruptEntryError
from lth_core.masks import chance_overlap, counts, density, ones, overlap
from lth_core.measures.weights import sign_agreement, travel, travel_by_mask
from lth_core.results import LevelResult, record
from lth_core.train.training import Curves, Training


def test_early_stop_is_the_first_lowest_validation_loss_and_nothing_else(
    search: list[LevelResult],
) -> None:
    """The best test accuracy stands elsewhere, and is not reported."""
    curves = Curves(
        step=[10, 20, 30, 40],
        train_loss=[0.4, 0.3, 0.2, 0.1],
        validation_loss=[0.5, 0.3, 0.3, 0.6],
        validation_accuracy=[0.7, 0.8, 0.9, 0.95],
        test_accuracy=[0.99, 0.8, 0.85, 0.9],
    )
    result = search[1].results["ticket"]
    row = record(
        search[1].spec,
        1,
        "ticket",
        replace(result, training=replace(result.training, curves=curves)),
    )
    assert curves.early_stop() == 1
    assert row["early_stop_step"] == 20
    assert row["early_stop_validation_loss"] == 0.3
    assert row["final_validation_accuracy"] == 0.95
    assert row["early_stop_test_accuracy"] == 0.8
    assert row["final_test_accuracy"] == 0.9


@pytest.fixture
def unvalidated(small: TicketSpec, trainer: Trainer) -> list[LevelResult]:
    """The levels of `small`, trained on all examples."""
    spec = replace(small, data=DataSpec(validation=0), levels=1, branches=("ticket",))
    return list(find_tickets(spec, trainer))


def test_early_stop_is_none_where_all_examples_train(unvalidated: list[LevelResult]) -> None:
    for level in unvalidated:
        for row in level.records:
            training = level.results[row["branch"]].training
            assert {name for name, value in row.items() if value is None} >= {
                "early_stop_step", "early_stop_test_accuracy", "early_stop_validation_loss",
                "final_validation_accuracy",
            }  # fmt: skip
            assert row["final_test_accuracy"] == training.curves.test_accuracy[-1] > 0
            assert len(training.curves.test_accuracy) == 4
            jsonschema.validate(row, record_schema())
            content = json.loads(json.dumps(training.to_json()))
            assert Training.from_json(content) == training


def test_curves_of_unequal_length_are_not_read(unvalidated: list[LevelResult]) -> None:
    content = unvalidated[0].results["dense"].training.to_json()
    content["curves"]["validation_loss"] = content["curves"]["train_loss"]
    with pytest.raises(CorruptEntryError, match="curves must be of equal length"):
        Training.from_json(content)


def test_records_hold_the_numbers_of_masks_and_curves(search: list[LevelResult]) -> None:
    for level in search:
        for row in level.records:
            result = level.results[row["branch"]]
            assert row["density"] == pytest.approx(density(level.mask))
            assert row["requested_density"] == pytest.approx(
                (2560 * 0.5**level.level + 160 * 0.75**level.level) / 2720
            )
            assert row["weights_prunable"] == 2720
            assert row["weights_kept"] == sum(int(m.sum()) for m in level.mask.values())
            assert row["parameters"] == 2720 + 32 + 16 + 10
            assert row["flops"] == 2 * row["weights_kept"]  # one position in a linear layer
            assert row["dense_flops"] == 2 * 2720
            assert (row["rewind_step"], row["level"], row["seed"]) == (7, level.level, 0)
            assert row["steps"] == (40 if row["branch"] in ("dense", "reinit") else 33)
            assert row["collapsed_layers"] == 0
            assert row["final_test_accuracy"] == result.training.curves.test_accuracy[-1]
            assert result.training.curves.step == [10, 20, 30, 40]
            assert row["training_digest"] == result.job.digest
            assert row["ticket_digest"] == level.ticket_of(row["branch"]).digest


def test_flops_count_a_kept_weight_at_each_of_its_positions(
    normed: TicketSpec, trainer: Trainer
) -> None:
    level = list(find_tickets(normed, trainer))[1]
    conv, output = (int(level.mask[name].sum()) for name in ("conv.weight", "output.weight"))
    row = level.records[0]
    assert (conv, output) == (18, 1920)
    assert row["flops"] == 2 * (18 * 64 + 1920)
    assert row["dense_flops"] == 2 * (36 * 64 + 2560)


def test_overlap_is_with_the_levels_ticket(search: list[LevelResult], trainer: Trainer) -> None:
    for row in search[2].records:
        job = search[2].results[row["branch"]].job
        assert row["mask_overlap"] == overlap(trainer.mask(job.mask, job), search[2].mask)
        assert (row["mask_overlap"] == 1) == (row["branch"] in ("ticket", "reinit"))


@pytest.mark.parametrize("branch", ["lr_rewind", "finetune"])
def test_overlap_of_a_branch_that_finds_its_own_mask_is_with_the_levels_ticket_too(
    branch: str, small: TicketSpec, trainer: Trainer
) -> None:
    """At the first level both prune the dense run."""
    _, first, second = find_tickets(replace(small, branches=("ticket", branch)), trainer)
    shared = [
        (row["mask_overlap"], overlap(trainer.mask(job.mask, job), level.mask))
        for level in (first, second)
        for row in level.records
        if row["branch"] == branch and (job := level.results[branch].job)
    ]
    assert all(got == expected for got, expected in shared)
    assert shared[0][0] == 1 > shared[1][0] > 0
    row = second.records[1]
    assert 0 < row["mask_overlap_chance"] < row["mask_overlap"]


def test_outputs_of_a_transposed_convolution_are_counted(
    small: TicketSpec, trainer: Trainer
) -> None:
    """Its weight has a row for each input."""
    spec = replace(small, model=ModelSpec(name="odd_nets:transposed"), levels=1)
    job = jobs_of(spec)[1]["ticket"]
    mask = ones(trainer.model(job))
    mask["down.weight"][[0, 2]] = False
    mask["up.weight"][[0, 2]] = False
    mask["up.weight"][:, [1]] = False
    outputs = {name: layer.kept_outputs for name, layer in trainer.layers(job, mask).items()}
    assert outputs == {"down": 2, "up": 5, "head": 10}


def test_ignored_layers_count_in_no_measure(small: TicketSpec, trainer: Trainer) -> None:
    prune = replace(small.prune, ignore=("fc1", "output"))
    _, level = find_tickets(replace(small, prune=prune, levels=1), trainer)
    rows, only = {row["branch"]: row for row in level.records}, "fc2.weight"
    kept = level.mask[only]
    random = level.results["random_mask"].job
    other = trainer.mask(random.mask, random)[only]
    assert rows["random_mask"]["mask_overlap"] == overlap({only: other}, {only: kept}) < 1
    chance = chance_overlap(counts({only: other}, {only: kept}))
    assert rows["random_mask"]["mask_overlap_chance"] == chance
    job = level.results["ticket"].job
    start, end = trainer.start(job)[only], trainer.final(job)[0][only]
    moved = float((end - start)[kept].abs().double().mean())
    assert rows["ticket"]["travel"] == pytest.approx(moved)
    same = float((end.sign() == start.sign())[kept].double().mean())
    assert rows["ticket"]["sign_agreement"] == pytest.approx(same)


def test_ignored_layer_stays_dense_and_out_of_the_count(
    small: TicketSpec, trainer: Trainer
) -> None:
    prune = PruneSpec(fraction=0.5, ignore=("output",))
    levels = list(find_tickets(replace(small, prune=prune, branches=("ticket",)), trainer))
    row = levels[2].records[0]
    assert row["weights_prunable"] == 2560
    assert row["weights_kept"] == 640
    assert row["density"] == row["requested_density"] == levels[2].ticket.density == 0.25
    assert row["layer_density"] == {"fc1": 0.25, "fc2": 0.25, "output": 1.0}
    assert row["flops"] == 2 * (640 + 160)


def test_records_hold_how_far_weights_travelled(
    search: list[LevelResult], trainer: Trainer
) -> None:
    dense = search[0].results["dense"].job
    whole = trainer.start(dense), trainer.final(dense)[0]
    for level in search:
        for row in level.records:
            job = level.results[row["branch"]].job
            mask = trainer.mask(job.mask, job)
            start, end = trainer.start(job), trainer.final(job)[0]
            assert row["travel"] == travel(start, end, mask)
            assert row["sign_agreement"] == sign_agreement(start, end, mask)
            inside, outside = travel_by_mask(*whole, mask)
            expected = (row["travel"], None) if job == dense else (inside, outside)
            assert (row["travel_inside"], row["travel_outside"]) == expected
            ticket = search[level.level].mask
            assert row["mask_overlap_chance"] == chance_overlap(counts(mask, ticket))
            assert (row["method"], row["when"]) == ("imp-rewind", "after")
    rows = {row["branch"]: row for row in search[2].records}
    assert rows["ticket"]["travel_inside"] > rows["ticket"]["travel_outside"]
    drawn = rows["random_mask"]
    assert drawn["travel_inside"] == pytest.approx(drawn["travel_outside"], rel=0.15)
    assert drawn["mask_overlap"] == pytest.approx(drawn["mask_overlap_chance"], abs=0.05)


def test_records_are_json_and_trainings_come_back_from_it(search: list[LevelResult]) -> None:
    for level in search:
        json.dumps(level.records, allow_nan=False)
        for result in level.results.values():
            content = json.loads(json.dumps(result.training.to_json()))
            assert Training.from_json(content) == result.training


def test_level_prints_as_one_line(search: list[LevelResult]) -> None:
    assert str(search[0]).startswith("level  0  density 1.000  dense 0.")
    assert [part.split()[0] for part in str(search[1]).split("  ")[-4:]] == list(search[1].results)


@pytest.mark.slow
def test_search_learns() -> None:
    """Small as it is, the net tells digits apart, so that what is compared is no noise."""
    level = next(find_tickets(TicketSpec(levels=0)))
    assert level.records[0]["final_test_accuracy"] > 0.93


def test_level_is_shown_in_a_line_or_a_table_and_takes_no_measure(
    search: list[LevelResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "measured", None)
    assert repr(search[1]).startswith("<LevelResult: level 1 density 0.515 ticket 0.")
    shown = search[1]._repr_html_()
    assert all(f"<tr><td>{branch}</td>" in shown for branch in search[1].results)
