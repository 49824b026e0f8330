import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hand_made import curves, rewound, study, taxonomy
from html_tables import rows
from matplotlib import rc_context, rcParams
from varied import cell, varied

from lth_core.analysis.verdict_rule import DEFAULT_RULE, VerdictRule
from tracking.figures import FIGURES
from tracking.report import html
from tracking.report.answer import study_answer
from tracking.report.html import (
    Completeness,
    DrawnFigure,
    Provenance,
    drawn_figures,
    page,
    write_report,
)
from tracking.text import MISSING

AXES = ["seed", "prune.fraction"]
FRACTION = {"prune.fraction": 0.5}
OF_REWINDING = {"rewind", "stability", "predictors", "rewind_travel"}
OF_STRUCTURES = {"similarity", "similarity_matrix", "structures", "search_cost"}
ABSENT = {"methods", "overlap", "sparsest_tickets"} | OF_REWINDING | OF_STRUCTURES
"""Figures that the study made by hand, of one method and with no masks to compare, has not."""
HOSTILE = '<script>alert("x")</script>[red]{{ 1 }}'


def rendered(
    records=None, axes=AXES, name="hand-made", about=None, drawn=(), rule=DEFAULT_RULE, **options
):
    """The report's page, by default of the study made by hand and without figures."""
    records = study(**FRACTION) if records is None else records
    return page(name, records, axes, drawn, rule, about or Provenance(), **options)


def write(folder, records, axes=AXES):
    file = folder / "report.html"
    assert (
        write_report(file, "hand-made", records, axes, curves, DEFAULT_RULE, Provenance()) == file
    )
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the report of the study made by hand."""
    folder = tmp_path_factory.mktemp("written")
    write(folder, study(**FRACTION))
    return folder


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are drawn and rendered to nothing: rendering takes a second a study."""
    monkeypatch.setattr(html, "_rendered", lambda *arguments: ("<svg></svg>", b""))


@pytest.mark.long
@pytest.mark.slow
def test_figures_are_drawn_alike_whatever_a_users_matplotlibrc_says(written, monkeypatch):
    """LaTeX, which `text.usetex` needs, may be missing."""
    monkeypatch.setattr(html, "figures", lambda *_: {"accuracy": FIGURES["accuracy"]})
    own = {"text.usetex": True, "figure.figsize": (1, 1), "lines.linewidth": 30, "axes.grid": True}
    with rc_context(own):
        (figure,) = drawn_figures(study(**FRACTION), AXES, curves, DEFAULT_RULE)
        assert rcParams["text.usetex"]
    assert figure.svg == (written / "figures" / "accuracy.svg").read_text()


def headlines(records, axes, rule=DEFAULT_RULE):
    return study_answer(records, axes, rule).lines


def headline(records, rule=DEFAULT_RULE):
    (line,) = headlines(records, ["seed"], rule)
    return line


def test_a_headline_names_the_sparsest_winning_ticket_with_its_p_and_what_ends_the_matches():
    records = cell([0.1, 0, -3], [3, 0.1, 3], **FRACTION)
    assert headlines(records, AXES) == [
        "prune.fraction=0.5: tickets win down to 25% density (5 seeds, p against reinit 0.01, "
        "adjusted 0.01); 12.5% does not match"
    ]


def test_a_headline_has_no_end_where_every_ticket_matches():
    assert headline(cell([0.1, 0])) == "Tickets match down to 25% density (5 seeds)"


def test_a_headline_says_when_no_ticket_matches():
    assert headline(cell([-2, -3], [1, 1])) == (
        "No ticket shown to match (5 seeds); 50% does not match"
    )


def test_a_headline_names_a_denser_winner_where_the_sparsest_match_does_not_win():
    assert headline(cell([0.1, 0.1, -3], [3, 0, 0])) == (
        "Tickets win down to 50% density (5 seeds, p against reinit <0.0001, adjusted <0.0001), "
        "match down to 25%; 12.5% does not match"
    )


def test_a_headline_says_when_the_ticket_is_not_shown_better_than_reinit():
    assert headline(cell([0.1, -3], [0, 0])) == (
        "Tickets match down to 50% density (5 seeds), not shown better there than reinit; "
        "25% does not match"
    )


def test_a_headline_says_how_many_seeds_would_decide_the_first_undecided_level():
    assert headline(cell([0.1, -0.45])) == (
        "Tickets match down to 50% density (5 seeds); 25% is undecided, about 18 seeds would decide"
    )
    assert headline(cell([-0.45, -3])) == (
        "No ticket shown to match (5 seeds); 50% is undecided, about 18 seeds would decide"
    )
    assert headline(cell([0.1, -0.5])) == (
        "Tickets match down to 50% density (5 seeds); "
        "25% is undecided, not even 1,000 seeds would decide"
    )


def test_a_headline_names_a_level_with_too_few_replicates_after_the_matching_ones():
    records = [r for r in cell([0.1, 0.1]) if r["level"] < 2 or r["seed"] < 2]
    assert headline(records) == (
        "Tickets match down to 50% density (5 seeds); 25% has too few replicates"
    )


def test_headlines_follow_the_rule_of_the_study():
    records = cell([-0.4, -3])
    assert headline(records) == ("Tickets match down to 50% density (5 seeds); 25% does not match")
    assert headline(records, VerdictRule(margin=0.001)) == (
        "No ticket shown to match (5 seeds); 50% does not match"
    )
    assert headline(records, VerdictRule(confidence=0.999)) == (
        "No ticket shown to match (5 seeds); 50% is undecided, about 14 seeds would decide"
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_below_three_replicates_nothing_is_decided(seeds):
    (line,) = headlines(study(seeds=seeds, **FRACTION), AXES)
    assert line.startswith("prune.fraction=0.5: too few replicates")


def test_levels_0_has_no_ticket_yet():
    assert headlines(study(levels=0), ["seed"]) == ["No ticket yet"]


@pytest.mark.long
@pytest.mark.slow
def test_the_report_writes_each_figure_beside_it_and_in_it(tmp_path):
    text = write(tmp_path, taxonomy(levels=2))
    for name in FIGURES.keys() - {"sparsest_tickets"} - OF_REWINDING - OF_STRUCTURES:
        svg = (tmp_path / "figures" / f"{name}.svg").read_text()
        assert svg in text
        assert (tmp_path / "figures" / f"{name}.csv").read_text().startswith("panel,line,x,mean,")
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.rglob("*.tmp"))


class Page(HTMLParser):
    """Collects tags with what they load, and checks that what opens is closed."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(text):
    parsed = Page()
    parsed.feed(text)
    return parsed


@pytest.mark.slow
def test_the_report_is_well_formed_and_loads_nothing_from_outside(written):
    text = (written / "report.html").read_text("utf-8")
    parsed = parse(text)
    assert parsed.open == []
    assert not re.search(r"https?://|url\(|@import", re.sub(r'xmlns="[^"]*"|url\(#', "", text))
    assert parsed.loads
    assert all(re.match(r"#|data:image/png;base64,|figures/", load) for load in parsed.loads)
    assert not {*parsed.tags} & {"link", "iframe", "object"}


def test_the_report_runs_its_own_script_alone():
    (script,) = re.findall(r"<script>(.*)</script>", rendered(), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', rendered())
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def test_the_report_escapes_what_comes_from_a_study(unrendered):
    axis = f"model.{HOSTILE}"
    records = [{**r, axis: HOSTILE} for r in study(levels=1)]
    records += [{**r, "branch": HOSTILE} for r in records if r["branch"] == "reinit"]
    axes = ["seed", axis]
    drawn = drawn_figures(records, axes, curves, DEFAULT_RULE)
    assert drawn
    of_study = {HOSTILE: HOSTILE}
    made = Provenance(facts=of_study, links=of_study, commands=of_study, spec=HOSTILE)
    text = rendered(records, axes, HOSTILE, made, drawn)
    assert parse(text).tags.count("script") == 1
    assert "<h1>&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;[red]{{ 1 }} <small>" in text


def rows_of_verdicts(text):
    """Texts of the cells of each level."""
    return rows(text, "data-verdict")


def test_the_report_shows_the_verdict_of_every_level_and_marks_the_best():
    records = cell([0.1, 0.1, -0.45, -3], [3, 0, 3, 3])
    text = rendered(records, ["seed"])
    assert re.findall(r'<span class="tag (\S+)">([^<]*)</span>', text.split("<dl")[0]) == [
        ("winning", "winning"), ("matching", "matching"), ("undecided", "undecided"),
        ("not", "not matching"),
    ]  # fmt: skip
    (best,) = re.findall(r"<tr[^>]* class=best>(.*?)</tr>", text, flags=re.DOTALL)
    assert '<th scope="row">25%<small>2</small></th>' in best
    assert rows_of_verdicts(rendered(varied(study()), ["seed"]))[0] == [
        "50% 1", "winning", "98.00 ± 2.48 +1.00", "95.00 ± 2.48", "<0.0001 <0.0001",
        "0.018 0.018", "3", "90 / 110 not faster",
    ]  # fmt: skip


def test_the_report_shows_adjusted_p_below_raw_p():
    text = rendered(cell([0.1, 0, -0.4, -3], [3, 1, 0.1, 0.1]), ["seed"])
    assert ">0.01<small>0.02</small></td>" in text
    # Below, and not behind it: 0.010.02.
    assert "th small, td small { display: block;" in text
    matching, reinit = zip(*[row[4:6] for row in rows_of_verdicts(text)], strict=True)
    low = "<0.0001 <0.0001"
    assert matching == (low, low, "0.01 0.01", "1 1")
    assert reinit == (low, low, "0.01 0.02", "0.01 0.02")


def test_the_report_has_no_early_stops_without_validation_examples():
    records = cell([0.1, -0.45], [3, 3])
    text = rendered(records, ["seed"])
    bare = rendered([{**record, "early_stop_step": None} for record in records], ["seed"])
    assert [row[:-1] for row in rows_of_verdicts(text)] == rows_of_verdicts(bare)
    for word in ("early stop", "faster"):
        assert word in text.partition("<body>")[2]
        assert word not in bare.partition("<body>")[2]
    assert "None" not in bare
    assert ">nan" not in bare.lower()


def test_the_report_shows_no_p_where_there_is_no_test():
    (row,) = rows_of_verdicts(rendered(cell([0.1]), ["seed"]))
    assert row[3] == "<0.0001 <0.0001"
    assert row[-1].endswith(" faster")
    assert not row[-1].endswith("not faster")
    (row,) = rows_of_verdicts(rendered(cell([0.1], [3], seeds=2), ["seed"]))
    assert row[4:6] == [f"{MISSING} {MISSING}"] * 2
    assert row[-1].endswith("not faster")


def test_the_report_says_how_many_seeds_would_decide_an_undecided_level():
    levels = rows_of_verdicts(rendered(cell([0.1, -0.45, -0.5]), ["seed"]))
    assert [row[1] for row in levels] == [
        "matching", "undecided about 18 seeds", "undecided not even 1,000 seeds",
    ]  # fmt: skip


def test_the_report_names_the_rule_of_the_verdicts_below_each_cell():
    dense, records = "Dense 97.00 ± 0.20%; ", cell([0.1, -3])
    assert (
        f"<span>{dense}margin 0.5 points, 95% confidence over 2 levels (Holm)</span>"
    ) in rendered(records, ["seed"])
    rule = VerdictRule(margin=0.0025, confidence=0.995, for_all="none")
    assert (
        f"<span>{dense}margin 0.25 points, 99.5% confidence at each level, not adjusted</span>"
    ) in rendered(records, ["seed"], rule=rule)
    text = rendered(varied(taxonomy(levels=5)), ["seed", "prune.score"])
    assert text.count("95% confidence over 90 levels of 18 methods (Holm)") == 18


def test_the_report_flags_layer_collapse():
    records = [{**r, "collapsed_layers": int(r["level"] == 2)} for r in study()]
    assert rendered(records).count('<span class="tag">layer collapse</span>') == 1


@pytest.mark.slow
def test_figures_without_data_are_not_in_the_report(written):
    text = (written / "report.html").read_text("utf-8")
    for name, chart in FIGURES.items():
        assert (written / "figures" / f"{name}.svg").exists() == (name not in ABSENT)
        assert (f"<h3>{chart.title}</h3>" in text) == (name not in ABSENT)


def rows_of_methods(text):
    (table,) = re.findall(r'<table class="methods">(.*?)</table>', text, flags=re.DOTALL)
    return re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', table, flags=re.DOTALL)


def test_the_report_of_several_methods_has_a_table_of_them_before_the_figures():
    records = varied(taxonomy(levels=5))
    text = rendered(records, ["seed", "prune.score"], drawn=blank("accuracy", "methods"))
    found = dict(rows_of_methods(text))
    assert list(found)[:2] == ["random", "random-erk"]
    assert len(found) == len({r["method"] for r in records}) + 2  # and one retrains in two ways
    assert all(marks.count("±") == 5 for marks in found.values())
    assert [name for name, marks in found.items() if "<sup>" in marks] == ["magnitude-init"]
    assert [name for name, marks in found.items() if "class=best" in marks] == ["random"]
    assert "95% confidence a column" in text
    assert 'tag matching" title=matching>○ 97.00 ± 2.48' in found["random"]
    order = [KEY, 'class="methods"', "<h2>Figures</h2>", VERDICTS]
    assert sorted(order, key=text.index) == order
    assert parse(text).open == []


KEY, VERDICTS = "<h3>Accuracy of all methods</h3>", '<h2 id="verdicts">Verdicts</h2>'


def blank(*names):
    """Figures of these names without an image."""
    return [DrawnFigure(name, FIGURES[name].title, "", "", b"", "") for name in names]


def test_the_report_of_one_method_has_no_table_of_methods_and_its_verdicts_first():
    text = rendered(drawn=blank("accuracy", "travel"))
    assert '<table class="methods">' not in text
    order = ["<h3>Accuracy against density</h3>", VERDICTS, "<h2>Figures</h2>", "<h3>Distance"]
    assert sorted(order, key=text.index) == order
    assert text.count("<h3>Accuracy against density</h3>") == 1


REWIND = ["rewind", "seed"]


def rendered_of_rewinding(records):
    return page("r", records, REWIND, blank(*OF_REWINDING), DEFAULT_RULE, Provenance())


def test_headlines_of_rewind_points_are_not_of_methods():
    lines = headlines(rewound(), REWIND)
    assert [line.split(":")[0] for line in lines] == [
        "rewind=0%", "rewind=2%", "rewind=5%", "rewind=10%", "rewind=100%",
    ]  # fmt: skip


def rows_of_rewinding(text):
    (table,) = re.findall(r'<table class="methods rewinds">(.*?)</table>', text, flags=re.DOTALL)
    found = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', table, flags=re.DOTALL)
    return {name: re.sub(r"\s+", " ", rest) for name, rest in found}


@pytest.mark.slow
def test_the_report_of_rewind_points_has_a_table_of_them_with_barriers():
    text = rendered_of_rewinding(varied(rewound()))
    found = rows_of_rewinding(text)
    assert list(found) == ["0%", "2%", "5%", "10%", "100%"]
    assert "<td>20</td> <td><small><span>1.10 ± 0.25, stable</span>" in found["5%"]
    assert '<span class="tag winning" title=winning>● 98.00 ± 2.48</span>' in found["5%"]
    assert "<span class=unstable>4.10 ± 0.25, unstable</span>" in found["0%"]
    assert "Earliest matching rewind point seen: 5% at 50% density, none at 25%." in text
    assert (
        "Earliest stable rewind point seen: 5% for dense, 2% at 50% density, 100% at 25%." in text
    )


def test_the_report_of_rewind_points_shows_predictors_before_the_figures():
    text = rendered_of_rewinding(rewound())
    order = [
        "<h2>Rewind points</h2>",
        "<h2>Which predictors correlate",
        "<h2>Figures</h2>",
        VERDICTS,
    ]
    assert sorted(order, key=text.index) == order
    assert parse(text).open == []


@pytest.mark.slow
def test_the_report_of_rewind_points_has_their_figures_and_none_of_methods(unrendered):
    drawn = {figure.name for figure in drawn_figures(rewound(), REWIND, curves, DEFAULT_RULE)}
    assert drawn >= OF_REWINDING
    assert "methods" not in drawn


@pytest.mark.slow
def test_another_barrier_may_count_as_stable(unrendered, tmp_path):
    file, records = tmp_path / "report.html", rewound()
    write_report(file, "r", records, REWIND, curves, DEFAULT_RULE, Provenance(), stable_below=0.045)
    text = file.read_text("utf-8")
    assert "stable below 4.5" in text
    assert "<span>4.10 ± 0.25, stable</span>" in rows_of_rewinding(text)["0%"]


def test_the_report_of_a_twin_shows_its_barrier_and_not_its_accuracy():
    twins = [
        {**r, "branch": "twin", "test_barrier": 0.05} for r in study() if r["branch"] == "ticket"
    ]
    rewound = [{**r, "branch": "rewound"} for r in study() if r["branch"] == "dense"]
    text = rendered([*study(), *rewound, *twins], ["seed"])
    assert [row[-1] for row in rows_of_verdicts(text)] == ["5.00 ± 0.00"] * 2
    assert ">twin<small>" not in text
    assert ">rewound<small>" not in text
    assert "barrier<small>" not in rendered()


@pytest.mark.parametrize("records", [[], study(levels=0), study(seeds=1)], ids=len)
def test_the_report_of_partial_records_can_be_rendered(records, unrendered):
    drawn = drawn_figures(records, AXES, curves, DEFAULT_RULE)
    assert "hand-made" in rendered(records, drawn=drawn)


@pytest.mark.slow
def test_the_same_study_gives_the_same_files(written, tmp_path):
    write(tmp_path, study(**FRACTION))
    files = sorted(path for path in written.rglob("*") if path.is_file())
    assert len(files) == 1 + 3 * (len(FIGURES) - len(ABSENT))
    for path in files:
        assert path.read_bytes() == (tmp_path / path.relative_to(written)).read_bytes()


# Studies that are not complete


def planned(records, replicates=4):
    return [{**record, "replicates_planned": replicates} for record in records]


def test_the_report_says_first_of_all_what_is_missing():
    missing = "1 of 4 trials is incomplete: ab has <2> of 6 levels."
    half = Completeness(planned=4, unfinished="9 of 21 levels are done", missing=missing)
    text = rendered(varied(study()), ["seed"], completeness=half)
    assert '<p class="sentence">So far (9 of 21 levels are done): yes, tickets win' in text
    assert "3 of 4 trials, 2 levels, 3 seeds" in text
    assert (
        "<b>Incomplete.</b> 1 of 4 trials is incomplete: ab has &lt;2&gt; of 6 levels.</p>" in text
    )
    assert text.index("<b>Incomplete.</b>") < text.index(VERDICTS)
    assert "Incomplete" not in rendered()


def test_the_report_marks_verdicts_on_fewer_replicates_than_planned():
    last = [r for r in study() if r["level"] < 2 or r["seed"] < 2]
    text = rendered(planned(last, 3), ["seed"])
    assert text.count(">3 of 3</td>") == 1
    assert text.count('><span class="tag too">2 of 3</span></td>') == 1
    whole = rendered(planned(study(), 3), ["seed"])
    assert whole.count(">3 of 3</td>") == 2
    assert '<span class="tag too">' not in whole


def test_headlines_say_how_many_of_the_planned_seeds_they_stand_on():
    records = cell([0.1, -3])
    matching = "Tickets match down to 50% density"
    assert headlines(planned(records, 6), ["seed"]) == [
        f"{matching} (5 of 6 seeds); 25% does not match"
    ]
    assert headlines(planned(records, 5), ["seed"]) == [f"{matching} (5 seeds); 25% does not match"]


def test_the_tables_of_methods_and_rewind_points_mark_fewer_replicates_than_planned():
    sign, axes = "<sup>!</sup></td>", ["seed", "prune.score"]
    assert rendered(planned(taxonomy(), 3), axes).count(sign) == 0
    assert rendered(planned(taxonomy()), axes).count(sign) == (18 + 2) * 5  # ways and densities
    assert rendered_of_rewinding(planned(rewound())).count("<sup>!</sup>\n") == 5 * 2
