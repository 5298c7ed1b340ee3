"""Muon for the matrices of the encoder's layers, with AdamW for all other weights, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) and AdamW, both from PyTorch.

    Muon replaces the momentum of a matrix by the nearest matrix with orthogonal rows or columns, approximated by five
    Newton-Schulz iterations in bfloat16. Embeddings, pooler, classifier, biases and norms are trained by AdamW. The
    update of a matrix (A, B) is multiplied by ``0.2 * sqrt(max(A, B))``, which gives it the size of an update of AdamW
    (equation 4 of Liu et al. 2025, arXiv:2502.16982), so that one learning rate suits both.

    Args:
        params: Parameter groups.
        lr: Learning rate of both.
        hidden_matrices: The parameters for Muon, each (A, B).
        weight_decay: Decoupled weight decay of both, for groups without their own.
        momentum: Of Muon.
        nesterov: Whether Muon uses Nesterov momentum.
        ns_steps: Newton-Schulz iterations.
        betas: Of AdamW.
        eps: Of AdamW.
        fused: Of AdamW.

    Attributes:
        conflicts: As for a callback. The iterations round sums over sharded matrices differently, so that weights would
            differ from those of one process.
    """

    conflicts: ClassVar[tuple[str, ...]] = ("distributed.strategy=fsdp",)

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        hidden_matrices: Iterable[Tensor],
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        fused: bool | None = None,
    ) -> None:
        if not isinstance(ns_steps, int) or not 1 <= ns_steps < 100:
            raise ValueError(f"ns_steps={ns_steps}: must be a whole number >= 1 and < 100")
        hidden = {id(matrix) for matrix in hidden_matrices}
        split: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for group in params:
            for is_hidden, groups in split.items():
                parameters = [parameter for parameter in group["params"] if (id(parameter) in hidden) == is_hidden]
                if parameters:
                    groups.append({**group, "params": parameters})
        self._muon = torch.optim.Muon(
            split[True], lr, weight_decay, momentum, nesterov, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
        )
        first, second = betas
        self._adamw = torch.optim.AdamW(
            split[False], lr, betas=(first, second), eps=eps, weight_decay=weight_decay, fused=fused
        )
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": lr})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with each optimizer."""
        loss = None if closure is None else closure()
        for inner, is_muon in ((self._muon, True), (self._adamw, False)):
            # both work on the groups and the state of this optimizer, which is loaded and saved as one
            inner.param_groups = [group for group in self.param_groups if ("momentum" in group) == is_muon]
            inner.state = self.state
            inner.step()  # type: ignore[no-untyped-call]
        return loss

    def report(self) -> dict[str, float]:
        """Return the number of parameters that Muon trains."""
        groups = (group["params"] for group in self.param_groups if "momentum" in group)
        return {"muon_parameters": sum(parameter.numel() for group in groups for parameter in group)}
