"""What the doctor says of the model: tokenizer, architecture, weights, and how long the pairs are in its tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from huggingface_hub import file_exists, try_to_load_from_cache
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from afqmc.config import Config
from afqmc.data.loading import Dataset, Pairs, PairStream
from afqmc.data.tokenization import PairTokenizer
from afqmc.diagnostics.findings import Finding, fail, ok, warn
from afqmc.models.architecture import build_architecture, check_length
from afqmc.models.cross_encoder import encoder_options
from afqmc.models.files import WEIGHT_FILES
from afqmc.models.hub import hub_failure, hub_is_reachable
from afqmc.models.loading import build_custom_model, build_model, check_model_config, load_pretrained
from afqmc.utils.errors import InputError
from afqmc.utils.files import expand_user

_CHUNK = 10_000  # pairs of a stream held at once
_WHOLE = 1_000_000  # tokens: longer than any pair
_SHORTEST = 8  # tokens, which every encoder takes; dataset.max_length is a finding of its own


@dataclass
class ModelSize:
    """What memory depends on; ``hidden`` and the like are None for a model of one's own."""

    parameters: int
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None


def plugged(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]
) -> tuple[nn.Module, ModelSize, Finding]:
    """A model of one's own: built, and called once."""
    model = build_custom_model(config.model, tokenizer, labels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = f"{config.model._target_}: {parameters / 1e6:.1f} M parameters, logits of {len(labels)} classes"
    return model, ModelSize(parameters), ok("model", text, parameters=parameters)


def encoder(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]
) -> tuple[nn.Module, ModelSize, Iterator[Finding]]:
    """The classifier without weights, its size, and the findings on architecture, weights and positions."""
    check_model_config(config.model)
    architecture = build_architecture(config.model, tokenizer)
    built = build_model(replace(config.model, from_scratch=True), tokenizer, labels, _SHORTEST, device="meta")
    size = ModelSize(
        sum(parameter.numel() for parameter in built.parameters()),
        architecture.hidden_size,
        getattr(architecture, "num_hidden_layers", 12),
        getattr(architecture, "num_attention_heads", 12),
    )
    return built, size, _encoder_findings(config, tokenizer, architecture, size)


def _encoder_findings(
    config: Config, tokenizer: PreTrainedTokenizerBase, architecture: PreTrainedConfig, size: ModelSize
) -> Iterator[Finding]:
    yield ok(
        "model",
        f"{config.model.name_or_path or 'BERT'}: {architecture.model_type}, {size.layers} layers x {size.hidden}, "
        f"{size.parameters / 1e6:.1f} M parameters, vocabulary of {len(tokenizer)}",
        parameters=size.parameters,
        layers=size.layers,
        hidden_size=size.hidden,
        vocabulary=len(tokenizer),
    )
    try:
        yield _weights(config, architecture)
    except InputError as error:
        yield fail("model", str(error))
    check_length(config.dataset.max_length, architecture, tokenizer)


def _weights(config: Config, architecture: PreTrainedConfig) -> Finding:
    """Names and shapes of the tensors on disk, held to the encoder's by the loader of the run itself."""
    if config.model.from_scratch:
        return ok("model", "random weights (model.from_scratch=true)")
    name, revision = config.model.name_or_path, config.model.revision
    assert name is not None
    if os.path.isdir(expand_user(name)) or _is_cached(name, revision):
        load_pretrained(config.model, architecture, encoder_options(architecture, config.model.pooling), device="meta")
        return ok("model", "its weights are there, of this architecture")
    if hub_is_reachable() and any(file_exists(name, file, revision=revision) for file in WEIGHT_FILES):
        return ok("model", "its weights are on the hub; not looked into before they are downloaded")
    reason = "" if hub_is_reachable() else f"; the hub gives no answer: {hub_failure()}"
    raise InputError(f"model.name_or_path={name}: no weights there ({' or '.join(WEIGHT_FILES[::2])}){reason}")


def _is_cached(name: str, revision: str | None) -> bool:
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in WEIGHT_FILES)


def lengths(config: Config, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> dict[str, np.ndarray]:
    """Tokens of each pair of each split, uncut; a stream is read in chunks."""
    uncut = PairTokenizer(tokenizer, _WHOLE)
    return {name: _lengths(uncut, split) for name, split in data.splits().items()}


def _lengths(uncut: PairTokenizer, split: Pairs | PairStream) -> np.ndarray:
    chunks = [split] if isinstance(split, Pairs) else split.chunks(_CHUNK)
    return np.concatenate([uncut.encode(chunk).lengths.astype(np.int32) for chunk in chunks])


def tokens(found: dict[str, np.ndarray], limit: int) -> Iterator[Finding]:
    """How long the pairs are, and how many would be cut."""
    for name, whole in found.items():
        cut, longest = float((whole > limit).mean()), int(whole.max())
        mean, median, high = float(whole.mean()), float(np.median(whole)), float(np.percentile(whole, 95))
        text = (
            f"{name}: tokens a pair: mean {mean:.1f}, median {median:.0f}, 95% {high:.0f}, longest {longest}; "
            f"{cut:.2%} cut at dataset.max_length={limit}"
        )
        finding = warn if cut > 0.01 else ok
        yield finding(
            "tokens", text,
            split=name, mean=mean, median=median, percentile_95=high, longest=longest, cut_share=cut, max_length=limit,
        )  # fmt: skip
