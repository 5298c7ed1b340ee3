"""Test that a run directory is evaluated from anywhere, and that an untrusted one is safe to open."""

import json
import re
import shutil
import zipfile

import pytest
from file_server import Answer, FileServer, serving
from helpers import SMALL, command, summary, train

from afqmc import config as schema
from afqmc.data.sample import sample_files
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError

ROWS = sample_files()["train.json"].splitlines(keepends=True)[:96]
OWN = ("dataset=files", "dataset.train_file=train.jsonl", "dataset.dev_file=data/dev.jsonl", "dataset.max_length=64")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was started with relative paths."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "train.jsonl").write_bytes(b"".join(ROWS))
    (home / "data/dev.jsonl").write_bytes(b"".join(ROWS[:64]))
    done = command("run", *SMALL, *OWN, "dataset.test_file=null", "epochs=1", "hydra.run.dir=run", cwd=home)
    assert done.returncode == 0, done.stderr
    return RunDir(home / "run")


def test_evaluate_from_any_directory(trained, tmp_path):
    """evaluate does not depend on the current directory."""
    scored = command("evaluate", str(trained.path), "--json", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["accuracy"] == summary(trained)["best"]["dev/accuracy"]


def test_saved_paths_are_absolute(trained, tmp_path, monkeypatch):
    """Paths in the saved config are absolute; hub ids do not change."""
    home = trained.path.parent
    config = schema.load(trained.path)
    assert (config.dataset.train_file, config.dataset.dev_file) == (f"{home}/train.jsonl", f"{home}/data/dev.jsonl")
    monkeypatch.chdir(home)
    config = schema.with_absolute_paths(
        schema.compose(["dataset.path=data", "model.name_or_path=data", "dataset.cache_dir=~/c"])
    )
    assert (config.dataset.path, config.model.name_or_path) == (f"{home}/data", f"{home}/data")
    assert config.dataset.train_file == "train.json"
    assert config.dataset.cache_dir.startswith("/")
    assert schema.with_absolute_paths(schema.compose([])).model.name_or_path == "google-bert/bert-base-chinese"


def blinded(trained, tmp_path):
    """Copy the run and set one token embedding to NaN."""
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "blind"
    shutil.copytree(trained.path, copy)
    best = copy / "checkpoints/best"
    vocabulary = json.loads((best / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    pairs = [json.loads(row) for row in ROWS[:64]]
    texts = [pair["sentence1"] + pair["sentence2"] for pair in pairs]
    counts = {sign: sum(sign in text for text in texts) for sign in vocabulary if len(sign) == 1}
    sign = next(sign for sign, count in counts.items() if 0 < count < 32)
    (file,) = best.glob("*.safetensors")
    tensors = load_file(file)
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name][vocabulary[sign]] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    return copy


def test_pairs_without_prediction(trained, tmp_path):
    """Pairs without a prediction are counted, leave metrics undefined, and are not written."""
    copy = blinded(trained, tmp_path)
    scored = command("evaluate", str(copy), cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    message = re.search(r"(\d+) of 64 dev.jsonl pairs have logits that are NaN or infinite", scored.stderr)
    assert 0 < int(message[1]) < 64
    assert re.search(r"accuracy *│ undefined", scored.stdout)
    file = str(trained.path.parent / "data/dev.jsonl")
    made = command("predict", str(copy), file, "-o", "out.jsonl", cwd=tmp_path)
    assert made.returncode == 2
    assert message[0] in made.stderr
    assert "nothing is written" in made.stderr
    assert not (tmp_path / "out.jsonl").exists()


def changed(trained, tmp_path, old, new):
    """Copy the run and replace a text in its config.yaml."""
    copy = tmp_path / "copy"
    shutil.copytree(trained.path, copy)
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    assert old in text
    (copy / "config.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return copy


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", "a ${lr}", '{"${lr}": 1}', "['${oc.env:SECRET}']"])
def test_interpolation_is_rejected(trained, value, tmp_path, monkeypatch):
    """A saved config with interpolations is rejected, and reveals nothing."""
    monkeypatch.setenv("SECRET", "do not tell")
    copy = changed(trained, tmp_path, "notes: null", f"notes: {value}")
    with pytest.raises(InputError, match=r"config.yaml: tracker.notes.*a saved config is literal") as refused:
        schema.load(copy)
    assert "do not tell" not in str(refused.value)


def test_no_download_from_untrusted_address(trained, tmp_path, monkeypatch):
    """Nothing is downloaded from an address in a run directory."""
    monkeypatch.setenv("no_proxy", "*")
    copy = changed(trained, tmp_path, "source: files", "source: download")
    text = (copy / "config.yaml").read_text(encoding="utf-8")
    with serving(FileServer()) as server:
        (copy / "config.yaml").write_text(text.replace("url: null", f"url: {server.address}/a.zip"), encoding="utf-8")
        with pytest.raises(InputError, match="not the official address.*\n.*--data FILE"):
            Predictor.load(copy).read_pairs(None, labelled=True)
        assert server.asked == 0


def test_cached_download_is_used(tmp_path, monkeypatch):
    """A download in the cache is used, whatever its address."""
    monkeypatch.setenv("no_proxy", "*")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train.json", "dev.json"):
            archive.writestr(name, b"".join(ROWS))
    with serving(FileServer()) as server:
        server.answers = [Answer((tmp_path / "a.zip").read_bytes())]
        mirror = (
            "dataset.source=url",
            f"dataset.url={server.address}/a.zip",
            "dataset.test_file=null",
            "epochs=1",
        )
        run = train(tmp_path / "run", *mirror, f"dataset.cache_dir={tmp_path}/cache")
    assert len(Predictor.load(run.path).read_pairs(None, labelled=True)) == 64


@pytest.mark.parametrize(("name", "more", "key"), [("evaluate", ["--data"], "--data"), ("predict", [], "FILE")])
def test_missing_file(trained, name, more, key, tmp_path):
    """A missing file is reported with its option."""
    (tmp_path / "unrelated.txt").touch()
    out = ["-o", "out"] if name == "predict" else []
    done = command(name, str(trained.path), *more, "nope.json", *out, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (2, f"{key}=nope.json: no such file")
