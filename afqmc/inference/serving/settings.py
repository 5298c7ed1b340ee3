"""The settings of a service."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afqmc.inference.engine_choice import EngineChoice

MAX_BODY = 4 << 20  # bytes of a request
MAX_CHARACTERS = 10_000  # of a sentence
MAX_WORDS = 200  # of a pair to explain, since each costs a prediction
MAX_EXPLANATIONS = 8  # that run or wait


@dataclass(frozen=True)
class ServeSettings:
    """All that a worker needs to serve; it is pickled for worker processes.

    Attributes:
        run_dir: The run.
        device: Replaces the device of the run.
        trust: Allow the model code that the run's config names.
        engine: As for ``Predictor.load``. With several workers it is the choice of the parent, the same for all.
        max_batch: Pairs per batch.
        max_delay_s: Seconds that a pair waits for others to fill its batch.
        queue: Pairs that may wait, and the maximum of a request.
        timeout_s: Seconds in which a request is answered or fails.
        token: Clients must send it; None serves without.
        log_texts: Write the sentences to the log.
        examples: Dev pairs that the run got wrong, for the page.
        examples_missing: The reason in English and Chinese, if there are no examples.
    """

    run_dir: Path
    device: str | None = None
    trust: bool = False
    engine: str | EngineChoice = "torch"
    max_batch: int = 64
    max_delay_s: float = 0.005
    queue: int = 1024
    timeout_s: float = 30.0
    token: str | None = None
    log_texts: bool = False
    examples: list[dict[str, Any]] = field(default_factory=list)
    examples_missing: tuple[str, str] | None = None


def is_loopback(host: str) -> bool:
    """Return whether an address is that of this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
