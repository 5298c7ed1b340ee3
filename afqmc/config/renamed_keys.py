"""Renamed config keys: messages name the new key, and saved configs of older versions are upgraded."""

from __future__ import annotations

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
}
_REMOVED = {
    "trainer.cuda_graphs": "performance.torch_compile=reduce-overhead"
}  # old key: the override that replaces it
_VALUES: dict[str, dict[Any, Any]] = {  # new key: {old value: new value}
    "distributed.fsdp_sharding": {"full": "full_shard", "gradients": "shard_grad_op"},
    "performance.torch_compile": {True: "default", False: None},
}
_OBJECTIVE = "afqmc.training.objectives.cross_entropy.CrossEntropy"


def new_name(key: str) -> str | None:
    """Return the key or override that replaced an old key, or None if there is none."""
    return RENAMED.get(key) or _REMOVED.get(key)


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config with the keys of this version.

    Args:
        config: Values by dotted key, down to the second level at least: ``{"trainer.monitor": "dev/f1", ...}``.
    """
    upgraded = {key: value for key, value in config.items() if key not in RENAMED and key not in _REMOVED}
    for old, new in RENAMED.items():
        if old in config:
            value = config[old]
            has_new_value = isinstance(value, str | bool) and value in _VALUES.get(new, {})
            upgraded[new] = _VALUES[new][value] if has_new_value else value
    if config and not any(key.startswith("objective.") for key in config):  # saved before there were objectives
        upgraded["objective._target_"] = _OBJECTIVE
    return upgraded


def upgrade_nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return a saved config in nested mappings with the keys of this version."""
    flat: dict[str, Any] = {}
    for group, entries in config.items():
        flat |= {f"{group}.{key}": value for key, value in entries.items()} if isinstance(entries, dict) else {}
    nested = {key: {} if isinstance(value, dict) else value for key, value in config.items()}
    for dotted, value in upgrade(flat).items():
        group, _, key = dotted.partition(".")
        nested.setdefault(group, {})[key] = value
    return nested
