"""``afqmc reproduce``: a run is repeated from its record, and the result is the same, explained or different."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import PATIENCE_S, PYTHON, SMALL, environment, train
from scipy import stats

from afqmc import reproduce
from afqmc.cli import DONE, FAILED, REFUSED, run_command
from afqmc.config import load, save
from afqmc.data.sample import sample_files
from afqmc.results.prediction_table import PredictionTable
from afqmc.results.repetition import allowed_change, compare_repetition, end_difference, other_seeds
from afqmc.results.runs import read_run
from afqmc.run_dir import RunDir, Status

FAST = ("dataset.max_train_samples=32", "dataset.max_dev_samples=16", "dataset.max_test_samples=8", "epochs=1")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A complete run of 4 steps. Tests copy it before they change it."""
    return train(tmp_path_factory.mktemp("original") / "run", *FAST)


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command in this process, and return its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(directory, *arguments):
        out = () if "-o" in arguments else ("-o", "out")
        monkeypatch.setattr(sys, "argv", ["reproduce", str(directory), *out, *arguments])
        code = run_command(reproduce.main)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def copied(original, tmp_path):
    return RunDir(shutil.copytree(original.path, tmp_path / "copy"))


def tamper(run_dir, change):
    """Change the saved config."""
    config = load(run_dir.path)
    change(config)
    save(config, run_dir.config)


def rewrite(path, change):
    """Change a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_repetition_is_identical(original, call, tmp_path):
    """A run that is repeated with the same versions has the same bits in metrics, predictions and weights."""
    code, out, error = call(original.path)
    assert code == DONE, error
    assert "identical: the same bits in 5 rows of metrics, 24 predictions, the weights" in out
    assert "as in the record: device, threads, versions, code" in out
    assert RunDir(tmp_path / "out").summary.exists()


def test_json(original, call):
    """``--json`` prints one object and nothing else; ``--steps`` compares the first steps only."""
    code, out, _ = call(original.path, "--json", "--steps", "2")
    result = json.loads(out)
    assert (code, result["verdict"], result["compared"]) == (DONE, "identical", {"rows": 2})
    assert result["first"] is None


def test_other_seed_is_different(copied, call):
    """A config with another seed than the run had is found in the first step."""
    tamper(copied, lambda config: setattr(config, "seed", 7))
    code, out, error = call(copied.path)
    assert code == FAILED, error
    assert "different: nothing that changes the rounding of sums differs from the record, the training loss of" in out
    assert "first difference: step 1, metrics.jsonl, train/loss: " in out


def test_other_learning_rate_is_different(copied, call):
    """The learning rate is in the metrics of the first step."""
    tamper(copied, lambda config: setattr(config, "lr", config.lr * 2))
    code, out, _ = call(copied.path, "--json")
    first = json.loads(out)["first"]
    assert (code, first["step"], first["name"]) == (FAILED, 1, "train/lr")


def test_other_threads_are_explained(original, call):
    """With another number of threads, sums are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        code, out, error = call(original.path, "--json")
    finally:
        torch.set_num_threads(before)
    result = json.loads(out)
    assert code == DONE, error
    assert result["record_differs"]["rounding"] == [f"threads {before} -> {before + 1}"]
    assert result["verdict"] in ("explained", "identical")


def test_other_data_are_refused(tmp_path, call):
    """Data that have changed since the run are refused before training; ``--data`` names the data of the run."""
    data = tmp_path / "data"
    data.mkdir()
    for name, content in sample_files().items():
        (data / name).write_bytes(content)
    files = [f"dataset.{split}_file={split}.json" for split in ("train", "dev", "test")]
    run_dir = train(tmp_path / "run", *FAST, "dataset=files", f"dataset.path={data}", *files)
    moved = shutil.copytree(data, tmp_path / "moved")
    lines = (data / "train.json").read_text("utf-8").splitlines()
    (data / "train.json").write_text("\n".join(lines[::-1]) + "\n", "utf-8")
    code, _, error = call(run_dir.path)
    assert (code, "the train split has changed since the run: 32 pairs then, 32 now" in error) == (REFUSED, True)
    assert not (tmp_path / "out").exists()
    assert call(run_dir.path, "--data", str(moved))[0] == DONE


def test_untrusted_record(copied, call, tmp_path):
    """Code that the config names is not imported, and its directory for downloads is not used."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n", "utf-8")

    def change(config):
        config.optimizer["_target_"] = "evil.Optimizer"
        config.dataset.cache_dir = str(tmp_path / "cache")

    tamper(copied, change)
    code, _, error = call(copied.path)
    assert (code, "optimizer._target_=evil.Optimizer is untrusted code; --trust runs it" in error) == (REFUSED, True)
    tamper(copied, lambda config: config.optimizer.update({"_target_": "torch.optim.AdamW"}))
    assert call(copied.path)[0] == DONE
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("status", [Status.failed, Status.pruned, Status.interrupted])
def test_incomplete_run_is_refused(status, copied, call):
    """The message has the status."""
    copied.summary.unlink()
    copied.write_status(status, step=2)
    code, _, error = call(copied.path)
    assert (code, f"is not complete ({status.value}, step 2); only a complete run" in error) == (REFUSED, True)


@pytest.mark.parametrize("content", ["[]", "{}", '{"hardware": 1, "packages": {}}', "{"])
def test_damaged_record_is_refused(content, copied, call):
    """A damaged environment.json is one message."""
    (copied.path / "environment.json").write_text(content, "utf-8")
    code, _, error = call(copied.path)
    assert (code, "environment.json" in error, "Traceback" in error) == (REFUSED, True, False)


def test_processes_must_be_as_recorded(copied, call):
    """The message says how to start it."""
    rewrite(copied.path / "environment.json", lambda record: record["hardware"].update(processes=2))
    code, _, error = call(copied.path)
    assert code == REFUSED
    assert "the run used 2 processes, and this command 1" in error
    assert "torchrun --nproc_per_node 2" in error


@pytest.mark.slow
def test_sharded_run_is_identical(tmp_path):
    """A run of two processes with FSDP is repeated by two processes, bit for bit."""

    def launch(module, *arguments):
        torchrun = [PYTHON, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no-python", PYTHON]
        words = [*torchrun, "-m", f"afqmc.{module}", *arguments]
        return subprocess.run(
            words,
            cwd=tmp_path,
            env=environment(OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    done = launch("run", *SMALL, *FAST, "distributed=fsdp", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    done = launch("reproduce", "run", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "identical: the same bits in 5 rows of metrics" in done.stdout


def test_output_must_be_new(original, copied, call, tmp_path):
    """A directory that exists, lies in the run directory or is a link is refused."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in (".", str(copied.path), str(copied.path / "new"), "link"):
        code, _, error = call(copied.path, "-o", name)
        assert (code, "name a new directory" in error) == (REFUSED, True), name
    assert not (tmp_path / "elsewhere").exists()
    code, _, error = call(original.path, "--steps", "0")
    assert (code, "--steps 0: must be >= 1" in error) == (REFUSED, True)


def test_difference_at_the_end_only(copied, original):
    """Dev predictions that change in a quarter of the pairs are not explained by an assumed deviation."""
    path = copied.path / "predictions" / "dev.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows[: len(rows) // 2]:
        wrong = 1 - int(row["label"])
        row["logits"], row["prediction"] = [float(wrong == 0), float(wrong == 1)], str(wrong)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    result = compare_repetition(read_run(original.path, "a"), read_run(copied.path, "b"), "no", ["threads 1 -> 2"])
    assert result.verdict.value == "different"
    assert result.first.file == "predictions/dev.jsonl"
    assert [reason.split(" by ")[0] for reason in result.reasons] == ["dev/accuracy changes"]


def test_seeds_of_the_sweep(tmp_path):
    """The other seeds of the record's sweep and setting are the measure; other settings are not."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    first = train(tmp_path / "sweep" / "0", *FAST)
    train(tmp_path / "sweep" / "1", *FAST, "seed=2")
    train(tmp_path / "sweep" / "2", *FAST, "lr=1e-3")
    record = read_run(first.path, "0")
    seeds = other_seeds(record)
    assert sorted(run.path.name for run in seeds) == ["0", "1"]
    tables = [PredictionTable.of(run, "dev") for run in seeds]
    end = end_difference(tables[0], tables[1], tables)
    assert end.seeds == 2
    assert end.allowed_flips >= end.flipped


def test_seeds_are_rarely_called_different():
    """The interval of ``allowed_change`` contains the difference between two seeds at least 95% of the time."""
    rng, pairs, deviation = np.random.default_rng(1), 1000, 0.01
    for seeds in (2, 3, 5):
        misses = []
        for accuracies in rng.normal(0.7, deviation, (4000, seeds + 1)):
            spread = np.std(accuracies[:seeds], ddof=1)
            misses.append(abs(accuracies[-1] - accuracies[0]) > allowed_change(60, pairs, spread, seeds - 1))
        assert np.mean(misses) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(misses))
    assert allowed_change(0, pairs, deviation, None) == pytest.approx(stats.norm.ppf(0.975) * np.sqrt(2) * deviation)
