"""Write a checkpoint that ``AutoModelForSequenceClassification``, ``pipeline`` and sentence-transformers load.

Three ways, tried in this order:

- The standard class of the architecture has the same head (``pooling=pooler_output`` of BERT-style encoders, and
  ``model.head=native``).
- ``pooling=cls``: the head of the standard class has a further layer with an activation f between vector and logits.
  Weights for that layer are chosen so that it computes our linear head z = W x + b (C logits). For GELU, ReLU and SiLU,
  f(z) - f(-z) = z exactly, so two of its units per class suffice. For tanh, three units per class compute
  1.5 tanh(e z) / e - 0.6 tanh(2 e z) / 2e + 0.1 tanh(3 e z) / 3e, in which the terms in z**3 and z**5 cancel
  (Richardson extrapolation). With e = 1/1024 the relative error is below 2e-7 for logits up to 64.
- Otherwise no standard class computes the same. The class in ``modeling_pooled.py`` is copied beside the weights, and
  ``trust_remote_code=True`` loads it.

The result of the first two is compared with the model on random tokens before it is used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from afqmc.inference.export import modeling_pooled
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.loading import quiet_transformers
from afqmc.utils.errors import InputError

STANDARD, REWRITTEN, OWN_CODE = "standard", "rewritten", "own_code"
_EXACT = 1e-5  # largest difference of a logit
_SCALE = 2.0**-10  # e in the docstring
_TANH = ((1, 1.5), (2, -0.6), (3, 0.1))  # multiples of e, and their coefficients
_SIGNS = ((1.0, 1.0), (-1.0, -1.0))


def write_checkpoint(
    directory: Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...], max_length: int
) -> str:
    """Write weights, config and tokenizer.

    Args:
        directory: An existing one.
        model: In evaluation mode, on the CPU.
        tokenizer: Of the model; its ``model_max_length`` and padding side are changed.
        labels: Label names, in class order.
        max_length: Of the run, in tokens.

    Returns:
        ``standard``, ``rewritten`` or ``own_code``: how the head is stored.

    Raises:
        InputError: for a custom model.
    """
    if not isinstance(model, CrossEncoder):
        raise InputError("--format transformers: not with a custom model (model._target_); --format onnx exports it")
    exported, kind = _standard_model(model, len(labels))
    config = exported.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    with quiet_transformers(progress=False):
        exported.save_pretrained(directory)
    if kind == OWN_CODE:
        source = Path(modeling_pooled.__file__)
        shutil.copyfile(source, directory / source.name)
    tokenizer.model_max_length, tokenizer.padding_side = max_length, "right"
    if model.one_segment:  # the standard classes look up the embedding of segment 1, which does not exist
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.save_pretrained(directory)
    return kind


def _standard_model(model: CrossEncoder, classes: int) -> tuple[PreTrainedModel, str]:
    """Return a model of transformers with the same logits, and how its head is stored."""
    state = model.state_dict()
    architecture = model.encoder.config
    architecture.num_labels = classes
    with torch.random.fork_rng(devices=[]):
        standard = AutoModelForSequenceClassification.from_config(architecture).float().eval()
    names = standard.state_dict().keys()
    if names == state.keys():
        standard.load_state_dict(state)
        if _largest_difference(model, standard) <= _EXACT:
            return standard, STANDARD
    encoder = {name: value for name, value in state.items() if name.startswith(f"{model.prefix}.")}
    pooler = getattr(getattr(model.encoder, "pooler", None), "dense", None)
    for first, last in _layers_of_head(standard, classes):
        standard.load_state_dict(encoder, strict=False)
        if isinstance(pooler, nn.Linear):  # RoBERTa: the pooler is the first layer of the standard head
            first.load_state_dict(pooler.state_dict())
            last.load_state_dict(model.classifier.state_dict())
            if _largest_difference(model, standard) <= _EXACT:
                return standard, STANDARD
        for units in (_TANH_UNITS, _SIGNED_UNITS):
            if len(units) * classes > first.weight.shape[0]:
                continue
            _fill(first, last, model.classifier, units)
            if _largest_difference(model, standard) <= _EXACT:
                return standard, REWRITTEN
    return _own_model(model, classes), OWN_CODE


# for each unit of a class: the factor before the activation, and the coefficient behind it
_TANH_UNITS = tuple((multiple * _SCALE, factor / (multiple * _SCALE)) for multiple, factor in _TANH)
_SIGNED_UNITS = _SIGNS


def _layers_of_head(standard: PreTrainedModel, classes: int) -> Iterator[tuple[nn.Linear, nn.Linear]]:
    """Yield the possible pairs of the square layer before the activation, and the layer that gives the logits."""
    head = [
        module
        for name, module in standard.named_modules()
        if isinstance(module, nn.Linear) and (not name.startswith(f"{standard.base_model_prefix}.") or "pooler" in name)
    ]
    for first in head:
        for last in head:
            if first.in_features == first.out_features == last.in_features and last.out_features == classes:
                yield first, last


@torch.no_grad()
def _fill(first: nn.Linear, last: nn.Linear, ours: nn.Linear, units: tuple[tuple[float, float], ...]) -> None:
    """Set the weights of a head so that it computes the linear layer ``ours``; see the module's docstring."""
    classes = ours.out_features
    for layer in (first, last):
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    for index, (factor, coefficient) in enumerate(units):
        rows = slice(index * classes, (index + 1) * classes)
        first.weight[rows] = factor * ours.weight
        if first.bias is not None:
            first.bias[rows] = factor * ours.bias
        elif ours.bias.any():
            last.bias.copy_(ours.bias)
        last.weight[:, rows] = coefficient * torch.eye(classes)


@torch.no_grad()
def _largest_difference(model: CrossEncoder, standard: PreTrainedModel) -> float:
    """Return the largest difference of a logit on random tokens, with and without padding; infinite if it fails."""
    config = model.encoder.config
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(16) < torch.tensor([[4], [16], [9], [12]])).long()
    special = {config.pad_token_id, getattr(config, "eos_token_id", None)}
    low = max((token for token in special if isinstance(token, int)), default=0) + 1
    low = low if low < config.vocab_size // 2 else 1
    tokens = torch.randint(low, config.vocab_size, mask.shape, generator=generator)
    inputs = {"input_ids": torch.where(mask > 0, tokens, config.pad_token_id or 0), "attention_mask": mask}
    expected: Tensor = model(**inputs)
    try:
        logits = standard(**inputs).logits
    except (RuntimeError, TypeError, ValueError):
        return float("inf")
    return float((logits - expected).abs().max()) if logits.shape == expected.shape else float("inf")


def _own_model(model: CrossEncoder, classes: int) -> PreTrainedModel:
    encoder = model.encoder.config.to_dict()
    options: dict[str, Any] = {"encoder": encoder, "pooling": model.pooling.value, "num_labels": classes}
    with torch.random.fork_rng(devices=[]):
        own: Any = modeling_pooled.PooledForSequenceClassification(modeling_pooled.PooledConfig(**options))
    own = own.float().eval()
    state = {
        name.replace(f"{model.prefix}.", "encoder.", 1) if name.startswith(f"{model.prefix}.") else name: value
        for name, value in model.state_dict().items()
    }
    own.load_state_dict(state)
    name, source = "PooledForSequenceClassification", modeling_pooled.__name__.rpartition(".")[2]
    own.config.auto_map = {
        "AutoConfig": f"{source}.PooledConfig",
        "AutoModelForSequenceClassification": f"{source}.{name}",
    }
    own.config.architectures = [name]
    if (longest := encoder.get("max_position_embeddings")) is not None:
        own.config.max_position_embeddings = longest  # sentence-transformers reads it
    return own  # type: ignore[no-any-return]
