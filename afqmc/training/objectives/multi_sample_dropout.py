"""Multi-sample dropout: the loss is averaged over several dropout masks before the linear head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from afqmc.data.batching import Batch
from afqmc.models.cross_encoder import CrossEncoder
from afqmc.training.objectives.base import Forward, Objective
from afqmc.training.objectives.variant import WindowMeans
from afqmc.utils.errors import InputError


class MultiSampleDropout:
    """Averages another objective over N dropout masks of the pooled vectors. The encoder runs once.

    Inoue 2019, "Multi-Sample Dropout for Accelerated Training and Better Generalization", arXiv:1905.09788. As in the
    paper, the losses are averaged and not the logits: since the head is linear, averaged logits would be those of a
    single, weaker dropout mask. It reports the standard deviation of the logits over the masks.

    Args:
        objective: Gets N * B pairs: the batch once per mask.
        samples: N, at least 2.
    """

    def __init__(self, objective: Objective, samples: int) -> None:
        self.objective, self.samples = objective, samples
        self.normalizer = objective.normalizer
        self.means = WindowMeans()

    def __call__(self, model: Forward, microbatch: Batch) -> Tensor:
        """Return the mean over the masks of the loss summed over the pairs."""
        labels = None if microbatch.labels is None else microbatch.labels.repeat(self.samples)
        repeated = Batch(microbatch.inputs, labels, microbatch.ids * self.samples, microbatch.tokens)

        def forward(**inputs: Any) -> Any:
            output = model(**inputs, dropout_samples=self.samples)
            logits = (output[0] if isinstance(output, tuple) else output).detach().float()  # (N * B, C)
            spread = logits.view(self.samples, -1, logits.shape[1]).std(dim=0)  # (B, C)
            self.means.add(len(spread), logit_std=spread.mean(dim=1).sum())
            return output

        return self.objective(forward, repeated) / self.samples

    def report(self) -> dict[str, float]:
        """Return the means since the last call."""
        return self.means.report()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        inner = getattr(self.objective, "state_dict", dict)
        return {"multi_sample": self.means.state_dict(), "objective": inner()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.means.load_state_dict(state["multi_sample"])
        if state["objective"]:
            self.objective.load_state_dict(state["objective"])  # type: ignore[attr-defined]


def check_multi_sample(samples: int, model: nn.Module) -> None:
    """Check that the masks can differ.

    Raises:
        InputError: if the head of the model has no dropout.
    """
    if samples > 1 and isinstance(model, CrossEncoder) and model.dropout.p == 0:
        raise InputError(
            f"model.dropout.multi_sample={samples}: this model has no dropout before the linear head; set "
            "model.classifier_dropout, or multi_sample=1"
        )
