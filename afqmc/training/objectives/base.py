"""The interface of a training objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from afqmc.data.batching import Batch

Forward = Callable[..., Any]  # the model: keyword inputs (input_ids, attention_mask, ...) to logits (B, C)


class Objective(Protocol):
    """The training loss of a batch.

    An optimizer step divides its batch into microbatches (gradient accumulation) and into shares (processes). The loss
    of the batch is the sum of the objective over all parts, divided by the normalizer of the whole batch. It therefore
    does not depend on the division. An objective that returned a mean per part would weight parts of unequal size
    wrongly.

    A target named by ``objective._target_`` is called with its own arguments, and with those of ``label_counts``
    (training pairs per class, a sequence of C integers) and ``device`` that its signature has.

    An objective that reads ``Batch.teacher_logits`` sets ``uses_teacher = True``; a run without ``dataset.teacher`` is
    then refused.

    An objective may also have ``conflicts``, ``needs_whole_batch``, ``is_off``, ``report``, ``state_dict`` and
    ``load_state_dict``, with the meanings that they have for a callback
    (``afqmc.training.callbacks.base.Callback``), and ``check_model(model)``, which raises an ``InputError`` for a model
    that it does not work with. The model of this package, ``CrossEncoder``, takes ``return_pooled=True`` and then
    returns logits and pooled vectors.
    """

    def normalizer(self, batch: Batch) -> Tensor | float:
        """Return the divisor of the batch's loss, computed from all its pairs."""
        ...

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the loss summed over the pairs of a part, a scalar with gradient."""
        ...
