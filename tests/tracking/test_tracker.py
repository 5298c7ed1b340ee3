"""The W&B tracker writes everything into its offline files, and its failures never stop a run."""

import json
import logging
import threading

import numpy as np
import pytest
from helpers import rows, small, summary, train
from wandb_file import Offline

from afqmc.config import to_container
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.tracking.background import BackgroundTracker
from afqmc.tracking.base import DevPredictions, NullTracker
from afqmc.tracking.config import TrackerConfig, WandbMode
from afqmc.tracking.factory import build_tracker
from afqmc.tracking.wandb_tracker import pr_points, worst

WANDB = ("tracker=wandb", "tracker.mode=offline", "tracker.group=g", "tracker.tags=[a,b]", "tracker.name=n")


@pytest.fixture(autouse=True)
def not_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "tracked", *WANDB)


def test_offline_config(tracked):
    """The offline file contains the resolved config."""
    offline = Offline(tracked.path)
    config = {key: value for key, value in offline.config.items() if key != "_wandb"}
    composed = json.loads(json.dumps(to_container(small(*WANDB))))
    assert config.pop("sweep").keys() == composed.pop("sweep").keys()  # its name is the moment
    assert config == composed


def test_offline_run_metadata(tracked):
    """The offline file contains project, group, job type, name and tags."""
    run = Offline(tracked.path).run
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("afqmc", "g", "train", "n")
    assert list(run.tags) == ["a", "b"]


def test_offline_rows(tracked):
    """Every row of metrics.jsonl is in the offline file, with our own step."""
    ours = [json.loads(line) for line in (tracked.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    theirs = [{key: value for key, value in row.items() if key[0] != "_"} for row in Offline(tracked.path).history()]
    logged = [{key: value for key, value in row.items() if key != "time" and value is not None} for row in ours]
    assert theirs[: len(ours)] == logged


def test_offline_summary(tracked):
    """The summary of the W&B run contains the best evaluation."""
    logged, best = Offline(tracked.path).summary(), summary(tracked)["best"]
    assert logged["best/step"] == best["step"]
    assert logged["best/dev/accuracy"] == best["dev/accuracy"]
    intervals = summary(tracked)["intervals"]
    assert "dev/accuracy" in intervals
    for name, ends in intervals.items():
        assert [logged[f"best/{name}_low"], logged[f"best/{name}_high"]] == ends


def test_offline_charts(tracked):
    """Charts of the best weights are logged."""
    logged = {key.split(".")[0] for row in Offline(tracked.path).history() for key in row}
    assert {"best/dev/worst_errors", "best/dev/confusion_matrix_table", "best/dev/pr_curve_table"} <= logged


def test_system_metrics(tracked):
    """W&B records its system metrics."""
    assert any(record.HasField("stats") or record.HasField("environment") for record in Offline(tracked.path).records)


def test_exit_codes(tracked, tmp_path):
    """The W&B run of a completed run has exit code 0, that of a failed one 1."""
    assert Offline(tracked.path).exit_code() == 0
    with pytest.raises(RuntimeError, match="loss is"):
        train(tmp_path / "run", *WANDB, "lr=10", "optimizer=sgd", "optimizer.momentum=0.99")
    assert Offline(tmp_path / "run").exit_code() == 1


def test_log_model(tmp_path):
    """With tracker.log_model the best weights are uploaded as an artifact."""
    train(tmp_path / "run", *WANDB, "tracker.log_model=true", "trainer.max_steps=2")
    kinds = [r.request.log_artifact.artifact.type for r in Offline(tmp_path / "run").records if r.HasField("request")]
    kinds += [r.artifact.type for r in Offline(tmp_path / "run").records if r.HasField("artifact")]
    assert "model" in kinds


def test_no_tracker(small_run):
    """Without a tracker there is no wandb directory."""
    assert not (small_run.path / "wandb").exists()


def test_start_failure_is_a_warning(tmp_path, caplog):
    """A run completes although its tracker cannot start."""
    # a file where W&B creates its directory
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    (run_dir.path / "wandb").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        run_experiment(small(*WANDB, "trainer.max_steps=2"), run_dir)
    assert summary(run_dir)["status"] == "completed"


class Failing(NullTracker):
    def log(self, row):
        raise OSError("no space left")


def test_failure_warns_once(caplog):
    """A tracker that fails on every row causes one warning."""
    tracker = BackgroundTracker(Failing)
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            tracker.log({"step": step})
        tracker.finish(0)
    assert sum("no space left" in record.message for record in caplog.records) == 1


def test_hanging_tracker_is_abandoned(caplog):
    """finish() returns in time although a call of the tracker hangs."""
    release = threading.Event()

    class Hanging(NullTracker):
        def log(self, row):
            release.wait()

    tracker = BackgroundTracker(Hanging, finish_s=0.3)
    with caplog.at_level(logging.WARNING):
        tracker.log({"step": 1})
        tracker.finish(0)  # returns although the call never does
    release.set()
    assert "abandoned" in caplog.text


def test_disabled_is_null_tracker(tmp_path):
    """tracker.mode=disabled builds the null tracker."""
    assert isinstance(build_tracker(TrackerConfig(mode=WandbMode.disabled), {}, tmp_path), NullTracker)


def report():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    return DevPredictions(7, ("0", "1"), probabilities, np.array([1, 1, 0, 1]), list("abcd"), list("efgh"))


def test_worst_errors_order():
    """The worst errors are sorted by the probability of their label."""
    assert [row[0] for row in worst(report())] == ["a", "d", "c"]
    assert worst(report())[0] == ["a", "e", "1", "0", pytest.approx(0.1)]


def test_pr_curve_ends():
    """The precision-recall curve runs from recall 0 to 1."""
    points = pr_points(report())
    assert points[0][0] == 0
    assert points[-1][0] == 1


def test_one_row_per_step(tracked):
    """There is one training row per step."""
    assert len(rows(tracked, "train/loss")) == summary(tracked)["steps"]


def test_added_tag(tmp_path):
    """A tag added at the end of a run keeps the configured ones."""
    tracker = build_tracker(small(*WANDB).tracker, {}, tmp_path)
    tracker.tag("pruned")
    tracker.finish(0)
    assert Offline(tmp_path).tags == ["a", "b", "pruned"]
