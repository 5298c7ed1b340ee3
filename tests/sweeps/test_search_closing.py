"""The end of a search: idle pruners, ties, and runs that learned nothing."""

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
def test_idle_pruner_is_detected(pruner, arguments, trials, evaluations, prunes):
    """A pruner that cannot prune any trial gives a warning."""
    why = explain_idle_pruner(StudyConfig(pruner=pruner, pruner_kwargs=arguments), "afqmc/s", trials, evaluations)
    assert (why is None) == prunes
    if why:
        assert f"pruner={pruner} cannot prune anything in {trials} trials with {evaluations} evaluations each" in why
        assert "this would help: more" in why


def finished_search(directory, values, accuracy, collapsed):
    """Create a study with these objective values, one run per trial."""
    study, runs = open_study(StudyConfig(), directory, ["dev/f1"]), []
    for number, value in enumerate(values):
        study.tell(study.ask(), value)
        best = {"dev/accuracy": accuracy, "dev/majority_accuracy": 0.69}
        run = RunDir(directory / str(number))
        run.write_summary({"best": best, "collapsed_label": collapsed})
        runs.append(run)
    return study, ["dev/f1"], runs


def messages(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.fixture(autouse=True)
def log_level(caplog):
    caplog.set_level(logging.INFO)


def test_all_runs_collapsed_gives_only_warning(tmp_path, caplog):
    """If all runs collapsed, a warning is logged and no best trial."""
    log_best_trials(*finished_search(tmp_path, [0.0] * 6, 0.69, "0"))
    (warning,) = messages(caplog, logging.WARNING)
    assert warning.startswith("all 6 runs collapsed")
    assert "search higher values of lr" in warning
    assert messages(caplog, logging.INFO) == []


def test_no_run_beats_majority_gives_warning(tmp_path, caplog):
    """If no run beats the majority, a warning follows the best trial."""
    log_best_trials(*finished_search(tmp_path, [0.1, 0.3], 0.68, None))
    assert messages(caplog, logging.INFO) == ["best: trial 1, dev/f1 0.3000: "]
    (warning,) = messages(caplog, logging.WARNING)
    assert warning.startswith("none of 2 runs beats the majority")


def test_tied_trials_share_a_line(tmp_path, caplog):
    """Tied trials are logged in one line."""
    log_best_trials(*finished_search(tmp_path, [0.1, *[0.5] * 8], 0.75, None))
    (line,) = messages(caplog, logging.INFO)
    assert line == "best: trial 1, dev/f1 0.5000:  (the same values: trial 2, 3, 4, 5, 6 and 2 more)"
    assert messages(caplog, logging.WARNING) == []
