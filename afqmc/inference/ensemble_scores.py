"""The prediction of one run, or the mean of several, for the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from afqmc.data.loading import Pairs
from afqmc.evaluation.abstention import Abstention
from afqmc.evaluation.decision import Decided, Decision
from afqmc.evaluation.metrics import mean_as_logits, probabilities_of
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError


@dataclass(frozen=True)
class EnsembleScores:
    """Pairs with the prediction of one run, or the mean of several.

    Attributes:
        pairs: As the first run reads them.
        labels: Label names, in class order.
        logits: (N, C): those of one run, or the logarithms of the mean probabilities of several.
        decision: Of one run, or fitted on the mean; the temperature of a run fits only its own probabilities.
        has_unused_decisions: Whether any run of a mean has a decision, and the mean has none.
        abstention: Leaves uncertain pairs without a prediction; None predicts all.
        engine_notes: Which engines were chosen, if one was asked for.
        truncated: Which pairs were cut to the maximum length of any run, bool (N,); None if no pair was.
        max_length: The smallest one of the runs, in tokens.
    """

    pairs: Pairs
    labels: tuple[str, ...]
    logits: np.ndarray
    decision: Decision | None = None
    has_unused_decisions: bool = False
    abstention: Abstention | None = None
    engine_notes: tuple[str, ...] = ()
    truncated: np.ndarray | None = None
    max_length: int = 0

    @property
    def probabilities(self) -> np.ndarray:
        """(N, C), float64, without the decision; NaN in rows without a prediction."""
        return probabilities_of(self.logits)

    @cached_property
    def decided(self) -> Decided:
        """Probabilities and predictions to show to the user.

        With ``abstention``, they are those of the model: its promise holds for the likeliest label only, since the
        threshold of the decision was chosen on the same dev pairs.
        """
        if self.decision is not None and self.abstention is None:
            return replace(self.decision.apply(self.logits), truncated=self.truncated)
        abstained = None if self.abstention is None else self.abstention.abstains(self.logits)
        return Decided(self.probabilities, self.logits.argmax(axis=1), abstained, self.truncated)

    def truncation_warning(self) -> str:
        """Return a warning with the number of pairs that were cut; "" if no pair was."""
        count = 0 if self.truncated is None else int(self.truncated.sum())
        return truncation_warning(count, len(self.pairs), self.max_length) if count else ""

    def describe_decision(self) -> str | None:
        """Say which threshold and calibration were used, or which error rate is promised; None without a decision."""
        if self.abstention is not None:
            return self.abstention.describe(self.abstention.abstains(self.logits).sum(), len(self.pairs))
        if self.decision is not None:
            return self.decision.describe_use()
        if self.has_unused_decisions:
            return (
                "the likeliest label of the mean is predicted: the threshold and the temperature of a run do not fit a "
                "mean of several"
            )
        return None

    def reject_nan(self) -> None:
        """Check that each pair has a prediction. The argmax of a row of NaN would be the first label.

        Raises:
            InputError: with the number of pairs whose probabilities are not finite.
        """
        if missing := int((~np.isfinite(self.probabilities)).any(axis=1).sum()):
            raise InputError(f"the weights give NaN for {missing} of {len(self.pairs)} pairs; nothing is written")


def truncation_warning(count: int, pairs: int, max_length: int) -> str:
    """Return the warning that pairs were cut, which the column ``truncated`` marks."""
    return f"{count} of {pairs} pairs have more than {max_length} tokens and were cut; the column truncated marks them"


def predict_mean(
    run_dirs: Sequence[Path],
    read: Callable[[Predictor], Pairs],
    device: str | None = None,
    trust: bool = False,
    reading: Sequence[str] = (),
    labelled: bool = True,
    engine: str = "torch",
) -> EnsembleScores:
    """Average the probabilities of several runs for the same pairs. One run at a time is in memory.

    ``read`` is called once, with the first run. The other arguments are those of ``Predictor.load``.

    Raises:
        InputError: if a run cannot be loaded, or its labels differ from those of the first run, or in their order.
    """
    first: Predictor | None = None
    logits: list[np.ndarray] = []
    notes: list[str] = []
    has_decisions, truncated = False, np.zeros(0, bool)
    for run_dir in run_dirs:
        predictor = Predictor.load(run_dir, device, trust, reading, labelled, engine=engine)
        if first is None:
            first, pairs = predictor, read(predictor)
            truncated, max_length = np.zeros(len(pairs), bool), predictor.pair_tokenizer.max_length
        if predictor.labels != first.labels:
            difference = f"{', '.join(predictor.labels)}, {run_dirs[0]} has {', '.join(first.labels)}"
            raise InputError(f"{run_dir}: its labels are {difference}; a mean needs the same, in the same order")
        has_decisions |= predictor.decision is not None
        evaluation = predictor.evaluate(pairs)
        logits.append(evaluation.logits)
        truncated |= evaluation.truncated
        max_length = min(max_length, predictor.pair_tokenizer.max_length)
        notes += [predictor.engine_note] if predictor.engine_note else []
    assert first is not None
    is_single = len(logits) == 1
    return EnsembleScores(
        pairs,
        first.labels,
        logits[0] if is_single else mean_as_logits(logits),
        decision=first.decision if is_single else None,
        has_unused_decisions=has_decisions and not is_single,
        engine_notes=tuple(dict.fromkeys(notes)),
        truncated=truncated if truncated.any() else None,
        max_length=max_length,
    )
