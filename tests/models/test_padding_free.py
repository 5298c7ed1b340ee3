"""Test padding-free encoding against padded encoding."""

import copy

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    ElectraConfig,
    ElectraModel,
    ErnieConfig,
    ErnieModel,
    RobertaConfig,
    RobertaModel,
)  # fmt: skip

from afqmc.models.config import Pooling
from afqmc.models.cpu_kernels import use_fast_cpu_kernels
from afqmc.models.cross_encoder import CrossEncoder, enable_padding_free
from afqmc.models.padding_free import Packing
from afqmc.utils.errors import InputError

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 90}
NONE = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LENGTHS = [5, 12, 1, 7]


@pytest.fixture
def batch():
    """Four rows of different lengths, the second sentence's segments set."""
    mask = (torch.arange(12) < torch.tensor(LENGTHS)[:, None]).long()
    tokens = torch.randint(5, 90, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    segments = (torch.arange(12) > 3).long() * mask
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": segments}


def classifier(config, model, pooling):
    torch.manual_seed(0)
    return CrossEncoder(
        model(config, **({"add_pooling_layer": True} if pooling is Pooling.pooler_output else {})), 2, pooling, 0.0
    )


def outcome(model, batch):
    model.zero_grad()
    logits = model(**batch)
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "plain"])
@pytest.mark.parametrize("pooling", list(Pooling))
def test_packed_equals_padded(pooling, quick, batch):
    """Logits and gradients are the same with and without padding, for each pooling."""
    padded = classifier(BertConfig(**SIZES, **NONE), BertModel, pooling)
    packed = copy.deepcopy(padded)
    if quick:
        use_fast_cpu_kernels(packed, fast_dropout=True)
    enable_padding_free(packed)
    (logits, grads), (packed_logits, packed_grads) = outcome(padded, batch), outcome(packed, batch)
    torch.testing.assert_close(packed_logits, logits, rtol=0, atol=1e-6)
    assert grads.keys() == packed_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(packed_grads[name], grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("config", "model"), [(RobertaConfig, RobertaModel), (ElectraConfig, ElectraModel), (ErnieConfig, ErnieModel)]
)
def test_other_bert_style_encoders(config, model, batch):
    """RoBERTa, ELECTRA and ERNIE can be packed, too."""
    if model is RobertaModel:
        del batch["token_type_ids"]  # it has one segment
    settings = {"max_position_embeddings": 64} | ({"type_vocab_size": 2} if model is not RobertaModel else {})
    torch.manual_seed(0)
    padded = CrossEncoder(model(config(**SIZES, **NONE, **settings)), 2, Pooling.mean, 0.0).eval()
    packed = copy.deepcopy(padded)
    enable_padding_free(packed)
    torch.testing.assert_close(packed(**batch), padded(**batch), rtol=0, atol=1e-6)


def test_padding_is_not_computed(batch):
    """The layers see tokens only."""
    packed = classifier(BertConfig(**SIZES, **NONE), BertModel, Pooling.cls)
    enable_padding_free(packed)
    seen = []
    packed.encoder.encoder.layer[0].intermediate.register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape)
    )
    packed(**batch)
    assert seen == [(1, sum(LENGTHS), 32)]


def test_dropout(batch):
    """Dropout works on packed batches and follows the seed."""
    packed = classifier(
        BertConfig(**SIZES, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1), BertModel, Pooling.cls
    )
    enable_padding_free(packed)
    torch.manual_seed(1)
    first, second = packed(**batch), packed(**batch)
    torch.manual_seed(1)
    assert torch.equal(packed(**batch), first)
    assert not torch.equal(first, second)


def test_unsupported_encoder():
    """An encoder whose attention cannot be replaced is rejected."""
    model = CrossEncoder(DebertaV2Model(DebertaV2Config(**SIZES)), 2, Pooling.cls, 0.0)
    with pytest.raises(InputError, match="padding_free=true: not supported for deberta-v2"):
        enable_padding_free(model)


def test_pack_and_pad_round_trip(batch):
    """pad undoes pack."""
    packing = Packing.from_mask(batch["attention_mask"])
    states = torch.randn(4, 12, 3) * batch["attention_mask"][:, :, None]
    packed = packing.pack(states)
    assert packed.shape == (1, sum(LENGTHS), 3)
    assert torch.equal(packing.pad(packed), states)


def test_4d_mask(batch):
    """A mask (B, 1, 1, T) gives the same logits."""
    model = classifier(BertConfig(**SIZES, **NONE), BertModel, Pooling.mean).eval()
    expected = model(**batch)
    model.use_4d_mask = True
    torch.testing.assert_close(model(**batch), expected, rtol=0, atol=1e-6)
