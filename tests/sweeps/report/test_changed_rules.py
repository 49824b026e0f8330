"""A rule of verdicts that is changed after a sweep is told: else one could choose it by its result."""

from pathlib import Path

from tiny import Lth, StudyFile

ONE = {"axes.seed": [0, 1, 2], "base.levels": 1, "base.branches": ["ticket"]}
CHANGED = (
    "The rule of verdicts was changed: an earlier sweep had margin 0.5 points, 95% confidence."
)


def test_margin_that_is_changed_after_a_sweep_is_told(
    tiny_file: StudyFile, lth: Lth, here: Path
) -> None:
    path = tiny_file(ONE)
    assert CHANGED not in lth("sweep", path, "--serial").out
    assert CHANGED not in lth("report", "tiny").out
    assert CHANGED in lth("report", "tiny", "verdict.margin=3 points").out
    # A sweep with the other rule does not hide the first one.
    swept = lth("sweep", path, "verdict.margin=3 points", "axes.seed=[0, 1, 2, 3]", "--serial")
    assert (swept.code, CHANGED in swept.out) == (0, True)
    page = (here / "lth-studies" / "tiny" / "report.html").read_text()
    assert "an earlier sweep had margin 0.5 points, 95% confidence" in page
    # Neither does a return to the first one, for the second was tried.
    back = lth("sweep", path, "--serial").out
    assert "an earlier sweep had margin 3 points, 95% confidence" in back
