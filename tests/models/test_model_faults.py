"""Test encoders and custom models that differ from BERT."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import train
from tokenizers import Tokenizer
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedTokenizerFast

from afqmc.data.loading import Pairs
from afqmc.data.tokenization import PairTokenizer
from afqmc.evaluation.evaluator import padding_effect, padding_warning, predict_logits
from afqmc.models.config import ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder, default_classifier_dropout, encoder_class
from afqmc.models.loading import build_tokenizer, check_separator
from afqmc.utils.errors import InputError

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "pad_token_id": 0,
    "max_position_embeddings": 64,
}  # fmt: skip


def classifier(kind, tokenizer, pooling=Pooling.mean, **more):
    config = CONFIG_MAPPING[kind](**{**SMALL, "vocab_size": len(tokenizer), **more})
    torch.manual_seed(0)
    return CrossEncoder(encoder_class(config)(config).float(), 2, pooling, None).eval()


def without_post_processor(tokenizer, **template):
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["post_processor"] = None
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), unk_token="[UNK]", pad_token="[PAD]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip


def test_one_segment_model(pairs, tiny_tokenizer):
    """A model with one segment works with a tokenizer that emits two."""
    model, encoder = classifier("roberta", tiny_tokenizer, type_vocab_size=1), PairTokenizer(tiny_tokenizer, 32)
    encoded = encoder.encode(pairs)
    assert encoded.segments.max() == 1
    assert np.isfinite(predict_logits(model, encoded, encoder, 8, torch.device("cpu"))).all()


def test_two_segment_model(pairs, tiny_tokenizer):
    """Segments change the logits of a model that has two."""
    model, encoder = classifier("bert", tiny_tokenizer, type_vocab_size=2), PairTokenizer(tiny_tokenizer, 32)
    (row,) = tiny_tokenizer([pairs.sentence1[0]], [pairs.sentence2[0]], return_tensors="pt")["token_type_ids"]
    both = tiny_tokenizer([pairs.sentence1[0]], [pairs.sentence2[0]], return_tensors="pt")
    one = {**both, "token_type_ids": torch.zeros_like(row)[None]}
    assert not torch.equal(model(**both), model(**one))
    assert encoder.uses_token_type_ids


@pytest.mark.parametrize(
    ("kind", "settings", "rate"),
    [
        ("bert", {"hidden_dropout_prob": 0.3}, 0.3),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.4}, 0.4),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.0}, 0.0),
        ("roberta", {"classifier_dropout": 0.25}, 0.25),
        ("electra", {"classifier_dropout": 0.25}, 0.25),
        ("distilbert", {"seq_classif_dropout": 0.35}, 0.35),
        ("albert", {"classifier_dropout_prob": 0.15, "hidden_dropout_prob": 0.0}, 0.15),
        ("deberta-v2", {"hidden_dropout_prob": 0.2}, 0.2),
        ("deberta-v2", {"hidden_dropout_prob": 0.2, "cls_dropout": 0.05}, 0.05),
        ("modernbert", {"classifier_dropout": 0.45}, 0.45),
        ("funnel", {"hidden_dropout": 0.22}, 0.22),
        ("xlnet", {"dropout": 0.17}, 0.17),
    ],
)
def test_default_head_dropout(kind, settings, rate):
    """The default is the dropout of the architecture's own classifier."""
    assert default_classifier_dropout(CONFIG_MAPPING[kind](**settings)) == rate


def test_no_dropout_in_config(caplog):
    """Without any dropout in the config, 0.1 is used with a warning."""
    assert default_classifier_dropout(SimpleNamespace(model_type="x")) == 0.1
    assert "model.classifier_dropout" in caplog.text


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_side(side, pairs, tiny_tokenizer, tmp_path):
    """Long pairs are truncated on the tokenizer's truncation_side."""
    tiny_tokenizer.truncation_side = side
    try:
        encoder = PairTokenizer(tiny_tokenizer, 12, tmp_path)
        encoded = encoder.tokenize_cached(pairs)
        for row, (first, second) in enumerate(zip(pairs.sentence1, pairs.sentence2, strict=True)):
            expected = tiny_tokenizer(first, second, truncation="longest_first", max_length=12)["input_ids"]
            assert encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist() == expected
    finally:
        tiny_tokenizer.truncation_side = "right"
    assert not np.array_equal(
        PairTokenizer(tiny_tokenizer, 12, tmp_path).tokenize_cached(pairs).tokens, encoded.tokens
    ) or (side == "right")


def test_tokenizer_without_separator(tiny_tokenizer, tmp_path):
    """A tokenizer without a post-processor is rejected."""
    plain = without_post_processor(tiny_tokenizer)
    plain.save_pretrained(tmp_path)
    AutoModel.from_config(CONFIG_MAPPING["bert"](**SMALL, vocab_size=len(plain))).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model.name_or_path=.*no token between the two sentences"):
        build_tokenizer(ModelConfig(name_or_path=str(tmp_path)), list)


def test_special_tokens_around_pair_only(tiny_tokenizer):
    """A tokenizer must put a token between the sentences, not only around the pair."""
    from tokenizers.processors import TemplateProcessing

    around = without_post_processor(tiny_tokenizer)
    around.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A $B [SEP]",
        special_tokens=[(name, tiny_tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    with pytest.raises(InputError, match="no token between"):
        check_separator(around, "x")
    check_separator(tiny_tokenizer, "x")


class NoMask(nn.Module):
    """A mean that counts padding."""

    def __init__(self, size):
        super().__init__()
        self.embedding, self.out = nn.Embedding(size, 16), nn.Linear(16, 2)

    def forward(self, input_ids, attention_mask, **_):
        return self.out(self.embedding(input_ids).mean(1))


def test_padding_warning(pairs, tiny_tokenizer):
    """A model that ignores the attention mask is reported, without side effects."""
    torch.manual_seed(0)
    model, encoder = NoMask(len(tiny_tokenizer)), PairTokenizer(tiny_tokenizer, 64)
    before = torch.get_rng_state()
    assert "depend on the padding" in padding_warning(model, pairs, encoder)
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "albert", "modernbert", "deberta-v2"])
def test_no_padding_warning(kind, pooling, pairs, tiny_tokenizer):
    """Models that use the attention mask pass the padding check."""
    if pooling is Pooling.pooler_output and kind in ("electra", "modernbert", "deberta-v2"):
        pytest.skip("has no pooler")
    more = {"embedding_size": 16} if kind == "albert" else {}
    assert (
        padding_effect(classifier(kind, tiny_tokenizer, pooling, **more), pairs, PairTokenizer(tiny_tokenizer, 48))
        < 1e-4
    )


def test_padding_check_with_equal_lengths(tiny_tokenizer):
    """The padding check works if all pairs have the same length."""
    for text in ("ab", "花", "借呗怎么还款" * 40):
        same = Pairs("x", [0, 1], [text] * 2, [text] * 2, [0, 1])
        for length in (8, 32):
            assert "depend on" in padding_warning(
                NoMask(len(tiny_tokenizer)), same, PairTokenizer(tiny_tokenizer, length)
            )


OWN_MODEL = """
from torch import nn


class NoMask(nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.embedding, self.out = nn.Embedding(vocab_size, 16), nn.Linear(16, num_labels)
        nn.init.zeros_(self.out.weight)

    def forward(self, input_ids, attention_mask, **_):
        return self.out(self.embedding(input_ids).mean(1))
"""


def test_best_weights_padding_check(tmp_path, monkeypatch, caplog):
    """A run repeats the padding check on its best weights."""
    (tmp_path / "padded_model.py").write_text(OWN_MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level("WARNING"):
        train(tmp_path / "run", "model._target_=padded_model.NoMask", "lr=0.1", "trainer.max_steps=3")
    (warning,) = [record.getMessage() for record in caplog.records if "depend on the padding" in record.getMessage()]
    assert warning.startswith("best weights: ")  # the head is zero at first, and hides it
