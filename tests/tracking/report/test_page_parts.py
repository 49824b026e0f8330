"""What a reader meets on the page besides the verdicts: colours, words, provenance, sizes."""

import re
from pathlib import Path

import pytest
from hand_made import rewound, study, taxonomy
from html_tables import rows
from structured import AXES as STRUCTURES
from structured import NARROWING, TRAINED_AXES, costs, trained
from varied import cell, varied

import tracking.report
from lth_core.analysis.verdict_rule import DEFAULT_RULE
from tracking.report.html import DrawnFigure, Provenance, page
from tracking.report.scope import scope_text
from tracking.report.words import MEANINGS, words_of

STYLE = (Path(tracking.report.__file__).parent / "templates" / "style.css").read_text()
PAIRS = [
    *((text, back) for text in ("ink", "soft", "link") for back in ("page", "card", "best")),
    ("win", "win-back"), ("match", "match-back"), ("miss", "miss-back"), ("few", "few-back"),
    ("few", "card"), ("few", "best"),
    *(("ink", back) for back in ("win-back", "match-back")),
]  # fmt: skip
"""Colours of texts on backgrounds, by the names of the style sheet."""
LEAST = 4.5
"""Contrast of texts: WCAG 2.2, 1.4.3."""


def palettes():
    """The colours of light, dark and print, by name."""
    light, dark, paper = re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in (light, dark, paper)]
    return [found[0], found[0] | found[1], found[0] | found[2]]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first, second):
    low, high = sorted(map(luminance, (first, second)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_contrasts_with_its_background():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    low = {
        (text, back, round(contrast(colours[text], colours[back]), 2))
        for colours in palettes()
        for text, back in PAIRS
        if contrast(colours[text], colours[back]) < LEAST
    }
    assert low == set()


def rendered(records, axes=("seed",), made=None):
    return page("hand-made", records, axes, [], DEFAULT_RULE, made or Provenance())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("records", "axes"),
    [
        (cell([0.1, -3], [3, 3]), []),
        (taxonomy(2, 1), ["prune.score"]),
        (rewound(), ["rewind"]),
        (costs(), STRUCTURES),
        (trained(NARROWING), TRAINED_AXES),
    ],
    ids=["tickets", "methods", "rewind", "structures", "similarity"],
)
def test_every_table_has_a_caption_and_every_heading_a_scope(records, axes):
    text = rendered(records, ["seed", *axes])
    assert text.count("<table") == len(re.findall(r"<caption[^>]*>[^<]+</caption>", text)) > 0
    assert text.count("<th ") == len(re.findall(r'<th scope="(?:col|row)(?:group)?"', text))
    assert "<th>" not in text


def words(text):
    return re.findall(r"<dt>(.*?)</dt>", text.partition("words of this page")[2])


def test_the_glossary_has_the_words_that_the_page_uses_and_no_other():
    plain = words(rendered(varied(study())))
    of_rewinding = words(rendered(rewound(), ["rewind", "seed"]))
    assert {"density", "ticket", "reinit", "matching", "winning", "p"} <= {*plain}
    assert not {"twin", "barrier", "scratch_e", "layer collapse", "random_mask"} & {*plain}
    assert {"barrier", "stable", "rewind point"} <= {*of_rewinding}
    assert [each.name for each in words_of("<td>scratch_e</td>", "2")] == [
        name for name in MEANINGS if name in ("dense", "ticket", "scratch_e", "rewind point")
    ]
    (stable,) = [each for each in words_of("unstable", "4.5") if each.name == "stable"]
    assert stable.meaning.endswith("below 4.5 points.")


def test_the_page_says_how_the_study_was_made_with_commands_to_copy():
    made = Provenance(
        facts={"seeds": "0, 1"}, links={"tracking": "http://there"},
        commands={"run it again": "lth sweep 'a b'"}, spec="name: a\n",
    )  # fmt: skip
    text = rendered(study(), made=made)
    assert "<dt>seeds</dt><dd>0, 1</dd>" in text
    assert '<a href="http://there">http://there</a>' in text
    assert "<code>lth sweep &#39;a b&#39;</code><button" in text
    assert '<pre tabindex="0">name: a\n</pre>' in text
    assert "How it was made" not in rendered(study())


def test_settings_are_listed_with_their_sparsest_tickets():
    records = [
        r
        for width, gaps in ((0.5, [0.1, -3]), (1, [0.1, 0.1, -3]), (2, [-3, -3]))
        for r in cell(gaps, [3] * len(gaps), **{"model.width": width})
    ]
    found = rows(rendered(records, ["seed", "model.width"]), "data-part")
    assert [row[:3] for row in found] == [
        ["0.5", "50%", "50%"], ["1", "25%", "25%"], ["2", "\u2013", "\u2013"],
    ]  # fmt: skip
    assert found[0][-2:] == ["5", "25% does not match"]


@pytest.mark.parametrize(
    ("records", "axes", "text"),
    [
        (study(), [], "Records of 3 of 9 trials, 2 levels, 3 seeds; down to 25% of the weights."),
        (
            [*study(**{"model.width": 1, "lr": 3}), *study(levels=1, **{"model.width": 2, "lr": 6}),
             *study(**{"model.width": 2, "lr": 6})],
            ["model.width", "lr"],
            "Records of 3 of 9 trials, 2 levels, 3 seeds; 2 widths (1, 2); down to 25% of the weights.",
        ),
        (
            taxonomy(2, 1),
            ["prune.score"],
            "Records of 36 of 9 trials, 1 level, 2 seeds; 18 methods; down to 50% of the weights.",
        ),
    ],
    ids=["one setting", "axes that vary together", "methods"],
)  # fmt: skip
def test_the_scope_counts_what_was_run_and_names_what_varies(records, axes, text):
    assert scope_text(records, ["seed", *axes], 9) == text


@pytest.mark.slow
def test_a_report_of_1000_records_is_under_5_megabytes():
    records = [
        {**r, "trial": f"{r['trial']}-{width}", "model.width": width}
        for width in range(23)
        for r in cell([0.1] * 4 + [-3] * 4, [3] * 8)[:44]
    ]
    assert len(records) > 1000
    drawn = [DrawnFigure("travel", "", "", "x" * 200_000, b"", "")] * 10
    text = page("s", records, ["seed", "model.width"], drawn, DEFAULT_RULE, Provenance())
    assert len(text.encode()) < 5_000_000
