"""Ensembles of folds and seeds: out-of-fold predictions, and the mean on the test split."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers import summary, train
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from afqmc import evaluate, predict
from afqmc.cli import run_command
from afqmc.data.sample import sample_files
from afqmc.evaluation.metrics import classification_metrics
from afqmc.inference.predictor import Predictor
from afqmc.results.ensemble import Ensemble, build_ensemble, resolve_members
from afqmc.results.runs import find_runs
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError

PAIRS = 96
TEXTS = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:PAIRS]]
FOLDED = (
    "dataset.num_folds=3", "dataset.max_dev_samples=null", "dataset.test_file=dev.json", "trainer.max_steps=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three folds times two seeds of one setting; the test split is labelled."""
    directory = tmp_path_factory.mktemp("sweeps") / "one"
    for seed in (1, 2):
        for fold in range(3):
            train(
                directory / f"{3 * seed + fold - 3}-fold-{fold}_seed-{seed}",
                *FOLDED,
                f"seed={seed}",
                f"dataset.fold={fold}",
            )
    return directory


@pytest.fixture
def copy(sweep, tmp_path):
    """A copy of the sweep to be damaged, without weights."""
    shutil.copytree(sweep, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors", "last"))
    return tmp_path / "copy"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jobs(directory):
    return sorted(directory.iterdir())


def test_out_of_fold_covers_each_pair_once(sweep, tmp_path):
    """Each seed predicts every training pair once, and the ensemble keeps its label."""
    for seed in (1, 2):
        runs = [job for job in jobs(sweep) if job.name.endswith(f"seed-{seed}")]
        rows = [row for run in runs for row in lines(run / "predictions/dev.jsonl")]
        assert sorted(row["id"] for row in rows) == list(range(PAIRS))
    ensemble = build_ensemble(tmp_path / "out", jobs(sweep))
    written = lines(tmp_path / "out/predictions/out-of-fold.jsonl")
    assert [row["id"] for row in written] == list(range(PAIRS))
    assert [row["label"] for row in written] == [row["label"] for row in TEXTS]
    assert (ensemble["folds"], ensemble["seeds"], ensemble["out_of_fold"]["pairs"]) == (3, [1, 2], PAIRS)


def test_out_of_fold_says_how_weights_were_chosen(sweep, tmp_path):
    """A note says that each fold chose among evaluations on its own pairs; with one evaluation there was no choice."""

    def noted(directory):
        return [
            note for note in Ensemble.of(find_runs([str(directory)])).detail("out-of-fold")["notes"] if "fold" in note
        ]

    assert noted(sweep) == []
    shutil.copytree(sweep, tmp_path / "more", ignore=shutil.ignore_patterns("*.safetensors", "last"))
    for job in jobs(tmp_path / "more"):
        with (job / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": 9, "dev/accuracy": 0.1}) + "\n")
    (note,) = noted(tmp_path / "more")
    assert note.startswith(
        "out-of-fold: each run kept the best of 2 evaluations on the very fold that it predicts here"
    )


def test_out_of_fold_is_mean_over_seeds(sweep, tmp_path):
    """Out-of-fold probabilities are means over seeds, and the metrics are computed from them."""
    ensemble = build_ensemble(tmp_path / "out", jobs(sweep))
    each = {}
    for job in jobs(sweep):
        for row in lines(job / "predictions/dev.jsonl"):
            each.setdefault(row["id"], []).append(row["probability"])
    mean = np.array([np.mean(each[number]) for number in range(PAIRS)])
    gold = np.array([int(row["label"]) for row in TEXTS])
    written = lines(tmp_path / "out/predictions/out-of-fold.jsonl")
    np.testing.assert_allclose([row["probability"] for row in written], mean, rtol=0, atol=1e-15)
    figures = ensemble["out_of_fold"]["figures"]
    assert figures["accuracy"] == accuracy_score(gold, mean > 0.5)
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(gold, mean), abs=1e-12)
    assert figures["loss"] == pytest.approx(log_loss(gold, mean), abs=1e-12)
    again = np.array([row["log_probabilities"] for row in written])
    assert classification_metrics(again, gold) == figures
    np.testing.assert_allclose(np.exp(again)[:, 1], mean, atol=1e-15)
    of_runs = [summary(RunDir(job))["best"]["dev/roc_auc"] for job in jobs(sweep)]
    assert ensemble["out_of_fold"]["of_runs"]["roc_auc"]["mean"] == pytest.approx(np.mean(of_runs))
    assert ensemble["out_of_fold"]["of_runs"]["roc_auc"]["sd"] == pytest.approx(np.std(of_runs, ddof=1))


def test_test_ensemble_is_mean_over_runs(sweep, tmp_path):
    """The test ensemble equals the mean recomputed from the checkpoints."""
    ensemble = build_ensemble(tmp_path / "out", jobs(sweep))["test"]
    (tmp_path / "test.json").write_bytes(b"".join(sample_files()["dev.json"].splitlines(keepends=True)[:16]))
    probabilities = []
    for job in jobs(sweep):
        run = Predictor.load(job)
        logits = run.evaluate(run.read_pairs(tmp_path / "test.json", labelled=True)).logits.astype(np.float64)
        probabilities.append(np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1))
    mean, gold = np.mean(probabilities, axis=0), np.array([int(r["label"]) for r in lines(tmp_path / "test.json")])
    written = lines(tmp_path / "out/predictions/test.jsonl")
    np.testing.assert_allclose([row["probability"] for row in written], mean, atol=1e-6)
    assert [row["prediction"] for row in written] == [str(int(one > 0.5)) for one in mean]
    assert ensemble["figures"]["accuracy"] == accuracy_score(gold, mean > 0.5)
    assert ensemble["figures"]["loss"] == pytest.approx(log_loss(gold, mean), abs=1e-6)
    assert ensemble["spread"]["probability_sd"] == pytest.approx(np.std(probabilities, axis=0, ddof=1).mean(), abs=1e-6)
    labels = np.array(probabilities) > 0.5
    apart = [(labels[a] != labels[b]).mean() for a in range(6) for b in range(a)]
    assert ensemble["spread"]["disagreement"] == pytest.approx(np.mean(apart))


def test_member_paths_are_relative(sweep, tmp_path):
    """ensemble.json names its members by paths relative to its directory."""
    ensemble = build_ensemble(sweep.parent / "together", jobs(sweep))
    assert ensemble == json.loads((sweep.parent / "together/ensemble.json").read_text(encoding="utf-8"))
    assert [member["path"] for member in ensemble["members"]] == [f"../{sweep.name}/{job.name}" for job in jobs(sweep)]
    assert [(member["seed"], member["fold"]) for member in ensemble["members"]] == [
        (s, f) for s in (1, 2) for f in range(3)
    ]
    assert len(find_runs([str(sweep.parent)])) == 6  # an ensemble does not count as a run


def test_seeds_without_folds_give_test_only(tmp_path):
    """Without folds only the test split is combined."""
    for seed in (1, 2):
        train(tmp_path / f"runs/{seed}", f"seed={seed}", "trainer.max_steps=2")
    ensemble = build_ensemble(tmp_path / "out", jobs(tmp_path / "runs"))
    assert "out_of_fold" not in ensemble
    assert ensemble["test"]["figures"] == {}  # no labels
    assert ensemble["test"]["spread"].keys() == {"disagreement", "probability_sd"}
    written = lines(tmp_path / "out/predictions/test.jsonl")
    both = [lines(run / "predictions/test.jsonl") for run in jobs(tmp_path / "runs")]
    assert [row["probability"] for row in written] == [
        pytest.approx((one["probability"] + two["probability"]) / 2) for one, two in zip(*both, strict=True)
    ]
    assert not (tmp_path / "out/predictions/out-of-fold.jsonl").exists()


def refused(directory, **how):
    with pytest.raises(InputError) as error:
        build_ensemble(directory.parent / "out", jobs(directory), **how)
    assert not (directory.parent / "out").exists()
    return str(error.value)


def test_missing_fold_is_named(copy):
    """The error names the seed and the missing fold."""
    shutil.rmtree(copy / "1-fold-1_seed-1")
    reason = "so not every pair was predicted once"
    assert refused(copy) == f"seed 1: fold 1 is missing of the 3 (dataset.num_folds), {reason}"


def test_incomplete_run_is_named_or_skipped(copy):
    """An incomplete run is refused by name, or left out with skip_incomplete."""
    (copy / "1-fold-1_seed-1/summary.json").unlink()
    (copy / "1-fold-1_seed-1/status.json").write_text('{"status": "failed", "step": 3, "error": "boom"}', "utf-8")
    assert refused(copy) == (
        "without final figures: 1-fold-1_seed-1 (failed, step 3, boom); --skip-incomplete leaves them out"
    )
    ensemble = build_ensemble(copy.parent / "out", jobs(copy), skip_incomplete=True)
    assert [run["why"] for run in ensemble["left_out"]] == ["step 3, boom"]
    assert len(ensemble["members"]) == 5
    assert ensemble["out_of_fold"]["spread"] == {}  # only seed 2 is complete


def test_runs_must_share_setting_and_file(copy):
    """Runs of different settings or data files are refused."""
    config = copy / "0-fold-0_seed-1/config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("lr: 0.0005", "lr: 0.001"), encoding="utf-8")
    assert "the runs differ in lr: an ensemble combines the folds and seeds of one setting" in refused(copy)
    config.write_text(text.replace("seed: 1", "seed: 2"), encoding="utf-8")
    assert "3-fold-0_seed-2: the same seed and fold as another run here" in refused(copy)
    config.write_text(text, encoding="utf-8")
    file = copy / "0-fold-0_seed-1/summary.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"folds": record["folds"] | {"sha256": "other"}}), encoding="utf-8")
    assert "folds of different files" in refused(copy)


def test_folds_must_partition_the_file(sweep, copy):
    """Folds that overlap, or do not cover the file, are refused."""
    one, other = (copy / f"{fold}-fold-{fold}_seed-1" for fold in (0, 1))
    shutil.copy(one / "predictions/dev.jsonl", other / "predictions/dev.jsonl")
    shutil.copy(one / "summary.json", other / "summary.json")
    assert "is in two of the folds" in refused(copy)
    for run in jobs(copy):
        if run.name.endswith("seed-2"):
            shutil.rmtree(run)
    shutil.copy(sweep / other.name / "predictions/dev.jsonl", other / "predictions/dev.jsonl")
    shutil.copy(sweep / other.name / "summary.json", other / "summary.json")
    for run in jobs(copy):
        text = (run / "summary.json").read_text(encoding="utf-8").replace('"pairs": 96', '"pairs": 100')
        (run / "summary.json").write_text(text, encoding="utf-8")
    assert "its folds predicted 96 of 100 pairs (dataset.max_dev_samples truncates folds)" in refused(copy)


def test_invalid_members_are_refused(copy):
    """A single run, and members with different or missing test predictions, are refused."""
    file = copy / "0-fold-0_seed-1/predictions/test.jsonl"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('{"id": 0,', '{"id": 99,'), encoding="utf-8")
    assert "cannot be combined: id 0 against 99 in line 1" in refused(copy)
    file.unlink()
    assert "0-fold-0_seed-1: predictions/test.jsonl: missing" in refused(copy)
    for run in jobs(copy)[1:]:
        shutil.rmtree(run)
    assert "an ensemble needs at least 2 complete runs; 1 of 1 are complete" in refused(copy)


def test_output_must_not_be_a_run(sweep):
    """An ensemble cannot be written to a run directory."""
    with pytest.raises(InputError, match="is a run directory; write the ensemble to another one"):
        Ensemble.of(find_runs([str(sweep)])).write(jobs(sweep)[0])


def test_resolve_members_distinguishes_run_and_sweep(sweep):
    """A single run directory is not an ensemble; a sweep is."""
    assert resolve_members([str(jobs(sweep)[0])]) is None
    assert resolve_members([str(sweep / "nowhere")]) is None
    assert len(resolve_members([str(sweep)])) == len(resolve_members(list(map(str, jobs(sweep))))) == 6


@pytest.fixture
def run_entry(monkeypatch, capsys):
    """Return a function that calls a command, and returns its exit code and output."""

    def call(entry, *arguments):
        monkeypatch.setattr(sys, "argv", [entry.__name__, *map(str, arguments)])
        code = run_command(entry.main)
        printed = capsys.readouterr()
        return code, printed.err if code else printed.out

    return call


def test_evaluate_reports_and_writes_ensemble(sweep, run_entry, tmp_path):
    """evaluate prints the figures of the ensemble, and writes them with -o."""
    code, text = run_entry(evaluate, sweep, "--json", "-o", tmp_path / "out")
    assert code == 0
    result = json.loads(text)
    assert result["out_of_fold"] == json.loads((tmp_path / "out/ensemble.json").read_text("utf-8"))["out_of_fold"]
    _, text = run_entry(evaluate, *jobs(sweep))
    assert "out-of-fold: 96 pairs, 6 runs" in text
    assert "test: 16 pairs, 6 runs" in text
    assert f"{result['test']['figures']['accuracy']:.6f}" in text


def test_evaluate_and_predict_average_runs(sweep, run_entry, tmp_path):
    """evaluate --data and predict average the predictions of all runs on any file."""
    file = tmp_path / "test.json"
    file.write_bytes(b"".join(sample_files()["dev.json"].splitlines(keepends=True)[:16]))
    stored = build_ensemble(tmp_path / "out", jobs(sweep))["test"]["figures"]
    code, text = run_entry(evaluate, sweep, "--data", file, "--json")
    assert code == 0
    scored = json.loads(text)
    assert (scored["pairs"], scored["runs"]) == (16, 6)
    assert scored["loss"] == pytest.approx(stored["loss"], abs=1e-6)
    out = tmp_path / "mean.jsonl"
    assert run_entry(predict, sweep, file, "-o", out) == (0, f"{out}: 16 pairs, the mean of 6 runs\n")
    for one, other in zip(lines(out), lines(tmp_path / "out/predictions/test.jsonl"), strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SWEEP", "--data", "x", "-o", "out"], "-o: not with --data; python -m afqmc.predict writes"),
        (["RUN", "-o", "out"], "-o: only for several runs"),
        (["SWEEP", "-o", "RUN"], "is a run directory"),
    ],
)
def test_invalid_output_option_is_refused(sweep, run_entry, arguments, message):
    """-o is refused where it is not allowed."""
    names = {"SWEEP": sweep, "RUN": jobs(sweep)[0]}
    code, text = run_entry(evaluate, *(names.get(argument, argument) for argument in arguments))
    assert code == 2
    assert message in text


def test_output_does_not_follow_links(copy, run_entry, tmp_path):
    """A symbolic link in an untrusted sweep is not followed when writing."""
    (tmp_path / "mine").mkdir()
    (copy / "predictions").symlink_to(tmp_path / "mine")
    code, text = run_entry(evaluate, copy, "-o", copy)
    assert code == 2
    assert "a link leads out of" in text
    assert not any((tmp_path / "mine").iterdir())


def test_predict_reports_differing_settings(sweep, copy, run_entry, tmp_path):
    """predict reports the settings in which the averaged runs differ."""
    for run in jobs(copy):
        shutil.rmtree(run)
    for name, job in zip("ab", jobs(sweep), strict=False):
        shutil.copytree(job, copy / name)
    config = copy / "a/config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("lr: 0.0005", "lr: 0.001"), encoding="utf-8")
    file, out = tmp_path / "some.json", tmp_path / "out"
    file.write_bytes(sample_files()["test.json"][:2000].rpartition(b"\n")[0])
    assert run_entry(predict, copy, file, "-o", out)[1].endswith(" pairs, the mean of 2 runs, which differ in lr\n")


def test_members_with_other_labels_are_refused(sweep, run_entry, copy, tmp_path):
    """Runs with different labels cannot be averaged."""
    for run in jobs(copy):
        shutil.rmtree(run)
    for name, job in zip("ab", jobs(sweep), strict=False):
        shutil.copytree(job, copy / name)
    (copy / "b/checkpoints/best/labels.json").write_text('["1", "0"]', encoding="utf-8")
    (tmp_path / "some.json").write_bytes(sample_files()["test.json"][:2000].rpartition(b"\n")[0])
    code, text = run_entry(predict, copy, tmp_path / "some.json", "-o", tmp_path / "out")
    assert code == 2
    assert "b: its labels are 1, 0, " in text
    assert not (tmp_path / "out").exists()
