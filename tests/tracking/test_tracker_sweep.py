"""Sweeps in W&B: runs of the jobs, sending them later, replaying lost ones, and comparisons."""

import json
import re
import shutil
import sys

import pytest
import wandb
from helpers import SMALL, command, small, train
from simulated import write_sweep
from wandb_file import Offline
from wandb_server import WandbServer

from afqmc import compare
from afqmc.cli import run_command
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.utils.files import read_json_or_empty

OFFLINE = {"WANDB_MODE": "offline", "WANDB_API_KEY": ""}
# at the second rate the loss is soon not finite: these jobs fail
JOBS = (
    "lr=1e-3,10", "seed=1,2", "optimizer=sgd", "optimizer.momentum=0.99", "tracker=wandb", "tracker.project=p",
    "tracker.tags=[mine]", "+optimizer.foreach=false", "tracker.notes=https://me:word@host/x",
)  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sweeps") / "nightly"
    short = [*(word for word in SMALL if word != "tracker=none"), f"hydra.sweep.dir={directory}"]
    shown = command("run", "-m", *short, *JOBS, cwd=directory.parent, env=OFFLINE)
    assert shown.returncode == 1, shown.stderr
    return directory


def jobs(sweep):
    return sorted(sweep.glob("?-*"))


def content(run):
    """Return what was logged to a run, without what W&B adds itself."""
    return {
        "config": {key: value for key, value in run.config.items() if key != "_wandb"},
        "who": (run.run.run_id, run.run.run_group, run.run.job_type, run.run.display_name, run.run.project),
        "notes": run.run.notes,
        "tags": run.tags,
        "exit code": run.exit_code(),
        "rows": [row for row in bare(run.history()) if not any(key.startswith("best/") for key in row)],
        "best": {key: value for key, value in run.summary().items() if key in ("best/step", "best/dev/accuracy")},
    }


def bare(rows):
    return [{key: value for key, value in row.items() if key[0] != "_"} for row in rows]


def test_jobs_are_runs(sweep):
    """The jobs of a sweep are runs of one group, named by their overrides."""
    runs = [Offline(job) for job in jobs(sweep)]
    assert len({run.run.run_id for run in runs}) == 4
    assert {(run.run.run_group, run.run.job_type, run.run.project) for run in runs} == {("nightly", "train", "p")}
    assert [list(run.run.tags) for run in runs] == [["mine", "sweep"]] * 4
    for run, (lr, seed) in zip(runs, ((0.001, 1), (0.001, 2), (10, 1), (10, 2)), strict=True):
        assert re.match(rf"experiment=quickstart .*\blr={lr} seed={seed} optimizer=sgd\b", run.run.display_name)
        assert (run.config["lr"], run.config["seed"]) == (lr, seed)


def test_job_status_and_summary(sweep):
    """Failed jobs have exit code 1; completed ones have the metrics of summary.json."""
    for job in jobs(sweep):
        run, summary = Offline(job), read_json_or_empty(job / "summary.json")
        assert run.exit_code() == (0 if summary else 1)
        assert bool(summary) == ("lr-0.001" in job.name)
        if summary:
            assert {key: run.summary()[f"best/{key}"] for key in summary["best"]} == summary["best"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run ``afqmc.compare`` with environment variables; return exit code, standard output and error."""

    def call(*arguments, **environment):
        monkeypatch.setattr(sys, "argv", ["afqmc.compare", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        for name, value in {"WANDB_API_KEY": "", "NETRC": "/nonexistent", **environment}.items():
            monkeypatch.setenv(name, value)
        code = run_command(compare.main)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture
def lost(sweep, tmp_path):
    """A copy of the sweep without W&B's files, except for the ids."""
    directory = tmp_path / "nightly"
    shutil.copytree(sweep, directory, symlinks=True)
    for path in directory.glob("?-*/wandb/*"):
        if path.name != "id":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return directory


def test_replay_lost_runs(sweep, lost, call):
    """Runs whose W&B files are lost are replayed with the same content, once."""
    code, out, err = call(lost, "--wandb-sync", WANDB_MODE="offline")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("W&B: ")]
    assert lines == [f"W&B: {job.name}: rebuilt from its own files, offline" for job in jobs(lost)]
    for before, after in zip(jobs(sweep), jobs(lost), strict=True):
        assert content(Offline(after)) == content(Offline(before))
        assert "word@" not in json.dumps(content(Offline(after)))
    logged = {key.split(".")[0] for row in Offline(jobs(lost)[0]).history() for key in row}
    assert {"best/dev/confusion_matrix_table", "best/dev/pr_curve_table"} <= logged
    assert call(lost, "--wandb-sync", WANDB_MODE="offline")[1].count("already in W&B's offline files") == 4


def test_replay_timestamps(sweep, lost, call):
    """Replayed rows have their original times."""
    call(lost, "--wandb-sync", WANDB_MODE="offline")
    for before, after in zip(jobs(sweep), jobs(lost), strict=True):
        rows = [row["_timestamp"] for row in Offline(after).history()]
        first = Offline(before).history()[0]["_timestamp"]
        assert rows == sorted(rows)
        assert abs(rows[0] - first) < 30  # W&B itself dates a row when it gets it, and begins late


def test_replay_pruned_run(lost, call):
    """A pruned run is replayed with its tag, and with exit code 0."""
    run_dir = RunDir(jobs(lost)[0])
    run_dir.summary.unlink()
    (run_dir.path / "status.json").write_text('{"status": "pruned", "step": 12}', encoding="utf-8")
    assert call(run_dir.path, "--wandb-sync", WANDB_MODE="offline")[0] == 0
    run = Offline(run_dir.path)
    assert (run.tags, run.exit_code()) == (["mine", "sweep", "pruned"], 0)
    best = max((row for row in run.history() if "dev/accuracy" in row), key=lambda row: row["dev/accuracy"])
    assert run.summary()["best/dev/accuracy"] == best["dev/accuracy"]


def test_replay_without_predictions(lost, call):
    """A run without its predictions is replayed without charts."""
    job = jobs(lost)[0]
    shutil.rmtree(job / "predictions")
    code, out, _ = call(job, "--wandb-sync", WANDB_MODE="offline")
    assert code == 0
    assert "rebuilt from its own files, offline, without charts (predictions/dev.jsonl: missing)" in out
    assert not any("confusion_matrix" in key for row in Offline(job).history() for key in row)


def test_unsendable_runs_are_skipped(lost, call):
    """An unreadable run and a running one are reported; the others are sent."""
    broken, running, *_ = jobs(lost)
    (broken / "config.yaml").write_text("lr: [", encoding="utf-8")
    with RunDir(running).locked():
        code, out, err = call(lost, "--wandb-sync", WANDB_MODE="offline")
    assert code == 1
    assert f"W&B: {broken.name}: not sent: " in err
    assert f"W&B: {running.name}: not sent: {running}: another process is using this run" in err
    assert out.count("rebuilt from its own files") == 2


def test_links_are_refused(lost, call, tmp_path):
    """Nothing is written or sent through a symbolic link."""
    job, *_ = jobs(lost)
    shutil.rmtree(job / "wandb")
    (tmp_path / "elsewhere").mkdir()
    (job / "wandb").symlink_to(tmp_path / "elsewhere")
    code, _, err = call(job, "--wandb-sync", WANDB_MODE="offline")
    assert code == 1
    assert "a link that leads out of" in err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_send_without_key(sweep, call):
    """Without an API key nothing is sent, and the comparison is still printed."""
    code, out, err = call(sweep, "--wandb-sync", WANDB_MODE="online")
    assert code == 1
    assert "dev/accuracy" in out
    assert err.startswith("W&B: not logged in to https://api.")


@pytest.fixture
def server():
    """A fake W&B server. The library reads its address once per process, so it is reset before and after."""
    fake = WandbServer()
    wandb.teardown()
    yield fake
    wandb.teardown()
    fake.close()


def identity(job):
    return (job / "wandb/id").read_text(encoding="utf-8").strip()


@pytest.mark.slow
def test_send_offline_runs(sweep, lost, call, server, tmp_path):
    """Offline runs are sent in order, and only once."""
    kept = tmp_path / "kept"
    shutil.copytree(sweep, kept, symlinks=True)
    for runs in (kept, lost):
        code, out, err = call(runs, "--wandb-sync", **server.environment())
        assert (code, err) == (0, "")
        sent = dict.fromkeys(asked["name"] for asked in server.variables("upsertBucket"))
        assert list(sent) == list(map(identity, jobs(runs)))
        assert server.ends == [0, 0, 1, 1]
        assert out.count("sent") == 4
        server.requests, server.ends = [], []
        assert call(runs, "--wandb-sync", **server.environment())[1].count("sent before") == 4
        assert not server.variables("upsertBucket")


@pytest.mark.slow
def test_send_truncated_file(sweep, call, server, tmp_path):
    """The rows missing in the W&B file of a killed run are replayed from metrics.jsonl."""
    job = tmp_path / "job"
    shutil.copytree(jobs(sweep)[0], job, symlinks=True)
    (path,) = job.glob("wandb/offline-run-*/run-*.wandb")
    path.write_bytes(path.read_bytes()[:6000])
    code, out, err = call(job, "--wandb-sync", **server.environment())
    assert (code, err) == (0, "")
    assert "W&B: job: sent, the rest rebuilt from its own files (wandb sync: " in out
    rows = len((job / "metrics.jsonl").read_text("utf-8").splitlines())
    assert 0 < server.history[0][1] < rows
    assert server.rows[identity(job)] == sum(count for _, count in server.history) == rows + 1  # and the charts
    assert server.ends[-1] == 0
    assert "sent before" in call(job, "--wandb-sync", **server.environment())[1]


@pytest.mark.slow
def test_send_resumed_run(server, tmp_path):
    """A run that was resumed offline is sent as a single run."""
    options = ("tracker=wandb", "tracker.mode=offline")
    run_dir = train(tmp_path / "run", *options, "epochs=1")
    first = len(Offline(run_dir.path).history())
    run_experiment(small(*options, "epochs=2"), run_dir, resume=True)
    shown = command("compare", str(run_dir.path), "--wandb-sync", cwd=tmp_path, env=server.environment())
    assert shown.returncode == 0, shown.stderr
    ends = [offset + count for offset, count in server.history]
    assert [offset for offset, _ in server.history] == [0, *ends[:-1]]
    assert first in ends
    assert server.rows == {identity(run_dir.path): ends[-1]}


@pytest.mark.slow
def test_refused_run_is_not_marked_sent(lost, call, server):
    """A run that the server refused is not marked as sent."""
    job = jobs(lost)[0]
    server.refusing = True
    code, _, err = call(job, "--wandb-sync", **server.environment())
    assert code == 1
    assert f"W&B: {job.name}: not sent: " in err
    assert not list((job / "wandb").glob("*run-*-*"))
    server.refusing = False
    code, out, err = call(job, "--wandb-sync", **server.environment())
    assert (code, err) == (0, "")
    assert "rebuilt from its own files and sent" in out


@pytest.mark.slow
def test_no_rows_are_sent_twice(lost, call, server):
    """Rows that the server has are not sent again."""
    job = jobs(lost)[0]
    server.rows[identity(job)] = 20
    assert call(job, "--wandb-sync", **server.environment())[0] == 0
    rows = len((job / "metrics.jsonl").read_text("utf-8").splitlines())
    assert min(offset for offset, _ in server.history) == 20
    assert sum(count for _, count in server.history) == rows - 20 + 1  # and the charts


@pytest.fixture
def compared(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return write_sweep(tmp_path / "sweep", 2, 2, 100)


def test_comparison_run(compared, call, tmp_path):
    """A comparison is a W&B run with the table, the findings and the files."""
    code, out, err = call(compared, "--wandb", "--csv", tmp_path / "runs.csv", WANDB_MODE="offline")
    assert (code, err) == (0, "")
    assert f"W&B: the comparison: offline; to send it later: wandb sync {tmp_path / 'wandb'}" in out
    run = Offline(tmp_path)
    assert (run.run.project, run.run.job_type, run.run.display_name) == ("afqmc", "comparison", "comparison of 4 runs")
    assert run.exit_code() == 0
    assert run.config["metric"] == "dev/accuracy"
    tables = tmp_path.glob("wandb/offline-run-*/files/media/**/*.json")
    media = {path.name.split("_")[0]: read_json_or_empty(path) for path in tables}
    settings = media["settings"]
    assert settings["columns"][:4] == ["rank", "setting", "lr", "seeds"]
    figure = settings["columns"].index("dev/accuracy")
    assert settings["data"][0][figure] == run.summary()["best/dev/accuracy"]
    shown = " ".join(out.split())
    assert all(" ".join(sentence.split()) in shown for _, sentence in media["sentences"]["data"])
    (artifact,) = (artifact for artifact in run.artifacts() if artifact.type == "comparison")
    assert {entry.path for entry in artifact.manifest.contents} == {
        "comparison.csv", "comparison.json", "comparison.md"
    }  # fmt: skip


def test_comparison_group(sweep, call, tmp_path):
    """A comparison is in the project and group of its runs."""
    assert call(sweep, "--wandb", WANDB_MODE="offline", WANDB_DIR=str(tmp_path))[0] == 0
    run = Offline(tmp_path).run
    assert (run.project, run.run_group, run.display_name) == ("p", "nightly", "comparison of nightly")


def test_comparison_of_several_projects(compared, call, tmp_path):
    """For runs of several projects, --wandb-project is required."""
    path = next(compared.iterdir()) / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("project: afqmc", "project: other"), encoding="utf-8")
    code, out, err = call(compared, "--wandb", WANDB_MODE="offline")
    assert (code, out) == (2, "")
    assert "the runs' W&B projects are afqmc, other: name one with --wandb-project [ENTITY/]PROJECT" in err
    assert call(compared, "--wandb", "--wandb-project", "team/mine", WANDB_MODE="offline")[0] == 0
    assert (Offline(tmp_path).run.entity, Offline(tmp_path).run.project) == ("team", "mine")


def test_project_needs_wandb(compared, call):
    """--wandb-project without --wandb is refused."""
    code, _, err = call(compared, "--wandb-project", "mine")
    assert (code, "--wandb is missing" in err) == (2, True)


def test_comparison_survives_wandb_failure(compared, call, tmp_path):
    """If W&B fails, the table is printed and the files are written."""
    (tmp_path / "wandb").write_text("in the way")
    code, out, err = call(compared, "--wandb", "--csv", tmp_path / "runs.csv", WANDB_MODE="offline")
    assert code == 1
    assert "W&B: the comparison was not sent: " in err
    assert "dev/accuracy" in out
    assert (tmp_path / "runs.csv").exists()


def test_comparison_with_unreachable_server(compared, call):
    """With an unreachable server the comparison is kept offline, and the exit code is 1."""
    away = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    code, _, err = call(compared, "--wandb", **away)
    assert code == 1
    assert "the comparison was not sent: offline; to send it later: wandb sync " in err


def test_sent_comparison_leaves_no_files(server, compared, call, tmp_path, monkeypatch):
    """A comparison that was sent leaves no files in the current directory."""
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(tmp_path)
    code, out, err = call(compared, "--wandb", **server.environment())
    assert (code, err) == (0, "")
    assert "W&B: the comparison: http" in out
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "server") == ["sweep"]


def test_offline_comparison_keeps_files(compared, call, tmp_path, monkeypatch):
    """An offline comparison leaves its files in the current directory."""
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(compared, "--wandb", WANDB_MODE="offline")
    assert code == 0
    (kept,) = (tmp_path / "wandb").glob("*")
    assert f"wandb sync wandb/{kept.name}" in out
    assert Offline(tmp_path).run.job_type == "comparison"
