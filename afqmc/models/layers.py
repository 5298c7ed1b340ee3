"""Find the layers of a model: embeddings, encoder layers from the bottom up, pooler and head."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from afqmc.models.cross_encoder import CrossEncoder
from afqmc.models.masked_lm import MaskedLanguageModel
from afqmc.utils.errors import InputError

Layers = dict[str, dict[str, nn.Parameter]]  # layer: name in the model: parameter
EMBEDDINGS, POOLER, CLASSIFIER = "embeddings", "pooler", "classifier"
LM_HEAD = "lm_head"  # of a masked language model, in place of the classifier


def encoder_layers(model: nn.Module, key: str) -> tuple[str, nn.ModuleList]:
    """Return the encoder's stack of layers and its name in the model, such as ``bert.encoder.layer``.

    Args:
        model: The model of a run.
        key: The override that needs the layers, for the message.

    Raises:
        InputError: for a custom model, and for an encoder without a list of layers of its own, such as ALBERT, whose
            layers share their weights.
    """
    if not isinstance(model, CrossEncoder | MaskedLanguageModel):
        raise InputError(f"{key}: not with a custom model (model._target_), whose layers are not known")
    config = (model.encoder if isinstance(model, CrossEncoder) else model.lm).config
    count = getattr(config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise InputError(f"{key}: not supported for {config.model_type}, whose layers are not known")


def named_layers(model: nn.Module, key: str) -> Layers:
    """Return all parameters by layer: ``embeddings``, ``0``, ``1``, ..., ``pooler``, ``classifier`` or ``lm_head``.

    Parameters of the encoder that belong to no layer, such as a final norm, count as part of the top layer. The pooler
    is missing if the model has none. Embeddings that are tied to the last matrix of the head are ``embeddings``.

    Args:
        model: A ``CrossEncoder`` or a ``MaskedLanguageModel``.
        key: The override that needs the layers, for the message.

    Raises:
        InputError: as ``encoder_layers``.
    """
    stack, modules = encoder_layers(model, key)
    layers: Layers = {name: {} for name in (EMBEDDINGS, *map(str, range(len(modules))), POOLER, CLASSIFIER, LM_HEAD)}
    encoder = f"lm.{model.lm.base_model_prefix}." if isinstance(model, MaskedLanguageModel) else ""
    for name, parameter in model.named_parameters():
        if match := re.match(rf"{re.escape(stack)}\.(\d+)\.", name):
            layer = match[1]
        elif isinstance(model, CrossEncoder) and not name.startswith(f"{model.prefix}."):
            layer = CLASSIFIER
        elif not name.startswith(encoder):
            layer = LM_HEAD
        elif ".pooler." in name:
            layer = POOLER
        else:
            layer = EMBEDDINGS if "embed" in name else str(len(modules) - 1)
        layers[layer][name] = parameter
    return {name: parameters for name, parameters in layers.items() if parameters}


def select_layers(layers: Layers, names: Sequence[str | int], key: str) -> list[str]:
    """Return the layers that a list names: layers, ``encoder`` for all that have a number, and ranges such as ``0-5``.

    Args:
        layers: Of ``named_layers``.
        names: The list.
        key: Of the list, for the message.

    Raises:
        InputError: with the layers that exist, if there is no such layer.
    """
    numbers = [name for name in layers if name.isdigit()]
    selected = set()
    for name in map(str, names):
        first, dash, last = name.partition("-")
        if name == "encoder":
            selected.update(numbers)
        elif dash and first in numbers and last in numbers and int(first) <= int(last):
            selected.update(numbers[int(first) : int(last) + 1])
        elif name in layers and name != CLASSIFIER:
            selected.add(name)
        else:
            exist = [layer for layer in layers if not layer.isdigit() and layer != CLASSIFIER]
            raise InputError(
                f"{key}: {name}: there is no such layer; this model has {', '.join(exist)}, encoder (all layers), and "
                f"the layers 0 to {numbers[-1]} (also as a range, such as 0-{numbers[-1]})"
            )
    return [name for name in layers if name in selected]


def hidden_matrices(model: nn.Module, key: str) -> list[nn.Parameter]:
    """Return the trainable matrices (A, B) of the encoder's layers: not those of embeddings, pooler and head.

    Args:
        model: A ``CrossEncoder`` or a ``MaskedLanguageModel``.
        key: The override that needs them, for the message.

    Raises:
        InputError: as ``encoder_layers``.
    """
    layers = named_layers(model, key)
    numbered = (parameters for name, parameters in layers.items() if name.isdigit())
    return [p for parameters in numbered for p in parameters.values() if p.ndim == 2 and p.requires_grad]
