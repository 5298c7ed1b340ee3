"""``afqmc export``: other libraries and engines give the same logits, and untrusted exports are refused."""

import ctypes
import json
import pickle
import re
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import torch
from helpers import command, summary, train
from huggingface_hub.errors import RepositoryNotFoundError
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    XLMRobertaConfig,
    pipeline,
)

from afqmc.checkpoint.store import write_checksums
from afqmc.data.tokenization import PairTokenizer
from afqmc.inference.engine_choice import EngineChoice, _recorded
from afqmc.inference.engines import OnnxEngine
from afqmc.inference.export import graphs
from afqmc.inference.export.manifest import Manifest, read_manifest
from afqmc.inference.export.scoring import score
from afqmc.inference.export.standard import write_checkpoint
from afqmc.inference.export.upload import check_repository, upload_export
from afqmc.inference.export.writing import write_export
from afqmc.inference.predictor import Predictor
from afqmc.models.config import Pooling
from afqmc.models.cross_encoder import CrossEncoder, encoder_class, encoder_options
from afqmc.models.wordpiece import train_wordpiece
from afqmc.results.engine_comparison import compare_engines
from afqmc.results.model_card import model_card
from afqmc.run_dir import RunDir
from afqmc.utils.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def _without_signal_stack():
    """Switch off the alternate stack for signals. After OpenVINO it is too small: a signal would end the process."""
    yield

    class Stack(ctypes.Structure):
        _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(None, 2, 0)), None)  # 2 is SS_DISABLE


PAIRS = [("怎么还款呢", "额度是多少"), ("how to pay", "abc")]
LABELS = ("a", "b", "c")
EXACT = 1e-5
TINY = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ENCODERS = {
    "bert": BertConfig(**TINY),
    "xlm-roberta": XLMRobertaConfig(**TINY, type_vocab_size=1, pad_token_id=0),
    "electra": ElectraConfig(**TINY, embedding_size=32),
    "distilbert": DistilBertConfig(vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "modernbert": ModernBertConfig(
        **TINY, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "run", "model.pooling=cls", "epochs=1")


def export(run, format, **options):
    """Export into the run, checked in this process, and return the directory."""
    target = run.exports / format
    write_export(run.path, target, format, options.get("int8", False), 0.05, False, comparison, score)
    return target


def comparison(scores, tolerance=0.05):
    return compare_engines(scores.logits, scores.seconds, scores.gold, tolerance, scores.decided, scores.cross_fitted)


def model_of(config, pooling):
    torch.manual_seed(0)
    encoder = encoder_class(config)(config, **encoder_options(config, pooling)).float()
    model = CrossEncoder(encoder, len(LABELS), pooling, None).eval()
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.normal_(model.classifier.bias)
    return model


@pytest.mark.parametrize(
    ("encoder", "pooling", "expected"),
    [
        ("bert", "pooler_output", "standard"),
        ("bert", "cls", "rewritten"),
        ("bert", "mean", "own_code"),
        ("bert", "max", "own_code"),
        ("bert", "first_last_avg", "own_code"),
        ("xlm-roberta", "pooler_output", "standard"),
        ("xlm-roberta", "cls", "rewritten"),
        ("xlm-roberta", "mean", "own_code"),
        ("electra", "cls", "rewritten"),
        ("distilbert", "cls", "rewritten"),
        ("modernbert", "cls", "own_code"),
    ],
)
def test_other_libraries_give_the_same_logits(tmp_path, encoder, pooling, expected):
    """AutoModelForSequenceClassification, pipeline and the CrossEncoder of sentence-transformers."""
    tokenizer = train_wordpiece(["怎么还款呢", "额度是多少", "how to pay", "abc def"] * 20, 100)
    model = model_of(ENCODERS[encoder], Pooling(pooling))
    batch = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch)
    assert write_checkpoint(tmp_path, model, tokenizer, LABELS, 24) == expected
    options = {"trust_remote_code": True} if expected == "own_code" else {}
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options).eval()
    assert [loaded.config.id2label[index] for index in range(3)] == [*LABELS]
    own_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert own_tokenizer.model_max_length == 24
    batch = own_tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert (loaded(**batch).logits - logits).abs().max() < EXACT
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu", **options)
    answers = classify([{"text": a, "text_pair": b} for a, b in PAIRS], top_k=None, function_to_apply="none")
    values = [[next(x["score"] for x in row if x["label"] == label) for label in LABELS] for row in answers]
    assert np.abs(np.array(values) - logits.numpy()).max() < EXACT


def test_sentence_transformers(tmp_path):
    """Its CrossEncoder gives the same logits, and cuts pairs at the length of the run."""
    library = pytest.importorskip("sentence_transformers")
    tokenizer = train_wordpiece(["怎么还款呢", "额度是多少", "how to pay", "abc def"] * 20, 100)
    pairs = [*PAIRS, ("怎么还款呢" * 9, "额度是多少" * 5)]
    pair_tokenizer = PairTokenizer(tokenizer, 24)
    for pooling in (Pooling.cls, Pooling.mean):
        model = model_of(ENCODERS["bert"], pooling)
        ids = pair_tokenizer._core.encode_batch(pairs)
        with torch.no_grad():
            expected = [
                model(
                    input_ids=torch.tensor([e.ids]),
                    token_type_ids=torch.tensor([e.type_ids]),
                    attention_mask=torch.ones(1, len(e.ids), dtype=torch.long),
                )[0]
                for e in ids
            ]
        kind = write_checkpoint(tmp_path / pooling.value, model, tokenizer, LABELS, 24)
        other = library.CrossEncoder(str(tmp_path / pooling.value), device="cpu", trust_remote_code=kind == "own_code")
        assert np.abs(other.predict(pairs) - torch.stack(expected).numpy()).max() < EXACT


def test_own_code_needs_trust(tmp_path):
    """Without ``trust_remote_code``, transformers says so; it does not load the weights into another class."""
    tokenizer = train_wordpiece(["abc def"] * 20, 100)
    write_checkpoint(tmp_path, model_of(ENCODERS["bert"], Pooling.mean), tokenizer, LABELS, 24)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, trust_remote_code=False)


def test_half_precision(tmp_path):
    """The rewritten head of BERT survives bfloat16: logits differ by no more than those of the run's own head."""
    tokenizer = train_wordpiece(["怎么还款呢", "额度是多少"] * 20, 100)
    model = model_of(ENCODERS["bert"], Pooling.cls)
    write_checkpoint(tmp_path, model, tokenizer, LABELS, 24)
    batch = tokenizer([PAIRS[0][0]], [PAIRS[0][1]], return_tensors="pt")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        expected = model(**batch)
        assert (loaded(**batch).logits - expected).abs().max() < 0.02 * expected.abs().max() + 0.05


def test_command_writes_and_checks(run, tmp_path):
    """The command prints the comparison, and writes a manifest and a model card without paths of this machine."""
    out = tmp_path / "out"
    done = command("export", str(run.path), "-o", str(out), "--push", "me/pairs", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "logit difference" in done.stdout
    assert "nothing was uploaded" in done.stdout
    manifest = json.loads((out / "export.json").read_text())
    assert [row["engine"] for row in manifest["engines"]] == ["torch", "torch-bf16", "exported"]
    row = manifest["engines"][-1]
    assert row["max_logit_difference"] < EXACT
    assert row["changed_predictions"] == 0
    assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
    assert (manifest["labels"], manifest["dev"]["pairs"]) == (["0", "1"], 64)
    assert (out / "decision.json").read_bytes() == (run.best / "decision.json").read_bytes()
    decision = json.loads((out / "decision.json").read_text())
    assert f"{out / 'decision.json'}: decision for accuracy on 64 dev pairs" in done.stdout
    best = summary(run)["best"]
    for name in ("accuracy", "accuracy_decided", "f1_decided"):
        assert row[name]["value"] == pytest.approx(best[f"dev/{name}"])
    assert row["changed_decided"] == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    for text in (
        "train: 96 pairs, SHA-256",
        "- lr: `0.0005`",
        "seed: `42`",
        "95% interval",
        "always predicting",
        "Nothing",
        f"above the threshold {decision['threshold']:.4f}",
        f"/ {decision['temperature']:.4f} +",
        "| F1, with the decision |",
    ):
        assert text in card
    assert str(tmp_path.parent) not in card
    assert "## Limitations" in card
    refused = command("export", str(run.path), "-o", str(tmp_path), cwd=tmp_path)
    assert (refused.returncode, "has other files" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8: only with --format onnx or openvino"),
        (["--int8", "--format", "torch"], "--int8: only with --format onnx or openvino"),
        (["--tolerance", "-1"], "--tolerance -1.0: must be at least 0"),
    ],
)
def test_invalid_options(run, tmp_path, arguments, message):
    refused = command("export", str(run.path), *arguments, cwd=tmp_path)
    assert (refused.returncode, message in refused.stderr) == (2, True)


def test_comparison():
    """Changed predictions are counted against the first engine; NaN is never within the tolerance."""
    reference = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1]], np.float32)
    other = reference + np.array([[0, 0], [0, 0], [0, 0.2]], np.float32)
    logits = {"torch": reference, "other": other, "broken": reference * np.nan}
    decided = dict(zip(logits, np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0]]), strict=True))
    cross_fitted = dict.fromkeys(logits, np.array([0, 1, 1]))
    rows = compare_engines(logits, dict.fromkeys(logits, 2.0), np.array([0, 1, 1]), 0.1, decided, cross_fitted)
    assert [row["within_tolerance"] for row in rows] == [True, False, False]
    assert [row["changed_predictions"] for row in rows[:2]] == [0, 1]
    assert [row["accuracy"]["value"] for row in rows[:2]] == [pytest.approx(2 / 3), 1.0]
    assert rows[1]["pairs_per_second"] == 1.5
    assert [row["changed_decided"] for row in rows] == [0, 2, 1]
    assert {row["f1_decided"]["value"] for row in rows} == {1.0}


@pytest.fixture(scope="module")
def exported(run):
    """The run with exports to ONNX and OpenVINO."""
    for package in ("onnx", "onnxruntime", "onnxscript", "openvino"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'afqmc[export]'")
    for format in ("onnx", "openvino"):
        export(run, format)
    return run


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the run with its exports."""
    shutil.copytree(exported.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_same_logits(exported, engine):
    """Batches of any size and length give the logits of PyTorch."""
    torch_run, other = (Predictor.load(exported.path, "cpu", engine=name) for name in ("torch", engine))
    pairs = torch_run.read_pairs(None, labelled=True)
    expected, logits = (predictor.evaluate(pairs).logits for predictor in (torch_run, other))
    assert np.abs(expected - logits).max() < EXACT
    for count in (1, 3):
        rows = other.predict(PAIRS[:count])
        reference = torch_run.predict(PAIRS[:count])
        assert np.abs(np.array([r["logits"] for r in rows]) - [r["logits"] for r in reference]).max() < EXACT
    assert other.engine_note.startswith(f"engine: {engine} (")


def test_auto_takes_the_fastest_within_the_tolerance(copy):
    """Engines beyond the tolerance, and records of other processors, do not count."""
    path = copy.exports / "onnx" / "export.json"
    manifest = json.loads(path.read_text())
    speeds = {"torch": 1.0, "torch-bf16": 9.0, "onnx": 5.0}
    for row in manifest["engines"]:
        row |= {"pairs_per_second": speeds[row["engine"]], "within_tolerance": row["engine"] != "torch-bf16"}
    rewrite(path, manifest)
    shutil.rmtree(copy.exports / "openvino")
    assert Predictor.load(copy.path, "cpu", engine="auto").engine_note.startswith("engine: onnx (")
    rewrite(path, manifest | {"weights_sha256": "0"})
    assert Predictor.load(copy.path, "cpu", engine="auto").engine_note.startswith("engine: torch; no export")
    rewrite(path, manifest | {"machine": {"processor": "another"}})
    assert Predictor.load(copy.path, "cpu", engine="auto").engine_note.startswith("engine: torch; no export")


def test_auto_times_several_candidates(copy, tmp_path, monkeypatch):
    """They are timed in turns with PyTorch, once per machine; without dev, the speeds at export decide."""
    monkeypatch.setenv("AFQMC_CACHE", str(tmp_path / "cache"))
    speeds = {"torch": 1.0, "torch-bf16": 2.0, "onnx": 3.0, "openvino": 4.0, "openvino-bf16": 0.5}
    for path in copy.exports.glob("*/export.json"):
        manifest = json.loads(path.read_text())
        for row in manifest["engines"]:
            row |= {"pairs_per_second": speeds[row["engine"]], "within_tolerance": True}
        rewrite(path, manifest)
    note = Predictor.load(copy.path, "cpu", engine="auto").engine_note
    assert re.search(
        r"timed in turns: torch [\d.]+, torch-bf16 [\d.]+, onnx \(.*\) [\d.]+, openvino \(.*\) [\d.]+", note
    )
    (cache,) = (tmp_path / "cache/engines").iterdir()
    measured = json.loads(cache.read_text())
    for name, expected in (("torch", "torch"), ("torch-bf16", "torch-bf16"), (f"onnx ({copy.exports}/onnx)", "onnx")):
        cache.write_text(json.dumps(measured | {name: 1e9}))
        assert Predictor.load(copy.path, "cpu", engine="auto").engine.name == expected
    with monkeypatch.context() as patch:  # another version of an engine is timed anew
        version = metadata.version
        patch.setattr(metadata, "version", lambda name: f"{version(name)}+1" if name == "openvino" else version(name))
        Predictor.load(copy.path, "cpu", engine="auto")
        assert len([*cache.parent.iterdir()]) == 2
    for file in cache.parent.iterdir():
        file.unlink()
    config = copy.config.read_text()
    copy.config.write_text(config.replace("source: sample", "source: files"))
    assert copy.config.read_text() != config
    note = Predictor.load(copy.path, "cpu", engine="auto").engine_note
    assert note.startswith("engine: openvino (")
    assert "4.0 times as fast" in note
    assert "dev is not on this machine" in note


def test_workers_use_the_choice_of_their_parent(copy, tmp_path, monkeypatch):
    """``serve --workers`` times the engines once: the workers open what it chose, without a cache."""
    pytest.importorskip("uvicorn", reason="needs the extra serve: pip install 'afqmc[serve]'")
    from afqmc import serve
    from afqmc.inference.serving import server

    monkeypatch.setenv("AFQMC_CACHE", str(tmp_path / "cache"))
    for path in copy.exports.glob("*/export.json"):
        manifest = json.loads(path.read_text())
        for row in manifest["engines"]:
            row |= {"pairs_per_second": 1.0 if row["engine"] == "torch" else 2.0, "within_tolerance": True}
        rewrite(path, manifest)
    served = []
    monkeypatch.setattr(server, "serve_on", lambda *arguments: served.append(arguments))
    monkeypatch.setattr(sys, "argv", ["serve", str(copy.path), "--port", "0", "--workers", "2", "--engine", "auto"])
    assert serve.main() == 0
    [(_, settings, predictor, workers)] = served
    assert (predictor, workers) == (None, 2)
    shutil.rmtree(tmp_path / "cache")
    settings = pickle.loads(pickle.dumps(settings))
    worker = Predictor.load(settings.run_dir, engine=settings.engine)
    assert worker.engine == settings.engine
    assert "timed in turns" in worker.engine_note
    for choice in (
        EngineChoice(note="engine: torch"),
        EngineChoice("torch-bf16"),
        EngineChoice("openvino-bf16", copy.exports / "openvino"),
    ):
        assert Predictor.load(copy.path, "cpu", engine=choice).engine == choice
    assert not (tmp_path / "cache").exists()


def test_int8_openvino(exported, tmp_path):
    """The weights are int8, the check knows both precisions, and the engine gives nearly the same logits."""
    pytest.importorskip("nncf", reason="needs the extra int8: pip install 'afqmc[int8]'")
    shutil.copytree(exported.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    write_export(run.path, run.exports / "openvino-int8", "openvino", True, 0.1, False, comparison, score)
    manifest = read_manifest(run.exports / "openvino-int8")
    assert manifest.int8
    assert [row["engine"] for row in manifest.engines] == ["torch", "torch-bf16", "openvino", "openvino-bf16"]
    whole, quantized = (run.exports / name / "openvino_model.bin" for name in ("openvino", "openvino-int8"))
    assert quantized.stat().st_size < whole.stat().st_size / 2
    plain, int8 = (Predictor.load(run.path, "cpu", engine=engine) for engine in ("torch", str(quantized.parent)))
    rows, reference = (predictor.predict(PAIRS) for predictor in (int8, plain))
    differences = np.abs(np.array([row["logits"] for row in rows]) - [row["logits"] for row in reference])
    assert 0 < differences.max() < 0.1


def test_quantizer_that_is_missing(monkeypatch):
    """The message names the package and the extra."""
    monkeypatch.setattr(graphs, "find_spec", lambda name: None if name == "nncf" else find_spec("json"))
    graphs.check_packages("openvino", int8=False)
    with pytest.raises(InputError, match=r"--format openvino --int8: needs nncf; pip install 'afqmc\[int8\]'"):
        graphs.check_packages("openvino", int8=True)


def rewrite(path, manifest):
    path.write_text(json.dumps(manifest))
    write_checksums(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_sha256": "0"}, "was exported with another tokenizer"),
        ({"weights_sha256": "0"}, "was exported from other weights"),
        ({"labels": ["1", "0"]}, "its labels are 1, 0"),
    ],
)
def test_foreign_export_is_refused(copy, change, message):
    path = copy.exports / "onnx" / "export.json"
    rewrite(path, json.loads(path.read_text()) | change)
    with pytest.raises(InputError, match=message):
        Predictor.load(copy.path, "cpu", engine="onnx")


ROW = {"engine": "onnx", "pairs_per_second": 2.0, "within_tolerance": True, "max_logit_difference": 0.0}


@pytest.mark.parametrize(
    "change",
    [{"engines": [{}]}, {"engines": 3}, {"machine": 3}, {"more": 3}, {"engines": [ROW | {"engine": []}]},
     {"engines": [{key: value for key, value in ROW.items() if key != "max_logit_difference"}]}],
)  # fmt: skip
def test_invalid_manifest_is_skipped(change, tmp_path, caplog):
    """It is an error in one line where it is asked for; among the exports of a run it is skipped with a warning."""
    run, target = RunDir(tmp_path), tmp_path / "exports" / "onnx"
    target.mkdir(parents=True)
    manifest = Manifest("onnx", False, None, [], [], 8, "", "", 0.1, {}, engines=[ROW, ROW | {"engine": "torch"}])
    manifest.write(target)
    assert [candidate.name for candidate in _recorded(run)] == ["onnx"]
    path = target / "export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="not the manifest of an export"):
        read_manifest(target)
    assert [*_recorded(run)] == []
    assert "it is skipped" in caplog.text


def test_decision_of_the_run(copy):
    """The export has the run's decision; one that differs is refused."""
    expected = Predictor.load(copy.path, "cpu").decision
    assert Predictor.load(copy.path, "cpu", engine="onnx").decision == expected
    path = copy.exports / "onnx" / "decision.json"
    decision = json.loads(path.read_text()) | {"threshold": 0.75}
    path.write_text(json.dumps(decision))
    write_checksums(path.parent)
    with pytest.raises(InputError, match=r"decision.json: differs from that of the run"):
        Predictor.load(copy.path, "cpu", engine="onnx")


def test_own_precision(copy):
    """Where the run computes in bfloat16, float32 is the reference, and ``torch`` is what ``predict`` does."""
    text = copy.config.read_text()
    copy.config.write_text(text.replace("mixed_precision: 'no'", "mixed_precision: bf16"))
    assert copy.config.read_text() != text
    scores = score(copy.path, copy.exports / "onnx", False)
    assert [*scores.logits] == ["torch-float32", "torch", "torch-bf16", "onnx"]
    predictor = Predictor.load(copy.path, "cpu")
    expected = predictor.evaluate(predictor.read_pairs(None, labelled=True)).logits
    assert np.array_equal(scores.logits["torch"], expected)
    assert np.abs(scores.logits["torch-float32"] - expected).max() > 0


def test_damaged_or_linked_file_is_refused(copy):
    path = copy.exports / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model.onnx: damaged"):
        Predictor.load(copy.path, "cpu", engine="onnx")
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="a link that leads out"):
        Predictor.load(copy.path, "cpu", engine="onnx")


def test_external_data_is_refused(copy, tmp_path):
    """ONNX files that name other files as weights would read any file of this machine."""
    import onnx

    model = onnx.load(copy.exports / "onnx" / "model.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, size_threshold=0, location="other.bin")
    with pytest.raises(InputError, match="names other files as weights"):
        OnnxEngine(tmp_path / "model.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match=r"text.onnx: (is not an ONNX model|ONNX Runtime cannot load it)"):
        OnnxEngine(tmp_path / "text.onnx")


def test_engine_that_is_not_installed(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("afqmc.inference.engines.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--engine onnx: needs onnx, onnxruntime; pip install 'afqmc\[export\]'"):
        Predictor.load(exported.path, "cpu", engine="onnx")


def test_openvino_sends_no_statistics(exported):
    """Its converter has loaded the stub in place of the package that sends them."""
    assert sys.modules["openvino_telemetry"] is None
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_predict_reports_the_engine(exported, tmp_path):
    done = command("predict", str(exported.path), "-o", "-", "--pair", "a", "b", "--engine", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("engine: onnx (")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("tensorrt", "--engine tensorrt: must be one of auto, torch, torch-bf16, onnx, openvino, openvino-bf16"),
        ("auto", None),
    ],
)
def test_engine_without_export(small_run, engine, message):
    """``auto`` stays with PyTorch."""
    if message is None:
        assert Predictor.load(small_run.path, "cpu", engine=engine).engine_note.startswith("engine: torch; no export")
    else:
        with pytest.raises(InputError, match=message):
            Predictor.load(small_run.path, "cpu", engine=engine)


def test_bf16_weights(small_run):
    """Logits of bfloat16 weights are close to those of float32, and are float32."""
    full, half = (Predictor.load(small_run.path, "cpu", engine=name) for name in ("torch", "torch-bf16"))
    expected, logits = (np.array([row["logits"] for row in p.predict(PAIRS)]) for p in (full, half))
    assert 0 < np.abs(expected - logits).max() < 0.1


def test_target_is_never_a_directory_with_other_files(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="has other files"):
        write_export(run.path, Path(tmp_path), "transformers", False, 0.05, False, comparison)
    with pytest.raises(InputError, match="is in the checkpoints of the run"):
        write_export(run.path, run.checkpoints / "new", "transformers", False, 0.05, False, comparison)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_too_large_difference_removes_the_export(run, tmp_path):
    """An export whose engine differs by more than the tolerance is refused and removed."""

    def differs(scores):
        rows = comparison(scores)
        rows[-1] |= {"within_tolerance": False, "max_logit_difference": 0.5}
        return rows

    with pytest.raises(
        InputError, match=r"--tolerance 0.05: a logit of the exported model differs by 0.5, and 0 of 64"
    ):
        write_export(run.path, tmp_path / "out", "transformers", False, 0.05, False, differs, score)
    assert [*tmp_path.iterdir()] == []


def test_model_card_lists_all_runs_of_the_sweep(run, tmp_path):
    """Never only the best one: all complete runs, with mean and standard deviation."""
    for seed, accuracy in ((1, 0.6), (2, 0.8)):
        shutil.copytree(run.path, tmp_path / f"{seed}-run", ignore=shutil.ignore_patterns("exports"))
        for name, old, new in (("config.yaml", "seed: 42", f"seed: {seed}"), ("summary.json", None, accuracy)):
            path = tmp_path / f"{seed}-run" / name
            if old is None:
                content = json.loads(path.read_text())
                content["best"]["dev/accuracy"] = new
                path.write_text(json.dumps(content))
            else:
                path.write_text(path.read_text().replace(old, new))
    (tmp_path / "sweep.json").write_text("{}")
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    row = {"engine": "x", "max_logit_difference": 0, "changed_predictions": 0, "pairs_per_second": 1}
    row |= {"accuracy": interval, "f1": interval}
    facts = {"labels": ["0", "1"], "engines": [row], "dev": {"pairs": 64}, "format": "onnx", "inputs": [], "head": None}
    card = model_card(tmp_path / "2-run", facts, "me/pairs", None)
    assert "| 1-run | `1` | 0.6000 |" in card
    assert "| 2-run (this one) | `2` | 0.8000 |" in card
    assert "0.7000 ± 0.1414" in card


class Hub:
    """The hub's client, with one public repository."""

    endpoint = "https://hub"

    def __init__(self):
        self.calls = []

    def repo_info(self, repository):
        if repository == "me/public":
            return SimpleNamespace(private=False)
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))

    def create_repo(self, repository, private):
        self.calls.append((repository, private))
        return SimpleNamespace(repo_id=repository)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.calls.append((repo_id, folder_path))


def test_uploads_are_private(monkeypatch, tmp_path):
    """A new repository is private; an existing public one is refused without ``public``."""
    hub = Hub()
    monkeypatch.setattr("afqmc.inference.export.upload.HfApi", lambda: hub)
    assert upload_export(tmp_path, "me/new", public=False) == "https://hub/me/new"
    assert hub.calls == [("me/new", True), ("me/new", tmp_path)]
    with pytest.raises(InputError, match="--push me/public: exists and is public"):
        upload_export(tmp_path, "me/public", public=False)
    with pytest.raises(InputError, match="--push a b: must be NAME or OWNER/NAME"):
        check_repository("a b")
