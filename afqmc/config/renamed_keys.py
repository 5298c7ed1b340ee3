"""Renamed config keys: messages name the new key, and saved configs of older versions are upgraded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

RENAMED = {
    "trainer.save_steps": "checkpoint.save_steps",
    "trainer.save_minutes": "checkpoint.save_interval_minutes",
    "trainer.save_total_limit": "checkpoint.keep_weights",
    "trainer.on_save_failure": "checkpoint.on_save_failure",
    "trainer.strategy": "distributed.strategy",
    "trainer.shard": "distributed.fsdp_sharding",
    "trainer.cpu_offload": "distributed.fsdp_cpu_offload",
    "trainer.timeout_s": "distributed.process_group_timeout_s",
    "trainer.padding_free": "performance.padding_free",
    "trainer.compile": "performance.torch_compile",
    "trainer.quick_dropout": "performance.fast_cpu_dropout",
    "trainer.label_smoothing_factor": "objective.label_smoothing",
    "trainer.class_weights": "objective.class_weights",
    "trainer.log_steps": "trainer.logging_steps",
    "trainer.auto_batch": "trainer.auto_microbatch",
    "dataset.folds": "dataset.num_folds",
    "dataset.fold_seed": "dataset.split_seed",
    "dataset.grouped": "dataset.group_by_sentence",
    "dataset.batch_tokens": "dataset.max_tokens_per_batch",
    "dataset.shuffle_buffer": "dataset.shuffle_buffer_size",
    "model.architecture": "model.config_overrides",
    "model.head_dropout": "model.classifier_dropout",
    "model.args": "model.kwargs",
    "tracker.service": "tracker.backend",
    "hydra.sweeper.sampler_args": "hydra.sweeper.sampler_kwargs",
    "hydra.sweeper.pruner_args": "hydra.sweeper.pruner_kwargs",
}
_REMOVED = {
    "trainer.cuda_graphs": "performance.torch_compile=reduce-overhead"
}  # old key: the override that replaces it
_VALUES: dict[str, dict[Any, Any]] = {  # new key: {old value: new value}
    "dataset.batching": {"bucketed": "length", "tokens": "token_budget"},
    "dataset.source": {"download": "url"},
    "model.pooling": {"first_last_mean": "first_last_avg", "pooler": "pooler_output"},
    "trainer.monitor": {"dev/auc": "dev/roc_auc"},
    "dataset": {"jsonl": "files"},
    "debug": {"steps": "smoke", "anomaly": "detect_anomaly"},
    "distributed.fsdp_sharding": {"full": "full_shard", "gradients": "shard_grad_op"},
    "performance.torch_compile": {True: "default", False: None},
}
_FIGURES = {  # in summary.json and metrics.jsonl
    "dev/auc": "dev/roc_auc",
    "test/auc": "test/roc_auc",
    "collapsed_onto": "collapsed_label",
    "train_padding": "train_padding_fraction",
    "seconds": "total_seconds",
}
_OBJECTIVE = "afqmc.training.objectives.cross_entropy.CrossEntropy"


@lru_cache(maxsize=4096)  # a comparison of 1,000 runs asks for the same keys again and again
def new_name(key: str) -> str | None:
    """Return the key or override that replaced an old key, or None if there is none."""
    for old, new in RENAMED.items():
        if _is_or_contains(old, key):
            return new + key.removeprefix(old)
    return _REMOVED.get(key)


def new_value(key: str, value: Any) -> Any:
    """Return the value that replaced an old value of a key or group, or None if there is none."""
    return _VALUES.get(key, {}).get(value) if isinstance(value, str | bool) else None


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config with the keys and values of this version.

    Args:
        config: Values by dotted key, down to the second level at least: ``{"trainer.monitor": "dev/f1", ...}``.
    """
    upgraded: dict[str, Any] = {}
    for old, value in config.items():
        if old in _REMOVED:
            continue
        key = new_name(old) or old
        is_old_value = isinstance(value, str | bool) and value in _VALUES.get(key, {})
        upgraded[key] = _VALUES[key][value] if is_old_value else value
    if config and not any(key.startswith("objective.") for key in upgraded):  # saved before there were objectives
        upgraded["objective._target_"] = _OBJECTIVE
    return upgraded


def upgrade_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a saved summary, or of a row of metrics.jsonl, with the names of this version."""
    if _FIGURES.keys().isdisjoint(figures):  # as in nearly all of many rows
        return figures
    return {_FIGURES.get(name, name): value for name, value in figures.items()}


def _is_or_contains(old: str, key: str) -> bool:
    return key == old or key.startswith(f"{old}.")


def upgrade_nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config in nested mappings with the keys of this version."""
    flat: dict[str, Any] = {}
    for group, entries in config.items():
        flat |= {f"{group}.{key}": value for key, value in entries.items()} if isinstance(entries, dict) else {}
    nested = {key: {} if isinstance(value, dict) else value for key, value in config.items()}
    for dotted, value in upgrade(flat).items():
        group, _, key = dotted.partition(".")
        nested.setdefault(group, {})[key] = value
    if isinstance(performance := nested.setdefault("performance", {}), dict):
        performance.setdefault("skip_unused_tokens", False)  # saved before there was this key: dropout drew more masks
    return nested
