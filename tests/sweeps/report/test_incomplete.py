"""Studies of which the store lacks something: the report says what, and marks what stands on less."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import Lth, StudyOf, context_of, search, tiny_fields

from lth_core import Trainer
from lth_core.analysis.summary import summarize
from lth_core.spec import TicketSpec
from lth_core.store import open_store
from sweeps.plan.plan import Trial, make_plan
from sweeps.report.study_results import answer_of, study_results
from sweeps.run.search import open_study
from sweeps.run.trial import run_trial
from sweeps.store.records import TRIALS, load_records, record_key, register, save_records
from sweeps.studies.axes import base_values, spec_of
from sweeps.studies.find import save_swept
from sweeps.studies.reader import parse_study
from sweeps.studies.schema import Study

SEEDS = {"axes.seed": [0, 1, 2, 3]}


@pytest.fixture
def here(swept_four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of one in which four seeds were swept."""
    folder = tmp_path / "here"
    shutil.copytree(swept_four, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def swept_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    fields = tiny_fields(SEEDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for _ in search(parse_study(fields), Trainer(open_store("./lth-store"))):
            pass
    (folder / "tiny.yaml").write_text(yaml.safe_dump(fields))
    return folder


def lose(study: Study, trial: Trial) -> None:
    """Remove a trial's records from the store."""
    open_store(study.store).delete(TRIALS, record_key(study.name, trial))


def cut(study: Study, trial: Trial, levels: int) -> None:
    """Leave the records of a trial's first levels."""
    store = open_store(study.store)
    rows = [r for r in load_records(store, study.name, [trial]) if r["level"] < levels]
    save_records(store, study.name, study.digest(), trial, rows)


def records(lth: Lth) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lth("report", "tiny.yaml", "--json").out.splitlines()]


def html(here: Path) -> str:
    return (here / "lth-studies" / "tiny" / "report.html").read_text()


@pytest.mark.slow
def test_study_of_other_settings_says_what_is_stored(here: Path, lth: Lth) -> None:
    called = lth("report", "tiny.yaml", "train.lr=0.5")
    assert "must have a finished trial of these settings and this code: lth sweep" in called.err
    assert "train.lr=0.5; 4 trials are stored of others, which `lth sweep`" in called.err


def test_report_of_a_complete_study_speaks_of_nothing_missing(
    here: Path, tiny: StudyOf, lth: Lth
) -> None:
    called = lth("report", "tiny.yaml")
    assert called.code == 0
    said = called.out + called.err + lth("report", "tiny.yaml", "--json").err
    assert not re.search("incomplete|!|of 4 seeds", said, re.IGNORECASE)
    assert called.out.count("4/4") == 2
    assert "Incomplete" not in html(here)
    assert html(here).count(">4 of 4</td>") == 2
    assert {(r["replicates"], r["replicates_planned"]) for r in records(lth)} == {(4, 4)}


@pytest.mark.slow
def test_report_says_first_what_is_missing_and_marks_verdicts_on_fewer_replicates(
    here: Path, tiny: StudyOf, lth: Lth
) -> None:
    study = tiny(SEEDS)
    whole, short, lost, _ = make_plan(study).trials
    cut(study, short, 2)
    lose(study, lost)
    missing = (
        f"2 of 4 trials are incomplete: {short.id} has 2 of 3 levels; {lost.id} has no records."
    )
    called = lth("report", "tiny.yaml")
    completed = f"{missing} `lth sweep tiny.yaml` runs what is missing."
    assert called.out.splitlines()[0] == completed
    assert "3/4!" in called.out
    assert "2/4!" in called.out
    assert f"<b>Incomplete.</b> {missing}" in html(here)
    assert '<span class="tag too">3 of 4</span>' in html(here)
    assert '<span class="tag too">2 of 4</span>' in html(here)
    assert "Records of 3 of 4 trials, 1 to 2 levels, 3 seeds" in html(here)
    assert lth("report", "tiny.yaml", "--json").err.strip() == completed
    found = {(r["level"], r["branch"]): (r["replicates"], r["replicates_planned"])
             for r in records(lth) if r["trial"] == whole.id}  # fmt: skip
    assert found == {
        (0, "dense"): (3, 4), (1, "ticket"): (3, 4), (1, "reinit"): (3, 4),
        (2, "ticket"): (2, 4), (2, "reinit"): (2, 4),
    }  # fmt: skip


def test_verify_says_on_how_many_of_the_planned_replicates_a_mean_stands(
    here: Path, tiny: StudyOf, lth: Lth
) -> None:
    row = {"method": "imp", "density": 0.5, "accuracy": 50.0}
    reference = {"source": "theirs", "within": 50, "rows": [row]}
    (here / "tiny.yaml").write_text(yaml.safe_dump({**tiny_fields(SEEDS), "reference": reference}))
    assert lth("verify", "tiny.yaml").out.splitlines()[-1] == "All agree."
    lose(tiny(SEEDS), make_plan(tiny(SEEDS)).trials[0])
    called = lth("verify", "tiny.yaml")
    assert called.code == 0
    assert called.out.splitlines()[-1] == (
        "All agree. Means are over fewer replicates than planned: imp at 50% on 3 of 4."
    )


def test_trials_that_the_stop_rule_ended_are_complete_and_their_verdicts_marked(
    here: Path, tiny: StudyOf
) -> None:
    study = tiny({**SEEDS, "stop": {"below_matching_for": 1}, "verdict": {"margin": 0.1}})
    trials, store = make_plan(study).trials, open_store(study.store)
    for trial in trials:
        rows = load_records(store, study.name, [trial])
        for row in rows:
            if trial is trials[0] and row["branch"] == "ticket":
                row["final_test_accuracy"] = 0.0
            elif row["branch"] == "ticket":
                row["final_test_accuracy"] = 1.0
        save_records(store, study.name, study.digest(), trial, rows)
    cut(study, trials[0], 2)
    found = study_results(make_plan(study))
    assert found.incomplete == ""
    assert {r["replicates"] for r in found.records if r["level"] == 2} == {3}


def test_random_search_lacks_the_samples_without_records(here: Path, tiny: StudyOf) -> None:
    space = {"train.lr": {"low": 0.001, "high": 0.1}}
    study = tiny({
        "axes.seed": [0, 1], "base.levels": 0, "base.branches": ["ticket"],
        "search": {"algorithm": "random", "trials": 3, "space": space},
    })  # fmt: skip
    trials = make_plan(study).trials
    for trial in trials[:-1]:
        sweep(study, trial)
    found = study_results(make_plan(study))
    assert found.incomplete == f"1 of 6 trials is incomplete: {trials[-1].id} has no records."
    assert [r["replicates"] for r in found.records] == [2, 2, 2, 2, 1]
    assert {r["replicates_planned"] for r in found.records} == {2}


def sweep(study: Study, trial: Trial) -> None:
    for _ in run_trial(trial, context_of(study), Trainer(open_store(study.store))):
        pass


def searching(tiny: StudyOf, samples: int) -> Study:
    study = tiny({
        "name": "searching", "axes.seed": [0, 1], "base.levels": 0, "base.branches": ["ticket"],
        "search": {"algorithm": "optuna", "trials": samples, "space": {"train.lr": [0.001, 0.01]}},
    })  # fmt: skip
    register(open_store(study.store), study)
    return study


def sample(study: Study, lr: float, *, fails: bool = False) -> list[Trial]:
    """Sweep one sample of a search, as its worker does."""
    import optuna

    space = {"train.lr": optuna.distributions.CategoricalDistribution([0.001, 0.01])}
    state = optuna.trial.TrialState.FAIL if fails else optuna.trial.TrialState.COMPLETE
    made = optuna.trial.create_trial(
        params={"train.lr": lr}, distributions=space, value=None if fails else 0.9, state=state
    )
    trials = []
    for seed in (0, 1):
        fields = {"train.lr": lr, "seed": seed}
        trials.append(Trial(fields, spec_at(study, fields)))
        sweep(study, trials[-1])
    open_study(study).add_trial(made)
    return trials


def spec_at(study: Study, fields: dict[str, Any]) -> TicketSpec:
    return spec_of(base_values(study), fields)


def test_adaptive_search_that_drew_a_sample_twice_is_complete(here: Path, tiny: StudyOf) -> None:
    study = searching(tiny, samples=3)
    for lr in (0.001, 0.01, 0.001):
        sample(study, lr)
    found = study_results(make_plan(study))
    assert found.incomplete == ""
    assert found.trials == 4


def test_adaptive_search_lacks_samples_that_were_asked_for_and_trials_that_were_lost(
    here: Path, tiny: StudyOf
) -> None:
    study = searching(tiny, samples=3)
    lost, _ = sample(study, 0.001)
    sample(study, 0.01)
    lose(study, lost)
    found = study_results(make_plan(study))
    assert found.incomplete == (
        f"1 of 4 trials is incomplete: {lost.id} has no records. The search has 2 of 3 samples."
    )
    by_rate = {r["train.lr"]: (r["replicates"], r["replicates_planned"]) for r in found.records}
    assert by_rate == {0.001: (1, 2), 0.01: (2, 2)}


def test_adaptive_search_without_its_journal_counts_the_samples_in_the_store(
    here: Path, tiny: StudyOf
) -> None:
    study = searching(tiny, samples=3)
    sample(study, 0.001)
    shutil.rmtree(study.folder())
    assert study_results(make_plan(study)).incomplete == (
        "The search has 1 of 3 samples, equal ones counted once."
    )


def test_adaptive_search_that_has_its_samples_lacks_no_trial_of_a_failed_one(
    here: Path, tiny: StudyOf
) -> None:
    study = searching(tiny, samples=1)
    fields = {"train.lr": 0.01, "seed": 0}
    failed = Trial(fields, spec_at(study, fields))
    sweep(study, failed)
    cut(study, failed, 0)  # its loss was not finite in the dense run
    sample(study, 0.001)
    results = study_results(make_plan(study))
    assert (results.trials, results.incomplete, results.unfinished) == (3, "", "")


def test_trials_of_a_failed_sample_are_no_missing_work_of_a_search_that_goes_on(
    here: Path, tiny: StudyOf
) -> None:
    study = searching(tiny, samples=3)
    sample(study, 0.001)
    failed, _ = sample(study, 0.01, fails=True)
    cut(study, failed, 0)
    results = study_results(make_plan(study))
    assert results.incomplete == "The search has 1 of 3 samples; 1 failed."
    assert results.unfinished == "the search has 1 of 3 samples; 1 failed"
    assert answer_of(study, results).sentence.startswith("So far (the search has 1 of 3 samples")
    assert [best.fields for best in results.best] == [{"train.lr": 0.001}]


def test_best_setting_of_a_search_is_reported_once_with_its_interval(
    here: Path, tiny: StudyOf, lth: Lth
) -> None:
    study = searching(tiny, samples=3)
    for lr in (0.001, 0.01, 0.01):
        sample(study, lr)
    results = study_results(make_plan(study))
    rates: dict[float, list[float]] = {0.001: [], 0.01: []}
    for record in results.records:
        rates[record["train.lr"]].append(record["final_validation_accuracy"])
    rate = max(rates, key=lambda rate: sum(rates[rate]))
    (best,) = results.best
    assert best.fields == {"train.lr": rate}
    assert best.values == {"final_validation_accuracy": summarize(rates[rate])}
    save_swept(study)
    called = lth("report", "searching")
    (line,) = [line for line in called.out.splitlines() if line.startswith("best: ")]
    assert line.endswith(f"at  train.lr={rate} (2 seeds)")
    assert "need other seeds to be confirmed" in called.out
    page = (here / "lth-studies" / "searching" / "report.html").read_text()
    assert page.count(best.texts[0].replace("±", " ± ")) == 1


def test_study_whose_trials_all_failed_is_not_said_to_be_unswept(
    here: Path, tiny: StudyOf, lth: Lth
) -> None:
    (here / "bad.yaml").write_text(
        yaml.safe_dump(tiny_fields({"name": "bad", "base.train.lr": 1e30, "axes.seed": [0]}))
    )
    assert lth("sweep", "bad.yaml", "--serial").code == 1
    assert "`lth status bad` shows errors" in lth("report", "bad").err
