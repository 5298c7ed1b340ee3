"""Base classes of adversarial training: when a method begins, and how it perturbs word embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from afqmc.data.batching import Batch
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.training.callbacks.base import Callback, StepView, TrainerView
from afqmc.utils.errors import InputError


class AdversarialTraining(Callback):
    """Base class of methods that begin at some epoch.

    Args:
        first_epoch: Epochs without the method, at the start; may be a fraction.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, first_epoch: float) -> None:
        check_strength("first_epoch", first_epoch)
        self.first_epoch = first_epoch
        self._trainer: TrainerView | None = None

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Check that the run is long enough.

        Raises:
            InputError: if the training ends before the method begins.
        """
        self._trainer = trainer
        epochs = trainer.intervals.total / trainer.intervals.epoch
        if self.first_epoch >= epochs:
            name = type(self).__name__.lower()
            first = f"callbacks.{name}.first_epoch={self.first_epoch}"
            raise InputError(f"{first}: must be < {epochs:g}, the epochs of this run")

    @property
    def has_begun(self) -> bool:
        """Whether the next optimizer step is one with the method."""
        assert self._trainer is not None
        return self._trainer.state.step >= self.first_epoch * self._trainer.intervals.epoch


class EmbeddingAttack(AdversarialTraining):
    """Base class of methods that perturb the output of the model's word embeddings, (B, T, H).

    Perturbation and norm are those of one pair, a tensor (T, H), and padding is not perturbed. The method is therefore
    exact with gradient accumulation and several processes: factors that all gradients of a pair have in common, such as
    the normalizer of the batch or the loss scale of fp16, cancel. Dropout is drawn anew in each pass. An objective that
    calls the model several times per microbatch has one perturbation per call.

    Args:
        epsilon: Largest L2 norm of a pair's perturbation, in units of the embeddings. 0 switches the callback off.
        first_epoch: Epochs without the method, at the start; may be a fraction.

    Raises:
        ValueError: for an argument out of range.
    """

    conflicts: ClassVar[tuple[str, ...]] = (
        "performance.padding_free=true",  # the embeddings of all pairs are in one row
        "performance.torch_compile=default",  # a compiled model does not see the changing perturbation
        "performance.torch_compile=reduce-overhead",
        "performance.torch_compile=max-autotune",
    )

    def __init__(self, epsilon: float, first_epoch: float) -> None:
        super().__init__(first_epoch)
        check_strength("epsilon", epsilon)
        self.epsilon = epsilon
        self.norm: Tensor | float = 0.0
        self.relative_norm: Tensor | float = 0.0
        self._hooks: list[RemovableHandle] = []
        self._mask = torch.empty(0)  # of the forward pass that runs, (B, T)
        # embeddings (B, T, H) and mask of each forward pass; None while nothing is recorded
        self._passes: list[tuple[Tensor, Tensor]] | None = None
        self._perturbations: Sequence[Tensor] | None = None

    @property
    def is_off(self) -> bool:
        """Whether no perturbation may be larger than 0."""
        return self.epsilon == 0

    def on_fit_start(self, trainer: TrainerView) -> None:
        """Register the hooks that record and perturb embeddings.

        Raises:
            InputError: for a model without ``get_input_embeddings``, or a training that is too short.
        """
        super().on_fit_start(trainer)
        model = trainer.model
        encoder = model.encoder if isinstance(model, CrossEncoder) else model
        get_input_embeddings = getattr(encoder, "get_input_embeddings", None)  # the name in transformers
        if get_input_embeddings is None:
            name = type(self).__name__.lower()
            raise InputError(f"callbacks.{name}: {type(model).__name__} must have a method get_input_embeddings()")
        self._hooks = [
            model.register_forward_pre_hook(self._keep_mask, with_kwargs=True),
            get_input_embeddings().register_forward_hook(self._perturb),
        ]

    def on_fit_end(self, trainer: TrainerView) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def on_before_forward(self, step: StepView, microbatch: Batch) -> None:
        """Record the embeddings of the pass."""
        self._passes = [] if self.has_begun else None

    def on_after_backward(self, step: StepView, microbatch: Batch, backward: Callable[[], None]) -> None:
        """Add the gradients of a pass with perturbed embeddings."""
        if self._passes is None:
            return
        embeddings = [output.detach() * mask.unsqueeze(-1) for output, mask in self._passes]
        perturbations = self.find_perturbations(step, backward)
        self.run_perturbed(perturbations, backward)
        self._passes = None
        norms = torch.cat([pair_norms(values) for values in perturbations])
        self.norm = norms.mean()
        self.relative_norm = (norms / torch.cat([pair_norms(values) for values in embeddings])).mean()

    def find_perturbations(self, step: StepView, backward: Callable[[], None]) -> list[Tensor]:
        """Return one perturbation (B, T, H) per forward pass. ``gradients`` has those of the clean pass."""
        raise NotImplementedError

    def gradients(self) -> list[Tensor]:
        """Return the gradients (B, T, H) with respect to the embeddings of the last pass, 0 for padding."""
        assert self._passes is not None
        return [
            torch.zeros_like(output) if output.grad is None else output.grad * mask.unsqueeze(-1)
            for output, mask in self._passes
        ]

    def run_perturbed(self, perturbations: Sequence[Tensor], backward: Callable[[], None]) -> None:
        """Run forward and backward with these perturbations, one (B, T, H) per forward pass; add to the gradients."""
        self._passes, self._perturbations = [], perturbations
        try:
            backward()
        finally:
            self._perturbations = None

    def _keep_mask(self, model: nn.Module, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        self._mask = inputs["attention_mask"]

    def _perturb(self, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        if self._passes is None or not torch.is_grad_enabled():
            return output
        if self._perturbations is not None:
            output = output + self._perturbations[len(self._passes)]
        if not output.requires_grad:  # of frozen embeddings
            output.requires_grad_()
        output.retain_grad()
        self._passes.append((output, self._mask))
        return output

    def report(self) -> dict[str, float]:
        """Return the mean norm of the last perturbations of this process, also relative to that of the embeddings."""
        return {"norm": float(self.norm), "relative_norm": float(self.relative_norm)}

    def state_dict(self) -> dict[str, Any]:
        """Return what is reported."""
        return self.report()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.norm, self.relative_norm = state["norm"], state["relative_norm"]


def check_strength(name: str, value: float) -> None:
    """Check that an argument is a finite number >= 0.

    Raises:
        ValueError: naming the argument.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}={value}: must be >= 0")


def pair_norms(values: Tensor) -> Tensor:
    """Return the L2 norm per pair of (B, T, H), as (B, 1, 1)."""
    norms: Tensor = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True, dtype=torch.float32)
    return norms


def unit(gradients: Tensor) -> Tensor:
    """Divide (B, T, H) by the norm of each pair. Gradients that are 0, NaN or infinite (fp16) give 0."""
    norms = pair_norms(gradients)
    return torch.where(norms.isfinite() & (norms > 0), gradients / norms, 0.0)
