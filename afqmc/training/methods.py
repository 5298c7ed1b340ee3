"""Collect the reports of the methods of a run, and check that each method was active."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afqmc.models.transforms import ModelTransform
from afqmc.training.callbacks.base import Callback


class MethodReports:
    """Collects the values that show that methods were active.

    Args:
        methods: Callbacks, objectives and so on by their name in the config. Those that are off or have no ``report``
            are ignored.

    Attributes:
        latest: The last values of each method, by ``NAME/value``.
    """

    def __init__(self, methods: Mapping[str, Any]) -> None:
        self._methods = {name: method for name, method in methods.items() if _reports(method)}
        self._active: set[str] = set()
        self.latest: dict[str, float] = {}

    def collect(self) -> dict[str, float]:
        """Return the values since the last call."""
        values: dict[str, float] = {}
        for name, method in self._methods.items():
            reported = method.report()
            if any(reported.values()):
                self._active.add(name)
            values |= {f"{name}/{key}": float(value) for key, value in reported.items()}
        self.latest |= values
        return values

    def check_active(self) -> None:
        """Check that each method has reported a value other than 0.

        Raises:
            RuntimeError: naming the methods that have not.
        """
        if inactive := sorted({*self._methods} - self._active):
            raise RuntimeError(
                f"{', '.join(inactive)}: was never active in this run, so the run does not show its effect; check its "
                "arguments (such as the first epoch) against the length of the run"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"active": sorted(self._active), "latest": self.latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._active, self.latest = set(state["active"]), state["latest"]


def _reports(method: Any) -> bool:
    bases = [Callback.report, ModelTransform.report]
    has_report = hasattr(method, "report") and getattr(type(method), "report", None) not in bases
    return has_report and not getattr(method, "is_off", False)
