"""The masked language model of ``afqmc pretrain``: an encoder with the masked-LM head of its architecture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from afqmc.models.architecture import build_architecture, check_length
from afqmc.models.config import ModelConfig
from afqmc.models.loading import build_from_scratch, check_model_config, load_pretrained
from afqmc.utils.errors import InputError


class MaskedLanguageModel(nn.Module):
    """Predicts masked tokens. The head computes only these, since its output has the size of the vocabulary.

    Attributes:
        lm: The model of ``transformers``, with the encoder's embeddings as the last matrix of the head if the
            architecture ties them.
    """

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = lm
        self._masked: Tensor | None = None
        lm.base_model.register_forward_hook(self._select)

    def forward(self, masked: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Return the logits (M, V) of the M tokens where ``masked`` (B, T) is true; without it, (B, T, V) of all."""
        if getattr(self.lm.config, "type_vocab_size", None) == 1:
            inputs.pop("token_type_ids", None)
        self._masked = masked
        logits: Tensor = self.lm(**inputs).logits
        return logits

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings, as for a model of ``transformers``."""
        return self.lm.get_input_embeddings()

    def _select(self, encoder: nn.Module, inputs: Any, output: Any) -> Any:
        """Keep only the hidden states of the masked tokens: (B, T, H) to (M, H)."""
        if self._masked is not None:
            output.last_hidden_state = output.last_hidden_state[self._masked]
        return output


def build_masked_lm(
    config: ModelConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, device: str | None = None
) -> MaskedLanguageModel:
    """Build the model in float32. The head of a checkpoint is used if it has one.

    Raises:
        InputError: if the config is invalid, the architecture has no masked-LM head, or weights do not match it.
    """
    architecture = build_architecture(config, tokenizer)
    check_length(max_length, architecture, tokenizer)
    check_model_config(config)
    model_class = masked_lm_class(architecture)
    if config.from_scratch:
        lm = build_from_scratch(config, architecture, model_class, {}, device)
    else:
        lm = load_pretrained(config, architecture, {}, device, model_class)
    return MaskedLanguageModel(lm.float())


def masked_lm_class(architecture: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the model with a masked-LM head.

    Raises:
        InputError: when ``transformers`` has none.
    """
    if type(architecture) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise InputError(f"model.name_or_path: {architecture.model_type} has no masked-LM head in transformers")
    return MODEL_FOR_MASKED_LM_MAPPING[type(architecture)]  # type: ignore[return-value]
