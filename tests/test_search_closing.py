"""What a search says of itself: a pruner that can prune nothing, ties, and trials that learned nothing."""

import logging

import pytest

from afqmc.run_dir import RunDir
from afqmc.sweeps.pruner_warnings import explain_idle_pruner
from afqmc.sweeps.study import StudyConfig, open_study
from hydra_plugins.afqmc_sweeps._search_summary import log_best_trials


@pytest.mark.parametrize(
    ("pruner", "arguments", "trials", "evaluations", "prunes"),
    [
        ("none", {}, 1, 1, True),
        ("median", {}, 20, 1, False),
        ("median", {}, 5, 4, False),
        ("median", {}, 6, 4, True),
        ("median", {"n_warmup_steps": 4}, 20, 4, False),
        ("median", {"n_startup_trials": 2}, 3, 2, True),
        ("successive_halving", {"min_resource": 4}, 20, 4, False),
        ("successive_halving", {"min_resource": 1}, 20, 4, True),
        ("successive_halving", {}, 20, 1, False),
        ("hyperband", {"min_resource": 5, "max_resource": 20}, 20, 4, False),
        ("hyperband", {"min_resource": 1, "max_resource": 9}, 20, 9, True),
        ("wilcoxon", {}, 20, 3, False),
        ("wilcoxon", {}, 20, 8, True),
    ],
)
def test_a_pruner_that_can_prune_nothing_is_recognised(pruner, arguments, trials, evaluations, prunes):
    why = explain_idle_pruner(StudyConfig(pruner=pruner, pruner_args=arguments), "afqmc/s", trials, evaluations)
    assert (why is None) == prunes
    if why:
        assert f"pruner={pruner} can prune nothing in {trials} trials with {evaluations} evaluations each" in why
        assert "what helps: more" in why


def ended(directory, values, accuracy, collapsed):
    """A search whose trials reached these values, each with one run."""
    study, runs = open_study(StudyConfig(), directory, ["dev/f1"]), []
    for number, value in enumerate(values):
        study.tell(study.ask(), value)
        best = {"dev/accuracy": accuracy, "dev/majority_accuracy": 0.69}
        run = RunDir(directory / str(number))
        run.write_summary({"best": best, "collapsed_onto": collapsed})
        runs.append(run)
    return study, ["dev/f1"], runs


def said(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO)


def test_a_search_whose_runs_all_collapsed_warns_once_and_names_no_best(tmp_path, caplog):
    log_best_trials(*ended(tmp_path, [0.0] * 6, 0.69, "0"))
    (warning,) = said(caplog, logging.WARNING)
    assert warning.startswith("all 6 runs collapsed")
    assert "search higher values of lr" in warning
    assert said(caplog, logging.INFO) == []


def test_a_search_in_which_no_run_beats_the_majority_says_so_after_its_best_trial(tmp_path, caplog):
    log_best_trials(*ended(tmp_path, [0.1, 0.3], 0.68, None))
    assert said(caplog, logging.INFO) == ["best: trial 1, dev/f1 0.3000: "]
    (warning,) = said(caplog, logging.WARNING)
    assert warning.startswith("none of 2 runs beats the majority")


def test_trials_that_tie_are_one_line(tmp_path, caplog):
    log_best_trials(*ended(tmp_path, [0.1, *[0.5] * 8], 0.75, None))
    (line,) = said(caplog, logging.INFO)
    assert line == "best: trial 1, dev/f1 0.5000:  (the same values: trial 2, 3, 4, 5, 6 and 2 more)"
    assert said(caplog, logging.WARNING) == []
