import pytest
from hand_made import rewound, study, taxonomy
from structured import costs
from varied import cell

from lth_core.analysis.verdict_rule import DEFAULT_RULE
from tracking.report.answer import Answer, study_answer
from tracking.report.rewind_table import rewind_tables
from tracking.report.verdict_table import sections

WINS = ([0.1, 0, -0.1, -3], [3, 1, 1, 0.1])
WIDTH = "model.width"


def answer(records, *axes: str, **more) -> Answer:
    return study_answer(records, ["seed", *axes], **more)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (
            cell(*WINS),
            "Yes, tickets win down to 12.5% of the weights, where fresh weights under the same "
            "masks fall behind.",
        ),
        (
            cell(WINS[0], [0, 1, 0, 0.1]),
            "Yes, tickets win at 25% of the weights, where fresh weights under the same masks fall "
            "behind, and match down to 12.5%.",
        ),
        (
            cell([0.1, 0, 0, 0, 0], [3, 3, 0, 3, 3]),
            "Yes, tickets win at 50%, 25%, 6.25% and 3.12% of the weights, where fresh weights "
            "under the same masks fall behind. No sparser ticket was tried.",
        ),
        (
            cell([0.1] * 5, [0, 3, 3, 3, 0]),
            "Yes, tickets win from 25% to 6.25% of the weights, where fresh weights under the same "
            "masks fall behind, and match down to 3.12%. No sparser ticket was tried.",
        ),
        (
            cell([0.1] * 7, [3, 3, 3, 0, 3, 3, 0]),
            "Yes, tickets win at 5 densities from 50% to 1.56% of the weights, where fresh weights "
            "under the same masks fall behind, and match down to 0.781%. No sparser ticket was tried.",
        ),
        (
            cell(WINS[0], [0, 0, 0, 0]),
            "Partly, tickets match down to 12.5% of the weights, but are not shown better there "
            "than fresh weights under the same masks.",
        ),
        (
            cell(WINS[0]),
            "Tickets match down to 12.5% of the weights; no control with fresh weights was "
            "trained.",
        ),
        (cell([-3, -4]), "No, already at 50% of the weights tickets fall more than 0.5 points "
                         "behind."),
        (cell([-0.2, -4], spread=6), "Undecided at 50% of the weights: about 18 seeds would decide. "
                                     "From 25% on tickets fall more than 0.5 points behind."),
        (cell([-0.2, -0.2], spread=6), "Undecided from 50% of the weights on: about 18 seeds would "
                                       "decide."),
        (
            cell(*WINS, seeds=2),
            "No verdict: 2 seeds of the 3 that it takes. Mean accuracy stays within 0.5 points of "
            "the dense network's down to 12.5%.",
        ),
        (
            cell([0.1, -3, 0.1], seeds=2),
            "No verdict: 2 seeds of the 3 that it takes. Mean accuracy stays within 0.5 points of "
            "the dense network's down to 50%.",
        ),
        (study(levels=0), "No ticket has been trained yet."),
        ([], "Nothing has been trained yet."),
    ],
)  # fmt: skip
def test_one_setting_is_answered_in_a_sentence(records, sentence):
    found = answer(records)
    assert (found.kind, found.sentence) == ("tickets", sentence)


def untrained(*gaps, **more):
    """Records of tickets that are found without training; dense ones are the worst."""
    return cell([-30, *gaps], when="never", **more)


@pytest.mark.parametrize(
    ("records", "sentence", "finding"),
    [
        (
            untrained(0.1, 0, -30),
            "Tickets match at 25% and 12.5% of the weights; no control with fresh weights was "
            "trained.",
            "Tickets match at 25% and 12.5% density (5 seeds)",
        ),
        (
            untrained(-4, -30),
            "No, even the best tickets, at 25% of the weights, fall more than 0.5 points behind.",
            "No ticket shown to match (5 seeds); 25%, the best, does not match",
        ),
        (
            untrained(-0.2, -30, spread=6),
            "Undecided, tickets at 25% of the weights are not shown to match: about 25 seeds would "
            "decide.",
            "No ticket shown to match (5 seeds); 25% is undecided, about 25 seeds would decide",
        ),
    ],
)
def test_tickets_that_are_not_trained_are_answered_by_their_best_levels(records, sentence, finding):
    assert answer(records).sentence == sentence
    (section,) = sections(records, ["seed"], DEFAULT_RULE)
    assert section.finding == finding


def test_settings_that_a_search_chose_are_said_to_need_other_seeds():
    said = "; the best of a search's settings need other seeds to be confirmed"
    found = answer(cell(*WINS), objective=["final_validation_accuracy"])
    assert found.basis == answer(cell(*WINS)).basis + said
    found = answer(cell(*WINS), objective=["final_test_accuracy"])
    assert found.basis.endswith("chosen by final_test_accuracy, so test examples do not judge them")


def test_level_that_ends_undecided_is_said_to_be():
    found = answer(cell([0.1, -0.45], [3, 1], spread=3))
    assert found.sentence.endswith("At 25% it is undecided: about 141 seeds would decide.")


def test_settings_are_counted_and_each_says_how_sparse():
    narrow = cell(*WINS, **{WIDTH: 1})
    wide = cell([0.1, -3], [3, 1], **{WIDTH: 2})
    none = cell([-3], [1], **{WIDTH: 3})
    assert answer(narrow + wide + none, WIDTH).sentence == (
        "Yes, in 2 of 3 settings tickets match the dense network (they win in 2). They match down "
        "to 12.5% at model.width=1, 50% at model.width=2."
    )
    many = [row for width in range(4, 8) for row in cell(*WINS, **{WIDTH: width})]
    assert answer(many + wide, WIDTH).sentence.endswith(
        "The sparsest matching ticket keeps 12.5% of the weights (in 4 of 5 settings); where "
        "tickets match least far it is 50% (model.width=2)."
    )
    last = cell([0.1], [3], **{WIDTH: 0})
    assert answer(last + narrow + cell(*WINS, **{WIDTH: 4}) + wide, WIDTH).sentence.endswith(
        "where tickets match least far it is 50% (in 2 of 4 settings). In 1 of 4 no sparser ticket "
        "was tried."
    )
    assert answer(none + cell([-4], **{WIDTH: 4}), WIDTH).sentence == (
        "No, in none of 2 settings does a ticket match the dense network."
    )
    assert answer(none + cell([0.1], seeds=2, **{WIDTH: 4}), WIDTH).sentence == (
        "Undecided, in none of 2 settings is a ticket shown to match the dense network."
    )


def test_settings_of_untrained_tickets_name_their_sparsest_ones():
    narrow, wide = untrained(0.1, -30, **{WIDTH: 1}), untrained(-30, 0, **{WIDTH: 2})
    assert answer(narrow + wide, WIDTH).sentence == (
        "In 2 of 2 settings tickets match the dense network. The sparsest matching tickets keep "
        "25% at model.width=1, 12.5% at model.width=2. In 1 of 2 no sparser ticket was tried."
    )


def test_settings_that_match_equally_far_are_not_told_apart():
    alike = [row for width in (1, 2) for row in cell(WINS[0], [0, 0, 0, 0], **{WIDTH: width})]
    assert answer(alike, WIDTH).sentence == (
        "In 2 of 2 settings tickets match the dense network, and win in none. They match down to "
        "12.5% of the weights."
    )


def points(*gaps_of: tuple[int, list[float]], spread=1.0, **more):
    """Records of rewind points, by step, with the tickets' gaps to the dense run by level."""
    return [
        {**row, **more}
        for step, gaps in gaps_of
        for row in cell(gaps, spread=spread, rewind=f"{step}it", rewind_step=step)
    ]


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        (
            points((0, [0.1, 0, -3]), (20, [0.1, 0, -3])),
            "Rewinding is not needed: step 0 matches down to 25% of the weights, as far as any "
            "later point.",
        ),
        (
            points((0, [0.1, -3, -3]), (20, [0.1, 0, -3]), (40, [0.1, 0, -3])),
            "Of the points tried, step 20it is the earliest that matches down to 25% of the "
            "weights, step 0 only to 50%; its tickets are not shown better than step 0's (mean "
            "over the levels, adjusted p 0.062).",
        ),
        (
            [
                *points((0, [-1, -3])),
                *points((20, [0.1, -4.1]), spread=3),
                *points((40, [0.1, -1]), (80, [0.1, -2]), spread=2),
            ],
            "Rewinding helps: tickets of step 40it are 1.6 points better than step 0's (mean over "
            "the levels, adjusted p <0.0001); step 20it is the earliest that matches down to 50% of "
            "the weights, step 0 nowhere.",
        ),
        (
            points((0, [-3, -3]), (20, [0.1, -3])),
            "Rewinding helps: step 20it is the earliest that matches down to 50% of the weights, "
            "step 0 nowhere; its tickets are 1.6 points better than step 0's (mean over the levels, "
            "adjusted p 0.031).",
        ),
        (
            points((10, [-3, -3]), (20, [0.1, -3])),
            "Of the points tried, 20it is the earliest that matches down to 50% of the weights.",
        ),
        (points((0, [-3]), (20, [-3])), "No rewind point matches the dense network."),
        (
            points((0, [-9]), (20, [-3])),
            "No rewind point matches the dense network. But tickets of step 20it are 6 points "
            "better than step 0's (mean over the levels, adjusted p 0.031).",
        ),
        (
            [*points((0, [-3])), *cell([0.1], seeds=2, rewind="20it", rewind_step=20)],
            "No rewind point is shown to match the dense network.",
        ),
        (
            [*points((0, [0.1])), *cell([0.1], seeds=2, rewind="20it", rewind_step=20)],
            "Rewinding is not needed: step 0 matches down to 50% of the weights, as far as any "
            "later point but 20it, with too few seeds.",
        ),
        (rewound(), "No rewind point is shown to match the dense network."),
    ],
)
def test_rewind_points_are_answered_by_the_earliest_that_matches_furthest(records, sentence):
    found = answer(records, "rewind")
    assert (found.kind, found.sentence) == ("rewind", sentence)


def test_level_that_a_seed_lacks_has_no_verdict():
    records = [row for row in cell([0.1]) if row["seed"] or not row["level"]]
    assert answer(records).sentence == (
        "No verdict: of the seeds that have a dense run, 4 have tickets at 50%. Mean accuracy stays "
        "within 0.5 points of the dense network's down to 50%."
    )


def test_one_rewind_point_is_compared_with_no_other():
    records = [*points((0, [0.1]), model=1), *points((20, [0.1]), (40, [-3]), model=2),
               *points((20, [-3]), model=3)]  # fmt: skip
    trials = [{**row, "trial": f"{row['model']}-{row['rewind']}-{row['trial']}"} for row in records]
    assert answer(trials, "rewind", "model").sentence == (
        "model=1: Only step 0 was tried; it matches down to 50% of the weights. model=2: Of the "
        "points tried, 20it is the earliest that matches down to 50% of the weights. model=3: Only "
        "step 20it was tried; it is not shown to match."
    )


def test_step_0_counts_whether_or_not_the_schedule_restarts():
    """The plan has it once, with the axis's first value."""
    records = [
        {**row, "restart_schedule": restarts, "trial": f"{restarts}-{step}-{row['trial']}"}
        for restarts, step, gaps in ((False, 0, [0.1, -3]), (False, 20, [0.1, -3]),
                                     (True, 20, [0.1, 0]))
        for row in points((step, gaps))
    ]  # fmt: skip
    sentence = answer(records, "rewind", "restart_schedule").sentence
    assert sentence.startswith("restart_schedule=false: Rewinding is not needed")
    assert "restart_schedule=true: Rewinding helps: step 20it is the earliest" in sentence
    assert "down to 25% of the weights, step 0 only to 50%; its tickets are 1.5 points" in sentence
    axes = ["seed", "rewind", "restart_schedule"]
    tables = rewind_tables(records, axes, DEFAULT_RULE)
    assert [[row.step for row in table.rows] for table in tables] == [[0, 20], [0, 20]]
    assert tables[0].rows[0] == tables[1].rows[0]


def test_rewind_points_of_several_methods_are_judged_together():
    """Of each method alone, tickets would match: p is below 0.05, but not below 0.025."""
    records = [
        {**row, "method": method, "prune.one_shot": method == "one-shot",
         "trial": f"{method}-{step}-{row['trial']}", "rewind": f"{step}it", "rewind_step": step}
        for method in ("imp", "one-shot")
        for step in (0, 20)
        for row in cell([-0.1], spread=5)
    ]  # fmt: skip
    axes = ["prune.one_shot", "rewind"]
    alone = [row for row in records if row["method"] == "imp"]
    assert answer(alone, "rewind").sentence.startswith("Rewinding is not needed")
    assert answer(records, *axes).sentence == (
        "imp: No rewind point is shown to match the dense network. one-shot: No rewind point is "
        "shown to match the dense network."
    )
    tables = rewind_tables(records, ["seed", *axes], DEFAULT_RULE)
    marks = [mark.verdict for table in tables for row in table.rows for mark in row.marks if mark]
    assert marks == ["undecided"] * 4


def test_methods_are_ordered_by_how_far_they_match():
    records = [
        {**row, "method": name, "trial": f"{name}-{row['trial']}", "prune.score": name}
        for name, gaps in {"snip": [0.1, -3, -3], "imp": [0.1, 0, -3], "random": [-3]}.items()
        for row in cell(gaps)
    ]
    found = answer(records, "prune.score")
    assert found.kind == "methods"
    assert found.sentence == (
        "imp matches the dense network furthest, down to 25% of the weights; then snip 50%; "
        "random is not shown to match."
    )
    assert answer(taxonomy(), "prune.score").sentence == (
        "No method is shown to match the dense network. The highest accuracy is that of random, "
        "97.00±2.48% at 50% of the weights (dense 97.00±2.48%)."
    )


def test_masks_that_are_never_trained_under_are_answered_first_and_by_themselves():
    """Those that are trained under match further, and would answer another question."""
    records = [
        {**row, "method": name, "when": "never", "trial": f"{name}-{row['trial']}"}
        for name, gaps in {"edge-popup": [-3, 0.1, -3], "supermask": [-3, -3, -3]}.items()
        for row in [
            *cell(gaps, [3, 3, 3]),
            *({**r, "branch": "trained"} for r in cell([0.1, 0.1, 0]) if r["branch"] == "ticket"),
        ]
    ]
    assert answer(records, "prune.score").sentence == (
        "Never trained: edge-popup matches the dense network furthest, at 25% of the weights; "
        "edge-popup wins at 25%; supermask is not shown to match. Mask learned, then trained: "
        "edge-popup trained and supermask trained match the dense network furthest, down to 12.5% "
        "of the weights."
    )


def test_methods_that_win_are_named():
    records = [
        {**row, "method": name, "trial": f"{name}-{row['trial']}"}
        for name, (gaps, gains) in {
            "imp": ([0.1, 0, -3], [3, 3, 3]),
            "one-shot": ([0.1, 0, -3], [3, 0, 3]),
            "snip": ([0.1, -3, -3], [0, 0, 0]),
        }.items()
        for row in cell(gaps, gains)
    ]
    assert answer(records, "prune.score").sentence == (
        "imp and one-shot match the dense network furthest, down to 25% of the weights; then snip "
        "50%; imp wins down to 25%, one-shot wins down to 50%."
    )
    none = [row for row in records if row["method"] == "snip"]
    none += [{**row, "method": "grasp", "trial": f"grasp-{row['trial']}"} for row in none]
    assert answer(none, "prune.score").sentence == (
        "snip and grasp match the dense network furthest, down to 50% of the weights; none is shown "
        "to win."
    )


@pytest.mark.parametrize(
    ("gaps", "sentence"),
    [
        (
            {"snip": [0.1, 0, -3], "imp": [0.1, 0.00001, -3], "random": [0.1, -3]},
            "snip and imp match the dense network furthest, down to 25% of the weights; then random "
            "50%.",
        ),
        (
            {"snip": [-3, -4], "imp": [-3, -3], "random": [-4]},
            "No method is shown to match the dense network. The highest accuracy is that of snip "
            "and imp, 94.00±0.24% at 50% of the weights (dense 97.00±0.20%).",
        ),
    ],
)
def test_methods_that_are_equal_are_named_together(gaps, sentence):
    records = [
        {**row, "method": name, "trial": f"{name}-{row['trial']}", "prune.score": name}
        for name, own in gaps.items()
        for row in cell(own)
    ]
    assert answer(records, "prune.score").sentence == sentence


def test_methods_of_several_networks_are_compared_each_with_its_own_dense_one():
    """The wide network's worse tickets are more accurate than all of the narrow one."""
    wide = [
        {**row, "final_test_accuracy": row["final_test_accuracy"] + 0.02} for row in cell([-1.5])
    ]
    records = [
        {**row, "method": name, "trial": f"{name}-{row['trial']}", "prune.score": name}
        for name, rows in {"narrow": cell([-1]), "wide": wide}.items()
        for row in rows
    ]
    assert answer(records, "prune.score").sentence == (
        "No method is shown to match the dense network. Closest to its own dense network comes "
        "narrow, 96.00±0.24% at 50% of the weights (dense 97.00±0.20%)."
    )


def test_unfinished_study_says_first_how_much_is_done():
    found = answer(cell(*WINS), incomplete="10 of 96 levels are done")
    assert found.sentence.startswith("So far (10 of 96 levels are done): yes, tickets win")
    assert found.basis == "5 seeds, margin 0.5 points, 95% confidence"
    assert found.lines == ["Tickets win down to 12.5% density (5 seeds, p against reinit <0.0001, "
                           "adjusted <0.0001); 6.25% does not match"]  # fmt: skip


@pytest.mark.parametrize(
    ("flops", "sentence"),
    [
        (
            {"random": 100, "gates": 102, "imp-slimming": 98},
            "At about 50% of the FLOPs random is the most accurate, 95.10±0.25% (dense "
            "97.00±0.00%); then gates 94.10±0.25%, imp-slimming 93.10±0.25%.",
        ),
        (
            {"random": 164, "gates": 104, "imp-slimming": 70},
            "At about 52% of the FLOPs gates is the most accurate, 94.10±0.25% (dense "
            "97.00±0.00%); 2 methods cost more or less.",
        ),
    ],
)
def test_structures_are_ranked_at_one_cost(flops, sentence):
    """Budgets of parameters or latency lead to structures of unlike FLOPs."""
    records = [
        {**row, "flops": flops[row["method"]] if row["branch"] == "ticket" else 200}
        for row in costs()
        if row["branch"] in ("dense", "ticket")
    ]
    assert study_answer(records, ["seed", "prune.score"]).sentence == sentence
