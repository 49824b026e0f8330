import pytest
from hand_made import study, taxonomy

from tracking.figures.drawing.panels import FAINT
from tracking.figures.overlap import compared_level, overlap, pairs

SCORES = ["seed", "prune.score"]


def compared(records):
    """Records of one method, each ticket with an overlap of 0.6 and a chance level of 0.2."""
    more = {"overlap_seeds": 0.6, "overlap_seeds_chance": 0.2}
    return [{**r, **more} if r["branch"] == "ticket" else r for r in records]


def test_one_method_is_drawn_between_seeds_beside_chance_in_percent():
    (panel,) = overlap(compared(study()), ["seed"]).axes
    chance, seeds = sorted(panel.lines, key=lambda drawn: drawn.get_color() != FAINT)
    assert list(seeds.get_ydata()) == pytest.approx([60, 60])
    assert list(chance.get_ydata()) == pytest.approx([20, 20])
    assert list(seeds.get_xdata()) == [50, 25]


def test_nothing_compared_is_not_drawn():
    assert overlap(study(), ["seed"]) is None
    bare = [{**r, "overlap_methods": {}} for r in taxonomy() if r["branch"] == "ticket"]
    assert overlap(bare, SCORES) is None


def test_the_compared_level_is_nearest_to_a_fifth_on_a_logarithmic_scale():
    tickets = [r for r in taxonomy() if r["branch"] == "ticket"]
    assert compared_level(tickets) == 2  # 25%: nearer to 20% than 12.5% is
    assert compared_level([r for r in tickets if r["level"] != 2]) == 3
    assert compared_level([]) is None


def test_pairs_are_means_over_seeds_and_the_diagonal_is_between_seeds():
    tickets = [
        {"method": "a", "overlap_seeds": 0.5, "overlap_seeds_chance": 0.1,
         "overlap_methods": {"b": share}, "overlap_methods_chance": {"b": 0.2}}
        for share in (0.3, 0.5)
    ]  # fmt: skip
    assert pairs(tickets) == {("a", "b"): pytest.approx((40, 20)), ("a", "a"): (50, 10)}


def test_each_pair_of_methods_is_shown_once_with_its_chance_level_below():
    figure = overlap(taxonomy(), SCORES)
    panel = figure.axes[0]
    said = [text.get_text() for text in panel.texts]
    assert len(said) == 2 * 18 * 19 / 2
    assert said[:4] == ["25", "14", "25", "14"]  # 0.25 / 1.75 by chance
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == [tick.get_text() for tick in panel.get_xticklabels()]
    assert len(names) == 18
    assert panel.get_title(loc="left") == "Level 2: 25% of the weights remain"


@pytest.mark.slow
def test_a_pair_that_could_not_be_compared_is_left_blank():
    records = taxonomy()
    for record in records:
        if record["branch"] != "dense":
            for one, other in (("snip", "grasp"), ("grasp", "snip")):
                if record["method"] == one:
                    del record["overlap_methods"][other]
    panel = overlap(records, SCORES).axes[0]
    assert len(panel.texts) == 2 * (18 * 19 / 2 - 1)
