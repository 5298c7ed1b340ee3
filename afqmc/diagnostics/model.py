"""Findings on the model: architecture, weights, and the lengths of the pairs in its tokens."""

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

_CHUNK = 10_000  # pairs of a stream in memory at once
_UNLIMITED = 1_000_000  # tokens, longer than any pair
_SHORT = 8  # tokens, which every encoder takes; dataset.max_length is checked separately


@dataclass
class ModelSize:
    """The dimensions that determine memory. Only ``parameters`` is known for a custom model."""

    parameters: int
    hidden: int | None = None
    layers: int | None = None
    heads: int | None = None


def custom_model(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]
) -> tuple[nn.Module, ModelSize, Finding]:
    """Build a custom model, call it once, and return it with its size and a finding."""
    model = build_custom_model(config.model, tokenizer, labels)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = f"{config.model._target_}: {parameters / 1e6:.1f} M parameters, logits of {len(labels)} classes"
    return model, ModelSize(parameters), ok("model", text, parameters=parameters)


def cross_encoder(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: tuple[str, ...]
) -> tuple[nn.Module, ModelSize, Iterator[Finding]]:
    """Build a cross-encoder on the meta device, and return it with its size and its findings."""
    check_model_config(config.model)
    architecture = build_architecture(config.model, tokenizer)
    built = build_model(replace(config.model, from_scratch=True), tokenizer, labels, _SHORT, device="meta")
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
    """Report on the architecture, the weights, and the number of positions."""
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
    """Check the tensors on disk against the encoder, with the loader of the run."""
    if config.model.from_scratch:
        return ok("model", "random weights (model.from_scratch=true)")
    name, revision = config.model.name_or_path, config.model.revision
    assert name is not None
    if os.path.isdir(expand_user(name)) or _is_cached(name, revision):
        load_pretrained(config.model, architecture, encoder_options(architecture, config.model.pooling), device="meta")
        return ok("model", "weights found; they fit the architecture")
    if hub_is_reachable() and any(file_exists(name, file, revision=revision) for file in WEIGHT_FILES):
        return ok("model", "weights are on the hub; they are checked after the download")
    reason = "" if hub_is_reachable() else f"; the hub does not answer: {hub_failure()}"
    raise InputError(f"model.name_or_path={name}: no weights found ({' or '.join(WEIGHT_FILES[::2])}){reason}")


def _is_cached(name: str, revision: str | None) -> bool:
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in WEIGHT_FILES)


def lengths(config: Config, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> dict[str, np.ndarray]:
    """Return the number of tokens of each pair (N,) by split, before truncation."""
    pair_tokenizer = PairTokenizer(tokenizer, _UNLIMITED)
    return {name: _split_lengths(pair_tokenizer, split) for name, split in data.splits().items()}


def _split_lengths(pair_tokenizer: PairTokenizer, split: Pairs | PairStream) -> np.ndarray:
    chunks = [split] if isinstance(split, Pairs) else split.chunks(_CHUNK)
    return np.concatenate([pair_tokenizer.encode(chunk).lengths.astype(np.int32) for chunk in chunks])


def length_findings(by_split: dict[str, np.ndarray], limit: int) -> Iterator[Finding]:
    """Report the distribution of lengths, and the share of pairs that would be truncated."""
    for name, lengths in by_split.items():
        cut, longest = float((lengths > limit).mean()), int(lengths.max())
        mean, median, high = float(lengths.mean()), float(np.median(lengths)), float(np.percentile(lengths, 95))
        text = (
            f"{name}: tokens per pair: mean {mean:.1f}, median {median:.0f}, 95% {high:.0f}, longest {longest}; "
            f"{cut:.2%} cut at dataset.max_length={limit}"
        )
        finding = warn if cut > 0.01 else ok
        yield finding(
            "tokens", text,
            split=name, mean=mean, median=median, percentile_95=high, longest=longest, cut_share=cut, max_length=limit,
        )  # fmt: skip
