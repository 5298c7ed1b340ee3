"""The Python API: ``afqmc.run``, ``afqmc.load`` and ``afqmc.compare``; and ``afqmc ls``."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, command

import afqmc
from afqmc.config import load
from afqmc.utils.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A directory in which two runs were trained, in this order."""
    directory = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        afqmc.run([*SMALL, "trainer.max_steps=2", "seed=1"])
        afqmc.run([*SMALL, "trainer.max_steps=2", "seed=2"])
    return directory


def newest_first(outputs):
    listed = command("ls", "--json", cwd=outputs)
    assert listed.returncode == 0, listed.stderr
    return [outputs / run["path"] for run in json.loads(listed.stdout)]


def test_run_returns_a_complete_run(outputs, monkeypatch):
    """Relative paths are those of the working directory; ``sys.argv`` is as before."""
    monkeypatch.chdir(outputs)
    before = list(sys.argv)
    run_dir = afqmc.run([*SMALL, "trainer.max_steps=1", "hydra.run.dir=here"])
    assert run_dir.path.resolve() == outputs / "here"
    assert run_dir.read_summary()["steps"] == 1
    assert sys.argv == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["-m", "seed=1,2"], "-m: only overrides key=value are allowed here"),
        (["learning_rate=1"], "learning_rate"),
        (["lr=-1"], "lr=-1"),
    ],
)
def test_run_refuses_invalid_overrides(tmp_path, monkeypatch, overrides, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        afqmc.run(overrides)


def test_loaded_model_predicts_what_the_run_recorded(outputs):
    """Logits of dev pairs are those in predictions/dev.jsonl."""
    path = newest_first(outputs)[-1]
    predictor = afqmc.load(path)
    pairs = predictor.read_pairs(None, labelled=True)
    predicted = predictor.predict(zip(pairs.sentence1, pairs.sentence2, strict=True))
    recorded = [json.loads(line) for line in (path / "predictions/dev.jsonl").read_text("utf-8").splitlines()]
    assert [row["logits"] for row in predicted] == [row["logits"] for row in recorded]
    decided = predictor.decide(np.array([row["logits"] for row in recorded]))
    assert [row["prediction"] for row in predicted] == [str(index) for index in decided.predicted]
    assert [row["probability"] for row in predicted] == decided.probabilities[:, 1].tolist()


@pytest.mark.parametrize("pairs", [[], [("one",)], [("one", None)], [("one", " ")], ["ab"]])
def test_predict_refuses_what_is_not_pairs(outputs, pairs):
    predictor = afqmc.load(newest_first(outputs)[0])
    with pytest.raises(InputError, match="pairs: must not be empty" if not pairs else r"pairs\[0\]="):
        predictor.predict(pairs)


def test_comparison_as_data_frame(outputs):
    """There is a row per setting, with the mean over its runs."""
    report = afqmc.compare([outputs / "outputs"], metric="dev/accuracy")
    frame = report.to_pandas()
    assert len(frame) == len(report.settings) == 1
    assert frame["n"].tolist() == [2]
    values = [run.figures["dev/accuracy"] for run in report.settings[0].runs]
    assert frame["mean"].iloc[0] == pytest.approx(sum(values) / 2)


def test_notebook(tmp_path, monkeypatch):
    """All cells of the example notebook run, in order."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples/quickstart.ipynb").read_text("utf-8"))
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            few = '"trainer.max_steps=2", "dataset.max_train_samples=96", "dataset.max_test_samples=16"'
            exec("".join(cell["source"]).replace('"trainer.max_steps=30"', few), names)
    assert len(names["runs"]) == 4
    assert len(names["report"].to_pandas()) == 2


def test_signatures_are_shown():
    """The callable modules have the signatures of their functions."""
    assert list(inspect.signature(afqmc.run).parameters) == ["overrides"]
    assert list(inspect.signature(afqmc.compare).parameters) == ["paths", "metric", "top", "baseline", "published"]


def test_import_is_light():
    """``import afqmc`` loads no library."""
    code = "import sys, afqmc; assert not {'torch', 'hydra', 'numpy'} & {*sys.modules}; afqmc.run, afqmc.compare"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_ls_lists_newest_first(outputs):
    """The table names status, metric, duration and path of each run."""
    assert [load(path).seed for path in newest_first(outputs)] == [2, 1]
    shown = command("ls", "outputs", cwd=outputs).stdout.splitlines()
    assert shown[0].split() == ["last", "written", "status", "best", "time", "run"]
    assert all("completed" in line and "dev/accuracy 0." in line for line in shown[1:])
    assert command("ls", cwd=outputs / "outputs").stderr.startswith("there is no directory outputs here")
