"""Glossary of a report: the words that its page uses."""

from __future__ import annotations

import re
from html import unescape
from typing import NamedTuple

from lth_core.analysis.verdict_rule import FEWEST


class Word(NamedTuple):
    """A word with its meaning."""

    name: str
    meaning: str


MEANINGS = {
    "trial": "One value of each axis, seed included: a dense run and its tickets at every level.",
    "setting": "The trials that differ in their seed alone; also called a cell.",
    "density": "Share of the prunable weights that is kept, counted from the mask.",
    "level": "Number of prunings applied; level 0 is the dense run.",
    "dense": "The unpruned network, trained for all steps.",
    "ticket": "A mask and the weights to start from: those of the dense run at the rewind point.",
    "reinit": "Control: the ticket's mask on freshly drawn weights.",
    "random_mask": "Control: the ticket's weights under a random mask with the same number kept in "
    "each layer.",
    "shuffled_mask": "Control: the ticket's weights under its mask permuted within each layer.",
    "inverted_mask": "Control: a mask of weights that the ticket prunes, with the same number kept "
    "in each layer.",
    "constant_sign": "Control: the ticket with each weight replaced by its sign times its layer's "
    "standard deviation.",
    "reshuffled": "Control: the ticket with its starting weights permuted within each layer.",
    "finetune": "The trained weights are pruned and trained further, at the last learning rate.",
    "lr_rewind": "The trained weights are pruned and trained further, with the ticket's learning "
    "rates.",
    "scratch_e": "The ticket's channels as a network of its own: fresh weights, trained for as "
    "many steps as the dense run.",
    "scratch_b": "The ticket's channels as a network of its own: fresh weights, trained for the "
    "dense run's FLOPs.",
    "trained": "Training from the rewind point's weights under the mask that was found during "
    "training, or that was learned without training weights.",
    "twin": "A copy of the ticket, or of the dense network from the rewind point on, trained under "
    "another data order.",
    "rewound": "The dense network trained again from the rewind point on; the barrier of the dense "
    "network lies between it and its twin. At rewind point 0 it is the dense run.",
    "barrier": "Highest rise of the error on the straight line between the final weights of two "
    "copies, above the mean error of the two.",
    "stable": "Having a barrier of test error whose 95% interval, or with fewer than three seeds "
    "whose mean, lies below {stable_below} points.",
    "rewind point": "Step of the dense run's training at which the ticket's weights are taken.",
    "method": "Short name of how a mask was found: when, by what score, in how many rounds.",
    "overlap": "Number of weights that both masks keep, divided by the number that either keeps "
    "(Jaccard).",
    "travel": "Mean distance of weights between the start and the end of their training.",
    "accuracy": "Test accuracy at the end of training, mean over seeds ± half of its 95% "
    "t-interval.",
    "early stop": "Step with the lowest validation loss, of those with the final density, mean "
    "over seeds.",
    "faster": "The ticket's early stop is shown to come earlier than the dense run's.",
    "margin": "Accuracy below the dense run that still matches, to be fixed in the study before it "
    "runs. The report says if an earlier sweep had another.",
    "p": "p-value of a one-sided t-test, paired by seed, with a variance moderated over the levels "
    "of the setting; below it, p adjusted over the levels, and over the methods that are compared. "
    "Verdicts follow the adjusted p.",
    "matching": "The ticket trains for no more steps than the dense run, and is shown to be less "
    "than the margin below it, and so is every denser ticket, where tickets are trained.",
    "winning": "Matching, and shown to be better than reinit.",
    "not matching": "Shown to be more than the margin below the dense run, and so is every sparser "
    "ticket, where tickets are trained.",
    "undecided": "Neither is shown. The number of seeds is one with which it would probably be "
    "shown.",
    "too few replicates": f"Fewer than {FEWEST} seeds, or some have a dense run and not this "
    "level: they are under way, or were ended by the study's stop rule or by a loss that is not "
    "finite. The others alone would match too often.",
    "replicates": "Number of seeds of a verdict, of those planned. It is marked where it is "
    "smaller, because records are missing or the study's stop rule ended some trials.",
    "layer collapse": "A layer of the ticket has no weights left.",
}
FORMS = {
    "matching": r"match(ing|es)?",
    "stable": r"(un)?stable",
    "travel": r"travel(led|s)?",
    "trained": r"(?<=\n)trained(?=\n)",
    "winning": r"win(ning|s)?",
}
"""Patterns of words that have further forms, or that are common words too."""


def words_of(page: str, stable_below: str) -> list[Word]:
    """The words of a page, in the order of `MEANINGS`, with those that their meanings use.

    Args:
        page: HTML, without the glossary; its visible text counts.
        stable_below: barrier in points of test error below which training is stable.
    """
    text, used = unescape(re.sub(r"\s*<[^>]*>\s*", "\n", page)), set[str]()
    new = {name for name in MEANINGS if _uses(text, name)}
    while new:
        used |= new
        text = " ".join(MEANINGS[name] for name in new)
        new = {name for name in MEANINGS.keys() - used if _uses(text, name)}
    return [
        Word(name, meaning.replace("{stable_below}", stable_below))
        for name, meaning in MEANINGS.items()
        if name in used
    ]


def _uses(text: str, name: str) -> bool:
    pattern = FORMS.get(name, re.escape(name).replace("_", "[_ ]") + "s?")
    return re.search(rf"(?<![\w-]){pattern}(?![\w-])", text, re.IGNORECASE) is not None
