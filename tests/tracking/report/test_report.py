import base64
import re
from html.parser import HTMLParser

import pytest
from hand_made import curves, rewound, study, taxonomy

from tracking.figures import FIGURES
from tracking.report.html import headlines, write_report

pytestmark = pytest.mark.slow

AXES = ["seed", "prune.fraction"]
FRACTION = {"prune.fraction": 0.5}
OF_REWINDING = {"rewind", "stability", "predictors", "rewind_travel"}
ABSENT = {"methods", "overlap", "width"} | OF_REWINDING
"""Figures that the study made by hand, of one method and with no masks to compare, has not."""
HOSTILE = '<script>alert("x")</script>[red]{{ 1 }}'


def written(folder, records=None, study_name="hand-made", axes=AXES, about=None):
    records = study(**FRACTION) if records is None else records
    file = folder / "report.html"
    path = write_report(file, study_name, records, axes, curves, None, about or {})
    assert path == file
    return path.read_text("utf-8")


def test_a_headline_names_the_sparsest_matching_ticket_and_its_win():
    assert headlines(study(**FRACTION), AXES) == [
        "prune.fraction=0.5: sparsest matching ticket at 50% density (3 seeds), "
        "winning against reinit p=0.018"
    ]


def test_a_headline_says_when_no_ticket_matches():
    losing = [r for r in study() if r["level"] != 1]
    assert headlines(losing, ["seed"]) == ["No matching ticket down to 25% density (3 seeds)"]


def test_a_headline_names_a_denser_winner_where_the_sparsest_match_does_not_win():
    records = [r for r in study() if (r["branch"], r["level"]) != ("reinit", 2)]
    (line,) = headlines(records, ["seed"], 0.1)
    assert line.endswith("at 25% density (3 seeds); sparsest winning one at 50% p=0.018")


def test_a_headline_says_when_the_ticket_is_no_better_than_reinit():
    equal = [
        {**r, "final_test_accuracy": (0.97, 0.96, 0.99)[r["seed"]]}
        if r["branch"] == "reinit"
        else r
        for r in study(levels=1)
    ]
    (line,) = headlines(equal, ["seed"])
    assert re.search(r"\(3 seeds\), not better than reinit p=0\.2\d\d$", line)


@pytest.mark.parametrize("seeds", [1, 2])
def test_below_three_replicates_nothing_is_decided(seeds):
    (line,) = headlines(study(seeds=seeds, **FRACTION), AXES)
    assert line.startswith("prune.fraction=0.5: too few replicates")


def test_levels_0_has_no_ticket_yet():
    assert headlines(study(levels=0), ["seed"]) == ["No ticket yet"]


def test_the_report_writes_each_figure_beside_it_and_in_it(tmp_path):
    page = written(tmp_path, taxonomy(levels=2))
    for name in FIGURES.keys() - {"width"} - OF_REWINDING:
        png = (tmp_path / "figures" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert base64.b64encode(png).decode() in page
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.rglob("*.tmp"))


class Page(HTMLParser):
    """Collects tags with what they load, and checks that what opens is closed."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.open = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_well_formed_and_loads_nothing_from_outside(tmp_path):
    page, text = Page(), written(tmp_path)
    page.feed(text)
    assert page.open == []
    assert not re.search(r"https?://|url\(|@import", text)
    assert page.loads
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert "default-src 'none'" in text
    assert not page.tags & {"script", "link", "iframe", "object"}


def test_the_report_escapes_what_comes_from_a_study(tmp_path):
    axis = f"model.{HOSTILE}"
    records = [{**r, axis: HOSTILE} for r in study(levels=1)]
    records += [{**r, "branch": HOSTILE} for r in records if r["branch"] == "reinit"]
    text = written(tmp_path, records, HOSTILE, ["seed", axis], {HOSTILE: HOSTILE})
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "<h1>&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;[red]{{ 1 }}</h1>" in text


def test_the_report_shows_the_verdict_of_every_level_and_marks_the_best(tmp_path):
    text = written(tmp_path)
    assert text.count('<span class="tag winning">winning</span>') == 1
    assert text.count('<span class="tag not">not matching</span>') == 1
    (best,) = re.findall(r"<tr class=best>(.*?)</tr>", text, flags=re.DOTALL)
    cells = re.findall(r"<td>(?:<span[^>]*>)?([^<]*)", best)
    assert [cell.strip() for cell in cells] == [
        "1", "50%", "winning", "3", "98.00 ± 2.48", "95.00 ± 2.48", "+1.00", "90 / 110", "yes", "0.018",
    ]  # fmt: skip


def test_the_report_flags_layer_collapse(tmp_path):
    records = [{**r, "collapsed_layers": int(r["level"] == 2)} for r in study()]
    assert written(tmp_path, records).count('<span class="tag">layer collapse</span>') == 1


def test_a_figure_that_a_study_has_not_is_not_in_its_report(tmp_path):
    page = written(tmp_path)
    for name, chart in FIGURES.items():
        assert (tmp_path / "figures" / f"{name}.png").exists() == (name not in ABSENT)
        assert (f"<h3>{chart.title}</h3>" in page) == (name not in ABSENT)


def rows_of_methods(text):
    (table,) = re.findall(r'<table class="methods">(.*?)</table>', text, flags=re.DOTALL)
    return re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", table, flags=re.DOTALL)


def test_the_report_of_several_methods_has_a_table_of_them_before_the_figures(tmp_path):
    records = taxonomy(levels=5)
    text = written(tmp_path, records, axes=["seed", "prune.score"])
    rows = dict(rows_of_methods(text))
    assert list(rows)[:2] == ["random", "random-erk"]
    assert len(rows) == len({r["method"] for r in records}) + 2  # and one retrains in two ways
    assert all(marks.count("±") == 5 for marks in rows.values())
    assert [name for name, marks in rows.items() if "<sup>" in marks] == ["magnitude-init"]
    assert [name for name, marks in rows.items() if "class=best" in marks] == ["random"]
    assert 'tag matching">97.00 ± 2.48' in rows["random"]
    order = ['class="methods"', "<h2>Figures</h2>", "<h2>Verdicts</h2>"]
    assert sorted(order, key=text.index) == order
    page = Page()
    page.feed(text)
    assert page.open == []


def test_the_report_of_one_method_has_no_table_of_methods_and_its_verdicts_first(tmp_path):
    text = written(tmp_path)
    assert '<table class="methods">' not in text
    assert text.index("<h2>Verdicts</h2>") < text.index("<h2>Figures</h2>")


REWIND = ["rewind", "seed"]


def written_of_rewinding(folder, **more):
    file = folder / "report.html"
    return write_report(file, "r", rewound(), REWIND, curves, 0.0, {}, **more).read_text("utf-8")


def test_headlines_of_rewind_points_are_not_of_methods():
    lines = headlines(rewound(), REWIND, 0.0)
    assert [line.split(":")[0] for line in lines] == [
        "rewind=0%", "rewind=2%", "rewind=5%", "rewind=10%", "rewind=100%",
    ]  # fmt: skip


def rows_of_rewinding(text):
    (table,) = re.findall(r'<table class="methods rewinds">(.*?)</table>', text, flags=re.DOTALL)
    rows = re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", table, flags=re.DOTALL)
    return {name: re.sub(r"\s+", " ", rest) for name, rest in rows}


def test_the_report_of_rewind_points_has_a_table_of_them_with_barriers(tmp_path):
    text = written_of_rewinding(tmp_path)
    rows = rows_of_rewinding(text)
    assert list(rows) == ["0%", "2%", "5%", "10%", "100%"]
    assert "<td>20</td> <td><small><span>1.10 ± 0.25, stable</span>" in rows["5%"]
    assert '<span class="tag winning">98.00 ± 2.48</span>' in rows["5%"]
    assert "<span class=unstable>4.10 ± 0.25, unstable</span>" in rows["0%"]
    assert "Earliest matching rewind point seen: 5% at 50% density, none at 25%." in text
    assert (
        "Earliest stable rewind point seen: 5% for dense, 2% at 50% density, 100% at 25%." in text
    )


def test_the_report_of_rewind_points_shows_predictors_before_the_figures(tmp_path):
    text = written_of_rewinding(tmp_path)
    order = [
        "<h2>Rewind points</h2>",
        "<h2>Which predictors correlate",
        "<h2>Figures</h2>",
        "<h2>Verdicts</h2>",
    ]
    assert sorted(order, key=text.index) == order
    assert FIGURES["methods"].title not in text
    for name in OF_REWINDING:
        assert f"<h3>{FIGURES[name].title}</h3>" in text
    page = Page()
    page.feed(text)
    assert page.open == []


def test_another_barrier_may_count_as_stable(tmp_path):
    text = written_of_rewinding(tmp_path, stable_below=0.045)
    assert "stable below 4.5" in text
    assert "<span>4.10 ± 0.25, stable</span>" in rows_of_rewinding(text)["0%"]


def test_the_report_of_a_twin_shows_its_barrier_and_not_its_accuracy(tmp_path):
    twins = [
        {**r, "branch": "twin", "test_barrier": 0.05} for r in study() if r["branch"] == "ticket"
    ]
    text = written(tmp_path, [*study(), *twins], axes=["seed"])
    assert "<td>5.00 ± 0.00</td>" in text
    assert ">twin<small>" not in text
    assert "barrier<small>" not in written(tmp_path)


def test_the_report_says_how_it_was_run(tmp_path):
    text = written(tmp_path, about={"command": "lth sweep a.yaml"})
    assert "<dt>command</dt><dd>lth sweep a.yaml</dd>" in text


@pytest.mark.parametrize("records", [[], study(levels=0), study(seeds=1)], ids=len)
def test_the_report_shows_what_there_is(tmp_path, records):
    assert "hand-made" in written(tmp_path, records)


def test_the_same_study_gives_the_same_files(tmp_path):
    written(tmp_path / "a")
    written(tmp_path / "b")
    files = sorted(path for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 1 + 2 * (len(FIGURES) - len(ABSENT))
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


# Studies that are not complete


def planned(records, replicates=4):
    return [{**record, "replicates_planned": replicates} for record in records]


def test_the_report_says_first_of_all_what_is_missing(tmp_path):
    file = tmp_path / "report.html"
    missing = "1 of 4 trials is incomplete: ab has <2> of 6 levels."
    write_report(file, "r", study(), ["seed"], curves, None, {}, incomplete=missing)
    text = file.read_text("utf-8")
    assert (
        "<b>Incomplete.</b> 1 of 4 trials is incomplete: ab has &lt;2&gt; of 6 levels.</p>" in text
    )
    assert text.index("<b>Incomplete.</b>") < text.index("Sparsest matching ticket")
    assert "Incomplete" not in written(tmp_path)


def test_the_report_marks_verdicts_on_fewer_replicates_than_planned(tmp_path):
    last = [r for r in study() if r["level"] < 2 or r["seed"] < 2]
    text = written(tmp_path, planned(last, 3), axes=["seed"])
    assert text.count("<td>3 of 3</td>") == 1
    assert text.count('<td><span class="tag too">2 of 3</span></td>') == 1
    whole = written(tmp_path, planned(study(), 3), axes=["seed"])
    assert whole.count("<td>3 of 3</td>") == 2
    assert '<span class="tag too">' not in whole


def test_headlines_say_how_many_of_the_planned_seeds_they_stand_on():
    (line,) = headlines(planned(study()), ["seed"])
    assert "at 50% density (3 of 4 seeds)" in line
    (line,) = headlines(planned(study(), 3), ["seed"])
    assert "at 50% density (3 seeds)" in line


def test_the_tables_of_methods_and_rewind_points_mark_fewer_replicates_than_planned(tmp_path):
    sign = "<sup>!</sup></td>"
    assert written(tmp_path, planned(taxonomy(), 3), axes=["seed", "prune.score"]).count(sign) == 0
    text = written(tmp_path, planned(taxonomy()), axes=["seed", "prune.score"])
    assert text.count(sign) == (18 + 2) * 5  # ways and densities
    file = tmp_path / "rewinding.html"
    write_report(file, "r", planned(rewound()), REWIND, curves, 0.0, {})
    assert file.read_text("utf-8").count("<sup>!</sup>\n") == 5 * 2
