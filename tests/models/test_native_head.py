"""``model.head=native``: the classification head of the architecture."""

import logging

import pytest
import torch
from helpers import prepared, small, summary, train
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, DistilBertConfig, ModernBertConfig, RobertaConfig

from afqmc.data.batching import eval_batches
from afqmc.inference.predictor import Predictor
from afqmc.models.cross_encoder import NativeCrossEncoder, native_class
from afqmc.models.layers import named_layers
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.runner.preflight import preflight
from afqmc.utils.errors import InputError

NATIVE = "model.head=native"
TINY = {"vocab_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]]),
    "attention_mask": torch.tensor([[1] * 4, [1, 1, 0, 0]]),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("native") / "run", NATIVE, "epochs=1")


def pretrained(base, *overrides):
    """Return the config of a run that starts from the weights in a directory."""
    config = small(NATIVE, "model.mimetic_init=false", "model.from_scratch=false", "trainer.max_steps=2", *overrides)
    config.model.name_or_path, config.model.config_overrides = str(base), {}
    return config


@pytest.mark.parametrize(
    "config",
    [
        RobertaConfig(**TINY),
        DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
        ModernBertConfig(**TINY, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2),
    ],
    ids=lambda config: config.model_type,
)
def test_logits_and_names_equal_transformers(config):
    """Logits and parameter names are those of the class in transformers; all parts of the head count as classifier."""
    hf = native_class(config)(config).eval()
    model = NativeCrossEncoder(hf).eval()
    assert torch.equal(model(**INPUTS), hf(**INPUTS).logits)
    assert model.state_dict().keys() == hf.state_dict().keys()
    head = {name for name in hf.state_dict() if not name.startswith(f"{hf.base_model_prefix}.")}
    assert named_layers(model, "key")["classifier"].keys() == head


def test_checkpoint_is_a_standard_classifier(run):
    """A run's best weights load with AutoModelForSequenceClassification, and give the same logits as the predictor."""
    hf, loading = AutoModelForSequenceClassification.from_pretrained(run.best, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    predictor = Predictor.load(run.path)
    pairs = predictor.read_pairs(None, labelled=True)
    evaluation = predictor.evaluate(pairs)
    assert evaluation.metrics["loss"] == pytest.approx(summary(run)["best"]["dev/loss"], abs=1e-5)
    tokenized = predictor.pair_tokenizer.encode(pairs)
    for indices, batch in eval_batches(tokenized, predictor.pair_tokenizer, 16):
        logits = hf.eval()(**batch.inputs).logits.detach()
        assert torch.allclose(logits, torch.from_numpy(evaluation.logits[indices]), atol=1e-5)


def test_pretrained_head_is_used_if_its_labels_fit(run, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "afqmc"):
        setup_model = build(run.best, tmp_path)
    assert "the pretrained head is used; its classes: 0, 1" in caplog.text
    expected = load_file(run.best / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in setup_model.state_dict().items())


def build(base, directory):
    from afqmc.runner.setup import build_setup

    directory.mkdir(exist_ok=True)
    return build_setup(pretrained(base), RunDir(directory)).model


def test_head_of_another_size_is_dropped(run, tmp_path, caplog):
    """A reranker with one output keeps its encoder and pooler; the run says that its last layer is new."""
    reranker = AutoModelForSequenceClassification.from_pretrained(run.best, num_labels=1, ignore_mismatched_sizes=True)
    reranker.config.problem_type = None
    reranker.save_pretrained(tmp_path / "reranker")
    for path in run.best.glob("tokenizer*"):
        (tmp_path / "reranker" / path.name).write_bytes(path.read_bytes())
    model = build(tmp_path / "reranker", tmp_path / "run")
    message = "has 1 labels, this run 2: classifier.bias, classifier.weight start from random weights"
    assert message in caplog.text
    assert torch.equal(model.state_dict()["bert.pooler.dense.weight"], reranker.bert.pooler.dense.weight)


def test_lora(run, tmp_path):
    """LoRA trains the adapter and the head; the merged weights have the names of the standard class."""
    config = pretrained(run.best, "model.lora.r=2", "model.lora.targets=[query]", "lr=1e-2")
    run_experiment(config, RunDir(tmp_path / "run"))
    before, after = (load_file(path.best / "model.safetensors") for path in (run, RunDir(tmp_path / "run")))
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {
        *(f"bert.encoder.layer.{layer}.attention.self.query.weight" for layer in (0, 1)),
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.classifier_dropout=0.1", "model.classifier_dropout=0.1: not with model.head=native"),
        ("model.dropout.multi_sample=2", "model.dropout.multi_sample=2: not with model.head=native"),
        ("performance.padding_free=true", "performance.padding_free=true: not with model.head=native"),
        ("objective=supervised_contrastive", "needs pooled vectors"),
    ],
)
def test_refused_before_training(tmp_path, override, message):
    config = small(NATIVE, override)
    messages = preflight([config]) or [refusal(tmp_path, override)]
    assert message in messages[0]


def refusal(directory, override):
    with pytest.raises(InputError) as refused:
        prepared(directory, NATIVE, override)
    return str(refused.value)
