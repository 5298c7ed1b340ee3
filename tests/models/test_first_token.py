"""``performance.skip_unused_tokens``: the last layer is computed for the first token only."""

import copy

import pytest
import torch
from helpers import prepared, small
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.models.bert.modeling_bert import BertSelfAttention

from afqmc import config as schema
from afqmc.models.config import Pooling
from afqmc.models.cpu_kernels import use_fast_cpu_kernels
from afqmc.models.cross_encoder import CrossEncoder, NativeCrossEncoder, enable_padding_free
from afqmc.models.first_token import skip_unused_tokens

SIZES = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TINY = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "embedding_size": 32, "type_vocab_size": 2}
KINDS = ["bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta"]


@pytest.fixture(params=[True, False], ids=["padded", "full"])
def batch(request):
    """Four rows of up to nine tokens."""
    tokens = torch.randint(5, 90, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 9, dtype=torch.long)
    if request.param:
        mask[1, 6:] = mask[2, 3:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def config_of(kind):
    return AutoConfig.for_model(kind, **SIZES, **(TINY if kind in ("distilbert", "electra") else {}))


def encoder(kind, pooling=Pooling.cls):
    torch.manual_seed(0)
    return CrossEncoder(AutoModel.from_config(config_of(kind)).float(), 2, pooling, None).eval()


def outcome(model, batch):
    """Return the logits, and the gradients by name."""
    model.zero_grad()
    logits = model(**batch)
    logits.square().sum().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("fast", [True, False], ids=["cpu kernels", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_equal(kind, fast, batch):
    """They are those of the whole layer, for all supported architectures; a copy of the model skips too."""
    whole = encoder(kind)
    if fast:
        use_fast_cpu_kernels(whole, fast_dropout=True)
    skipping = copy.deepcopy(whole)
    assert skip_unused_tokens(skipping)
    (logits, grads), (others, other_grads) = outcome(whole, batch), outcome(copy.deepcopy(skipping), batch)
    torch.testing.assert_close(others, logits, rtol=0, atol=1e-6)
    assert grads.keys() == other_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    assert skipping.state_dict().keys() == whole.state_dict().keys()


def test_other_tokens_are_not_computed(batch):
    """The last layer computes one token per pair after attention; other layers compute all."""
    model = encoder("bert")
    skip_unused_tokens(model)
    seen = []
    for layer in model.encoder.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    model(**batch)
    assert seen == [9, 9, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_native_heads_read_the_first_token(kind, batch):
    """The logits of the architecture's own classifier do not change."""
    torch.manual_seed(0)
    hf = AutoModelForSequenceClassification.from_config(config_of(kind)).float().eval()
    expected = hf(**batch).logits
    model = NativeCrossEncoder(hf)
    assert skip_unused_tokens(model)
    torch.testing.assert_close(model(**batch), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "pooling", [pooling for pooling in Pooling if pooling not in (Pooling.cls, Pooling.pooler_output)]
)
def test_other_pooling_needs_all_tokens(pooling):
    """Nothing is skipped where other tokens are read."""
    assert not skip_unused_tokens(encoder("bert", pooling))


@pytest.mark.parametrize("kind", ["distilbert", "megatron-bert", "deberta-v2"])
def test_other_architectures_compute_all(kind):
    """Encoders whose layers differ from BERT's are left alone, as are packed batches."""
    assert not skip_unused_tokens(encoder(kind))
    packed = encoder("bert")
    enable_padding_free(packed)
    assert not skip_unused_tokens(packed)


class ReadsAllTokens(CrossEncoder):
    """A user's model."""

    def forward(self, **inputs):
        return self.classifier(self.encoder(**inputs).last_hidden_state.sum(1))


class OtherAttention(BertSelfAttention):
    """A user's attention."""


def test_changed_models_compute_all(batch):
    """Subclasses, replaced parts and hooks see all tokens."""
    assert not skip_unused_tokens(ReadsAllTokens(encoder("bert").encoder, 2, Pooling.cls, None))
    replaced, hooked = encoder("bert"), encoder("bert")
    replaced.encoder.encoder.layer[-1].attention.self = OtherAttention(replaced.encoder.config)
    assert not skip_unused_tokens(replaced)
    hooked.encoder.encoder.layer[-1].attention.register_forward_hook(lambda *_: None)
    assert not skip_unused_tokens(hooked)


def test_attention_that_is_changed_later(batch):
    """With another implementation the whole layer is computed."""
    model = encoder("bert")
    expected = model(**batch)
    assert skip_unused_tokens(model)
    assert skip_unused_tokens(model)  # once more changes nothing
    model.encoder.set_attn_implementation("eager")
    torch.testing.assert_close(model(**batch), expected, rtol=0, atol=1e-6)


def test_saved_configs_without_the_key(tmp_path):
    """A run of an earlier version is resumed as it was: with all tokens, and so with the same masks."""
    path = tmp_path / "config.yaml"
    schema.save(small(), path)
    assert schema.load(tmp_path).performance.skip_unused_tokens
    path.write_text(path.read_text().replace("  skip_unused_tokens: true\n", ""))
    assert not schema.load(tmp_path).performance.skip_unused_tokens


@pytest.mark.parametrize("value", [True, False])
def test_config(tmp_path, value):
    """The option turns it on and off; it is on by default."""
    override = () if value else ("performance.skip_unused_tokens=false",)
    setup = prepared(tmp_path / "run", "model.pooling=cls", *override)
    layer = type(setup.model.encoder.encoder.layer[-1])
    assert ("first_token" in layer.__mro__[1].__module__) is value
    assert layer.__name__ == "BertLayer"  # FSDP wraps layers by this name
