"""End all processes of a run together when one of them receives a signal."""

from __future__ import annotations

from accelerate import Accelerator

from afqmc.distributed.collectives import all_reduce_max
from afqmc.utils.signals import defer, pending, raise_deferred


class ShutdownCoordinator:
    """Makes all processes end after the same step.

    Signals are deferred during a step. After it, all processes call ``poll``, which exchanges whether one of them has
    received a signal, and then ``raise_if_requested``. No process may leave alone, since the others would wait for it
    in their next collective operation. Therefore a signal that arrives between the two calls waits for the next poll.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._requested = False

    def poll(self, save_is_due: bool = False) -> bool:
        """Exchange signals; return whether rank 0, whose clock decides, wants to save a checkpoint."""
        signum, due = all_reduce_max(self.accelerator, pending(), save_is_due and self.accelerator.is_main_process)
        self._requested = signum > 0
        if signum:
            defer(signum)
        return bool(due)

    def raise_if_requested(self) -> None:
        """Raise the deferred signal, if all processes know of it.

        Raises:
            KeyboardInterrupt: or its subclass ``Terminated``.
        """
        if self.accelerator.num_processes == 1 or self._requested:
            raise_deferred()
