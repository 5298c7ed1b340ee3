"""Commands on an untrusted run directory execute no code from it and write nothing through its links."""

import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from dataclasses import replace

import hostile
import pytest
from helpers import command
from omegaconf import OmegaConf

from afqmc import config as schema
from afqmc import evaluate, predict, serve
from afqmc.checkpoint.store import write_checksums
from afqmc.cli import run_command
from afqmc.config import to_config
from afqmc.config.resume import Resume, parse_resume
from afqmc.data.config import Source
from afqmc.data.sample import sample_files
from afqmc.evaluation.predictions import CALIBRATED, DECIDED, prediction_rows
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.utils.errors import InputError

ROWS = sample_files()["train.json"].splitlines(keepends=True)[:32]
COMMANDS = {
    "evaluate": (evaluate.main, ["--data", "pairs.jsonl", "--json"]),
    "predict": (predict.main, ["pairs.jsonl", "-o", "out.jsonl"]),
}
REFUSING = COMMANDS | ({"serve": (serve.main, ["--port", "0"])} if importlib.util.find_spec("fastapi") else {})


@pytest.fixture(scope="module")
def expected(small_run, tmp_path_factory):
    """Return the loss of the untampered run on the pairs, and its predictions."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_bytes(b"".join(ROWS))
    run = Predictor.load(small_run.path)
    pairs = run.read_pairs(file, labelled=True)
    evaluation = run.evaluate(pairs)
    rows = prediction_rows(pairs.ids, evaluation.logits, None, run.labels, decided=run.decide(evaluation.logits))
    columns = {"id": "id", "probability": CALIBRATED, "prediction": DECIDED}
    return evaluation.metrics["loss"], [{key: row[column] for key, column in columns.items()} for row in rows]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run a command in this process, with "y" as the answer to every prompt; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # serve sets them
        monkeypatch.setenv(variable, "128")
    (tmp_path / "pairs.jsonl").write_bytes(b"".join(ROWS))

    def run(name, directory, *arguments):
        main, usual = REFUSING[name]
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
        monkeypatch.setattr(sys, "argv", [name, str(directory), *(arguments or usual)])
        code = run_command(main)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def copied(small_run, tmp_path):
    """Copy the trained run."""
    return shutil.copytree(small_run.path, tmp_path / "copy")


def snapshot(directory):
    """Return all files with their contents, and all links with their targets."""
    return {
        str(path.relative_to(directory)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_executed_payload_creates_canary(tmp_path):
    """The canary appears if a payload is executed, so the tests below can fail."""
    pickle.loads(pickle.dumps(hostile.Pickled(tmp_path / "one")))
    hostile.plant_code(tmp_path, tmp_path / "two")
    spec = importlib.util.spec_from_file_location("evil", tmp_path / "modeling_evil.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()


@pytest.mark.parametrize("payload", hostile.HARMLESS)
def test_unneeded_files_are_ignored(payload, expected, copied, call, tmp_path):
    """Extra files are not executed, and change neither the results nor the directory."""
    hostile.plant(payload, copied, tmp_path / "canary")
    planted = snapshot(copied)
    code, out, error = call("evaluate", copied)
    assert code == 0, error
    assert json.loads(out)["loss"] == expected[0]
    assert call("predict", copied)[0] == 0
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()] == expected[1]
    assert not (tmp_path / "canary").exists()
    assert snapshot(copied) == planted


@pytest.mark.parametrize("payload", hostile.REFUSED)
def test_malicious_files_are_refused(payload, copied, call, tmp_path):
    """A malicious replacement of a needed file is refused with one message, and not executed."""
    hostile.plant(payload, copied, tmp_path / "canary")
    for code, out, error in [call(name, copied) for name in REFUSING]:
        assert (code, out) == (2, ""), error
        assert hostile.REFUSED[payload][1] in error
        assert str(copied) in error
        assert "Traceback" not in error
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out.jsonl").exists()


def test_trust_applies_to_target_only(copied, call, tmp_path):
    """``--trust`` allows the model's ``_target_``; pickles and tokenizer code are still refused."""
    hostile.plant("pickles", copied, tmp_path / "canary")
    hostile.plant("prompting tokenizer", copied, tmp_path / "canary")
    code, _, error = call("evaluate", copied, "--trust")
    assert (code, "not a tokenizer" in error) == (2, True)
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def linked_home(copied, tmp_path):
    """Replace every path that a run writes with a link to the user's files; return the directory of those."""
    home = tmp_path / "home"
    (home / "photos").mkdir(parents=True)
    (home / "diary").write_text("dear diary", "utf-8")
    for name in ("predictions", "checkpoints/last", "checkpoints/.best.new", "wandb", ".hydra"):
        if (copied / name).is_dir():
            shutil.rmtree(copied / name)
        (copied / name).symlink_to(home / "photos")
    for name in ("summary.json", "status.json", "metrics.jsonl", "run.log", "environment.json", ".out.jsonl.new"):
        (copied / name).unlink(missing_ok=True)
        (copied / name).symlink_to(home / "diary")
    return home


def test_commands_do_not_write_through_links(linked_home, copied, call):
    """evaluate and predict do not change files that links in the run directory point to."""
    before = snapshot(linked_home), snapshot(copied)
    assert call("evaluate", copied)[0] == 0
    assert (snapshot(linked_home), snapshot(copied)) == before
    code, _, error = call("predict", copied, "pairs.jsonl", "-o", str(copied / "out.jsonl"))
    assert code == 0, error
    assert len((copied / "out.jsonl").read_text("utf-8").splitlines()) == len(ROWS)
    assert not (copied / "out.jsonl").is_symlink()
    assert snapshot(linked_home) == before[0]


@pytest.mark.parametrize("out", ["predictions/new.jsonl", "run.log", "x/../summary.json"])
def test_output_through_escaping_link_is_refused(out, linked_home, copied, call):
    """predict refuses an output path whose link leads out of the run directory."""
    (copied / "x").mkdir()
    before = snapshot(linked_home)
    code, _, error = call("predict", copied, "pairs.jsonl", "-o", f"copy/{out}")
    assert code == 2
    assert f"-o copy/{out}: a link leads out of {copied}, to {linked_home}" in error
    assert snapshot(linked_home) == before


def test_untrusted_cache_dir_is_not_used(copied, tmp_path, monkeypatch):
    """The cache_dir in an untrusted config is ignored in favour of the user's cache."""
    config = schema.load(copied)
    official = schema.default_dataset_url()
    elsewhere = {"path": None, "url": official, "checksums": None, "cache_dir": str(tmp_path / "chosen")}
    files = {"source": Source.url, "train_file": "train.json", "dev_file": "dev.json", "test_file": None}
    schema.save(replace(config, dataset=replace(config.dataset, **elsewhere, **files)), copied / "config.yaml")
    monkeypatch.setenv("AFQMC_CACHE", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    kept = f"afqmc_public-{hashlib.sha256(official.encode()).hexdigest()[:8]}.zip"
    with zipfile.ZipFile(tmp_path / "own" / kept, "w") as archive:
        for name in ("train.json", "dev.json"):
            archive.writestr(name, b"".join(ROWS))
    assert len(Predictor.load(copied).read_pairs(None, labelled=True)) == len(ROWS)
    assert not (tmp_path / "chosen").exists()


def is_resumable(copied):
    """Return whether resuming with more steps works; a refusal must be an InputError."""
    try:
        _, arguments = parse_resume([f"resume={copied}", "epochs=3"])
        assert arguments
        run_experiment(Resume(copied, ["epochs=3"]).config(), RunDir(copied), resume=True)
    except InputError:
        return False
    return True


def test_resume_does_not_write_through_links(linked_home, copied):
    """Resuming a run directory with escaping links is refused, and the link targets are unchanged."""
    before = snapshot(linked_home)
    assert not is_resumable(copied)
    assert snapshot(linked_home) == before


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_pickled_state_is_rejected(copied, tmp_path, name):
    """An untrusted pickle in checkpoints/last is not loaded, even with a valid checksum."""
    canary, last = tmp_path / "canary", copied / "checkpoints/last"
    (last / name).unlink()
    (last / name).write_bytes(pickle.dumps(hostile.Pickled(canary)))
    (last / "checksums.json").unlink()
    write_checksums(last)
    assert not is_resumable(copied)
    assert not canary.exists()


TARGETS = ("os.system", "evil.build", "subprocess.run", "afqmc.run_dir.write_text")
KEYS_OF_TARGETS = (
    "optimizer", "optimizer.param_groups", "scheduler", "model", "model.transforms.x", "objective", "callbacks.x",
    "objective.config",
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "target"),
    [  # each key and each target; the slow tests have the other combinations
        pytest.param(key, target, marks=() if index % len(TARGETS) == number else pytest.mark.slow)
        for index, key in enumerate(KEYS_OF_TARGETS)
        for number, target in enumerate(TARGETS)
    ],
)
def test_untrusted_target_is_not_imported_on_resume(copied, tmp_path, key, target):
    """The message names the key, wherever in the config the target is."""
    hostile.plant_code(copied, tmp_path / "canary")
    saved = OmegaConf.structured(schema.load(copied))
    OmegaConf.update(saved, f"{key}._target_", target, force_add=True)
    schema.save(to_config(saved), copied / "config.yaml")
    with pytest.raises(InputError, match=re.escape(f"{key}._target_={target} is untrusted code; trust=true runs it")):
        Resume(copied, []).config()
    assert not is_resumable(copied)
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("payload", [*hostile.HARMLESS, *hostile.REFUSED])
def test_resume_executes_no_untrusted_code(payload, copied, tmp_path):
    """Resuming executes none of the payloads, whether it is refused or not."""
    hostile.plant(payload, copied, tmp_path / "canary")
    is_resumable(copied)
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_safe_path_inside_run_directory(name, copied, tmp_path):
    """With PYTHONSAFEPATH, a command started inside the run directory imports no modules from it."""
    for payload in hostile.HARMLESS:
        hostile.plant(payload, copied, tmp_path / "canary")
    (tmp_path / "pairs.jsonl").write_bytes(b"".join(ROWS))
    out = ["../pairs.jsonl", "-o", "../out.jsonl"] if name == "predict" else ["--json"]
    done = command(name, ".", *out, cwd=copied, env={"PYTHONSAFEPATH": "1"})
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "canary").exists()
    if name == "evaluate":
        assert 0 <= json.loads(done.stdout)["accuracy"] <= 1


@pytest.mark.parametrize("name", ["checkpoints/last/state.json", "checkpoints/last/checksums.json", "run.log", "x"])
def test_run_with_fifo_is_not_resumed(name, copied):
    """A FIFO anywhere in the directory is refused before anything is opened."""
    (copied / name).unlink(missing_ok=True)
    os.mkfifo(copied / name)
    with pytest.raises(InputError, match="not a regular file"):
        parse_resume([f"resume={copied}"])


def test_reexported_function_is_not_called(copied):
    """A target that a trusted library imports but does not define is refused."""
    text = (copied / "config.yaml").read_text("utf-8")
    start, end = text.index("scheduler:"), text.index("trainer:")
    scheduler = "scheduler:\n  _target_: torch.optim.lr_scheduler.partial\n"
    (copied / "config.yaml").write_text(text[:start] + scheduler + text[end:], "utf-8")
    with pytest.raises(InputError, match=r"partial: is not defined in that library"):
        run_experiment(Resume(copied, ["epochs=3"]).config(), RunDir(copied), resume=True)
