"""The cross-encoder: a pretrained encoder, pooling, dropout and one linear layer."""

from __future__ import annotations

import copy
import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

from afqmc.models.config import Pooling
from afqmc.models.padding_free import can_pack, encode_packed, use_packed_attention
from afqmc.utils.errors import InputError

log = logging.getLogger(__name__)

# names of the dropout before the classifier in the configs of transformers; the last three are used if it has none
_HEAD_DROPOUTS = (
    "classifier_dropout",
    "classifier_dropout_prob",
    "cls_dropout",
    "seq_classif_dropout",
    "hidden_dropout_prob",
    "hidden_dropout",
    "dropout",
)
_PROBE_TOKENS = 100  # vocabulary of the model in the padding-free check


def pool(states: Tensor, first_layer_states: Tensor | None, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce the hidden states to one vector per pair, without padding.

    Args:
        states: Hidden states of the last layer (B, T, H).
        first_layer_states: Hidden states of the first layer (B, T, H), for ``first_last_avg``.
        mask: 1 for tokens, 0 for padding (B, T).
        pooling: Any except ``pooler_output``.

    Returns:
        (B, H).
    """
    if pooling is Pooling.cls:
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    if pooling is Pooling.max:
        return states.masked_fill(weights == 0, torch.finfo(states.dtype).min).amax(dim=1)
    if pooling is Pooling.first_last_avg:
        assert first_layer_states is not None
        states = (states + first_layer_states) / 2
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


class CrossEncoder(nn.Module):
    """An encoder that reads both sentences at once, with pooling, dropout and one linear layer.

    Parameters have the names that the sequence classifiers of ``transformers`` use: the encoder has its own prefix
    (``bert.``), and the head is ``classifier.``. With ``pooling=pooler_output`` this is the standard head of BERT.
    """

    def __init__(self, encoder: PreTrainedModel, num_labels: int, pooling: Pooling, dropout: float | None) -> None:
        super().__init__()
        config = encoder.config
        self.pooling = pooling
        self.prefix = encoder.base_model_prefix
        self.add_module(self.prefix, encoder)
        self.dropout = nn.Dropout(default_classifier_dropout(config) if dropout is None else dropout)
        self.one_segment = getattr(config, "type_vocab_size", None) == 1  # its embedding has no entry for segment 1
        self.padding_free = False
        # transformers waits for the GPU to check whether a mask (B, T) is all ones; a mask (B, 1, 1, T) is not checked
        self.use_4d_mask = False
        self.classifier = nn.Linear(config.hidden_size, num_labels)
        nn.init.normal_(self.classifier.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    @property
    def encoder(self) -> PreTrainedModel:
        """The encoder, which is stored under its prefix in ``transformers``, such as ``bert``."""
        return self.get_submodule(self.prefix)  # type: ignore[return-value]

    def forward(
        self, *, return_pooled: bool = False, dropout_samples: int = 1, **inputs: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits (B, num_labels) of ``input_ids`` (B, T), ``attention_mask`` (B, T), and so on.

        Args:
            return_pooled: Whether to return also the pooled vectors before dropout (B, H).
            dropout_samples: Number N of dropout masks before the linear layer; the logits are (N * B, num_labels), all
                pairs with the first mask first.
            inputs: Of the encoder.
        """
        mask, need_first_layer = inputs["attention_mask"], self.pooling is Pooling.first_last_avg
        if self.one_segment:
            inputs.pop("token_type_ids", None)
        if self.padding_free:
            states, first_layer_states = encode_packed(self.encoder, inputs, need_first_layer)
            pooled = self.encoder.get_submodule("pooler")(states) if self.pooling is Pooling.pooler_output else None
        else:
            encoder_mask = mask[:, None, None, :].bool() if self.use_4d_mask else mask
            output = self.encoder(**{**inputs, "attention_mask": encoder_mask}, output_hidden_states=need_first_layer)
            states, first_layer_states = output.last_hidden_state, output.hidden_states[1] if need_first_layer else None
            pooled = output.pooler_output if self.pooling is Pooling.pooler_output else None
        vector = pool(states, first_layer_states, mask, self.pooling) if pooled is None else pooled
        repeated = vector if dropout_samples == 1 else vector.repeat(dropout_samples, 1)
        logits: Tensor = self.classifier(self.dropout(repeated))
        return (logits, vector) if return_pooled else logits


class NativeCrossEncoder(CrossEncoder):
    """A cross-encoder with the classification head of its architecture, as ``AutoModelForSequenceClassification``.

    It has the parameter names of that class, and computes the same.

    Args:
        classifier: The model of ``transformers``, whose parts become parts of this module.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        nn.Module.__init__(self)
        self.pooling = Pooling.cls  # not used
        self.prefix = classifier.base_model_prefix
        for name, module in classifier.named_children():
            self.add_module(name, module)
        self._hf = [classifier]  # in a list, so that its parts are not registered twice
        self.one_segment = getattr(classifier.config, "type_vocab_size", None) == 1
        self.padding_free = False
        self.use_4d_mask = False  # not used: some heads average over the mask (B, T)

    def forward(self, **inputs: Tensor) -> Tensor:  # type: ignore[override]
        """Return the logits (B, num_labels) of ``input_ids`` (B, T), ``attention_mask`` (B, T), and so on."""
        if self.one_segment:
            inputs.pop("token_type_ids", None)
        logits: Tensor = self._hf[0](**inputs).logits
        return logits


def native_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the model with a classification head.

    Raises:
        InputError: if ``transformers`` has none for this architecture.
    """
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise InputError(
            f"model.head=native: {config.model_type} has no classification head in transformers; use model.head=linear"
        )
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]  # type: ignore[return-value]


def default_classifier_dropout(config: PreTrainedConfig) -> float:
    """Return the dropout before the last layer of the architecture's sequence classifier in ``transformers``."""
    for name in _HEAD_DROPOUTS:
        rate = getattr(config, name, None)
        if isinstance(rate, float | int) and not isinstance(rate, bool):
            return float(rate)
    log.warning(
        "model: the config of %s has no dropout for the head; 0.1 is used (model.classifier_dropout sets it)",
        config.model_type,
    )
    return 0.1


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the encoder without a head."""
    classes: Any = MODEL_MAPPING[type(config)]
    return classes[0] if isinstance(classes, tuple) else classes  # type: ignore[no-any-return]


def encoder_options(config: PreTrainedConfig, pooling: Pooling) -> dict[str, Any]:
    """Return the keyword arguments of the encoder. They leave out an unused pooler if the architecture allows that."""
    accepts = inspect.signature(encoder_class(config).__init__).parameters
    return {"add_pooling_layer": pooling is Pooling.pooler_output} if "add_pooling_layer" in accepts else {}


def enable_padding_free(model: CrossEncoder) -> None:
    """Make a model compute tokens only, and no padding.

    Raises:
        InputError: if its encoder does not support that.
    """
    if isinstance(model, NativeCrossEncoder):
        raise InputError("performance.padding_free=true: not with model.head=native; use model.head=linear")
    check_padding_free(model.encoder, model.pooling)
    _skip_padding(model)


def _skip_padding(model: CrossEncoder) -> None:
    use_packed_attention(model.encoder)
    model.padding_free = True


def check_padding_free(encoder: PreTrainedModel, pooling: Pooling) -> None:
    """Check that padding-free and padded results are equal, on two layers of this architecture with random weights.

    The encoder itself may be on the ``meta`` device.

    Raises:
        InputError: if attention cannot be replaced, or sees the tokens of other rows.
    """
    message = f"performance.padding_free=true: not supported for {encoder.config.model_type} (BERT-style encoders only)"
    if not can_pack(encoder):
        raise InputError(message)
    config = _two_layers(encoder.config)
    mask = torch.arange(8) < torch.tensor([[3], [8], [5]])
    tokens = torch.randint(config.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens, "attention_mask": mask.long()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        small = type(encoder)(config, **encoder_options(config, pooling))
        model = CrossEncoder(small.float(), 2, pooling, None).eval()
        expected = model(**inputs)
        _skip_padding(model)
        try:
            logits = model(**inputs)
        except (AssertionError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(f"{message} ({str(error) or type(error).__name__})") from error
    if not torch.allclose(logits, expected, atol=1e-4):
        raise InputError(f"{message} (logits differ by {(logits - expected).abs().max().item():.1e})")


def _two_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config with at most two layers and a small vocabulary."""
    small, layers = copy.deepcopy(config), config.num_hidden_layers
    for key, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == layers:  # one value per layer
            setattr(small, key, value[:2])
    small.num_hidden_layers = min(layers, 2)
    small.vocab_size = min(config.vocab_size, max(config.pad_token_id or 0, _PROBE_TOKENS) + 1)
    return small


def matches_hf_classifier(model: nn.Module) -> bool:
    """Return whether ``AutoModelForSequenceClassification`` computes the same from the same parameters.

    True for BERT-style encoders (BERT, ERNIE, MegatronBERT, ...) with ``pooling=pooler_output``: they have the same
    parameter names, and their head is dropout and a linear layer on the pooled vector. True for ``model.head=native``.
    """
    if isinstance(model, NativeCrossEncoder):
        return True
    if not isinstance(model, CrossEncoder) or model.pooling is not Pooling.pooler_output:
        return False
    with torch.device("meta"):
        hf_model = AutoModelForSequenceClassification.from_config(model.encoder.config)
    return set(hf_model.state_dict()) == set(model.state_dict())
