"""What ``accelerate launch`` tells Accelerate by the environment: a run is told by its own keys alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from afqmc.errors import InputError
from afqmc.ranks import is_true

log = logging.getLogger(__name__)

_PRECISIONS = ("", "no", "bf16", "fp16")
USES_FSDP = "ACCELERATE_USE_FSDP"


def check_launcher(device: str, precision: str | None, environment: Mapping[str, str] = os.environ) -> None:
    """Hold what the launcher was told to what the config says; what is left to its defaults says nothing.

    Args:
        device: As chosen by the config.
        precision: Likewise; None where nothing is trained: precision and accumulation then have no effect.
        environment: Of this process.

    Raises:
        InputError: naming the option, and the key that is there for it; or the variable, and its legal values.
    """

    def told(name: str) -> str:
        return environment.get(f"ACCELERATE_{name}", "").lower()

    def is_set(name: str) -> bool:
        return is_true(told(name))

    dynamo, parts, mixed = told("DYNAMO_BACKEND"), told("GRADIENT_ACCUMULATION_STEPS"), told("MIXED_PRECISION")
    if parts and not (parts.isascii() and parts.isdecimal()):  # Accelerate reads it whatever is done
        raise InputError(f"ACCELERATE_GRADIENT_ACCUMULATION_STEPS={parts}: must be a whole number")
    if precision is None:
        parts = mixed = ""
    if mixed not in _PRECISIONS:
        raise InputError(
            f"ACCELERATE_MIXED_PRECISION={mixed}: legal: {', '.join(_PRECISIONS[1:])}; or unset it, and set "
            "trainer.mixed_precision"
        )
    hindrances = {
        "use_fsdp: say trainer.strategy=fsdp": is_set("USE_FSDP"),
        "use_deepspeed: not here; trainer.strategy=fsdp saves memory too": is_set("USE_DEEPSPEED"),
        "use_megatron_lm: not here": is_set("USE_MEGATRON_LM"),
        "use_parallelism_config: not here": is_set("USE_PARALLELISM_CONFIG"),
        f"dynamo_backend={dynamo}: say trainer.compile=true": dynamo not in ("", "no"),
        f"gradient_accumulation_steps={parts}: say trainer.gradient_accumulation_steps={parts}":
            parts not in ("", "1"),
        f"mixed_precision={mixed}: the config has {precision}; say trainer.mixed_precision={mixed}":
            mixed not in ("", "no", precision),
        "cpu: say trainer.device=cpu": is_set("USE_CPU") and device != "cpu",
    }  # fmt: skip
    for hindrance, there in hindrances.items():
        if there:
            raise InputError(f"accelerate launch --{hindrance} (an accelerate config file may have it, too)")
    if is_set("USE_CPU") and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        log.warning("one process: accelerate launch --cpu starts no more, whatever --num_processes is; torchrun does")
