"""The masked language model: its head computes only masked tokens; its encoder is loaded again, in any architecture."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from afqmc.checkpoint.weights import save_weights, saved_module
from afqmc.models.config import ModelConfig
from afqmc.models.loading import load_pretrained
from afqmc.models.masked_lm import MaskedLanguageModel, build_masked_lm, masked_lm_class
from afqmc.utils.errors import InputError

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
SPECIAL = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    "xlm-roberta": SIZES | {"type_vocab_size": 1},
    "modernbert": SIZES | {"cls_token_id": None, "sep_token_id": None},
}
KINDS = ("bert", "xlm-roberta", "ernie", "electra", "distilbert", "deberta-v2", "albert", "modernbert")


def tiny(kind, vocab_size):
    architecture = CONFIG_MAPPING[kind](vocab_size=vocab_size, **SPECIAL.get(kind, SIZES))
    torch.manual_seed(0)
    return MaskedLanguageModel(masked_lm_class(architecture)(architecture).eval())


@pytest.mark.parametrize("kind", KINDS)
def test_only_masked_tokens_are_computed(kind):
    """The logits are those of transformers at the masked tokens, and the head gets no others."""
    model, shapes = tiny(kind, 60), []
    tokens = torch.randint(3, 60, (3, 9))
    inputs, masked = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, torch.rand(3, 9) < 0.3
    with torch.no_grad():
        full = model(**inputs)
        model.lm.get_output_embeddings().register_forward_hook(lambda module, args, output: shapes.append(output.shape))
        part = (
            model(**inputs, token_type_ids=torch.zeros_like(tokens), masked=masked)
            if kind == "xlm-roberta"
            else (model(**inputs, masked=masked))
        )
    torch.testing.assert_close(part, full[masked])
    assert shapes == [(int(masked.sum()), 60)]
    assert model.lm.get_output_embeddings().weight is model.lm.get_input_embeddings().weight


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_is_found_again(kind, tiny_tokenizer, tmp_path, caplog):
    """The encoder of a saved model is loaded bit for bit, without a message about the head."""
    model = tiny(kind, len(tiny_tokenizer))
    save_weights(tmp_path / "best", saved_module(model), tiny_tokenizer, ())
    architecture = AutoConfig.from_pretrained(tmp_path / "best")
    loaded = load_pretrained(ModelConfig(name_or_path=str(tmp_path / "best")), architecture, {})
    expected = model.lm.base_model.state_dict()
    same = [
        name for name, tensor in loaded.state_dict().items() if name in expected and torch.equal(tensor, expected[name])
    ]
    assert {*same} == {*expected}
    assert not [record for record in caplog.records if "tensors" in record.message]


def test_missing_head_is_random(tiny_tokenizer, tmp_path, caplog):
    """An encoder without a head gets one with random weights, and a warning; a missing layer is an error."""
    architecture = CONFIG_MAPPING["bert"](vocab_size=len(tiny_tokenizer), **SIZES)
    AutoModel.from_config(architecture, add_pooling_layer=False).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    config = ModelConfig(name_or_path=str(tmp_path))
    model = build_masked_lm(config, tiny_tokenizer, 32)
    assert "has no weights for the masked-LM head, which starts from random weights" in caplog.text
    assert model.lm.get_output_embeddings().weight is model.lm.get_input_embeddings().weight
    architecture.num_hidden_layers = 3
    architecture.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tensors are missing, such as bert.encoder.layer.2"):
        build_masked_lm(config, tiny_tokenizer, 32)


def test_architecture_without_head():
    with pytest.raises(InputError, match="gpt2 has no masked-LM head"):
        masked_lm_class(CONFIG_MAPPING["gpt2"]())
