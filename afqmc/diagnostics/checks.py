"""The checks of one config by ``afqmc.doctor``, in the order in which a run makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from torch import nn

from afqmc.config import Config
from afqmc.data.loading import Dataset, all_sentences
from afqmc.data.tokenization import PairTokenizer
from afqmc.diagnostics import data, machine, model
from afqmc.diagnostics.findings import Finding, Verdict, fail, ok, warn
from afqmc.distributed.rank import current_rank
from afqmc.evaluation.evaluator import padding_warning
from afqmc.models.loading import build_tokenizer
from afqmc.models.transforms import apply_transforms, built_in_transforms
from afqmc.runner.data_methods import TrainingPairs, training_pairs
from afqmc.runner.validation import config_checks, data_checks, refusals, validate_lengths, validate_model
from afqmc.training.device import select_device
from afqmc.utils.errors import InputError

_DEFAULT_LABELS = ("0", "1")  # the classes of the model if the data cannot be read


class Checks:
    """All checks of one config. The message of an InputError becomes a failure, and the next check still runs.

    Attributes:
        data: The dataset without its invalid rows, or None if it cannot be read.
        train: The pairs to train on; None until the data methods are applied.
        model: The model without pretrained weights; None until it is built.
        model_size: Its dimensions, for the estimates of memory and disk; None until it is built.
        token_lengths: For each split, the number of tokens of each pair before truncation, (N,).
        config_errors: (section, message) of each error that the config alone shows.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Dataset | None = None
        self.train: TrainingPairs | None = None
        self.model: nn.Module | None = None
        self.model_size: model.ModelSize | None = None
        self.token_lengths: dict[str, np.ndarray] = {}
        self.config_errors: list[tuple[str, str]] = []

    def findings(self) -> Iterator[Finding]:
        """Yield all findings in order; a failure that several sections report is yielded once."""
        sections = (
            ("config", self.check_config),
            ("data", self.check_data),
            ("config", self.check_config_against_data),
            ("model", self.check_model),
            ("model", self.check_model_support),
            ("device", self.check_device),
            ("tracker", lambda: machine.tracker(self.config)),
            ("disk", lambda: machine.disk(self.config, self.model_size)),
        )
        self.config_errors = list(refusals(config_checks(self.config, current_rank())))
        failures: set[str] = set()
        for section, check in sections:
            for finding in self._section_findings(section, check):
                if finding.verdict is not Verdict.fail:
                    yield finding
                elif finding.text not in failures:
                    failures.add(finding.text)
                    yield finding

    def _section_findings(self, section: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """Yield the config errors of a section, then the findings of its check."""
        yield from (fail(name, text) for name, text in self.config_errors if name == section)
        try:
            yield from check()
        except InputError as error:
            yield fail(section, str(error))

    def check_config(self) -> Iterator[Finding]:
        """Report that the config has no errors that can be seen without the data."""
        config = self.config
        if not any(section == "config" for section, _ in self.config_errors):
            yield ok(
                "config",
                f"composed; {config.optimizer['_target_']} and {config.scheduler['_target_']} take their arguments",
            )

    def check_data(self) -> Iterator[Finding]:
        """Read every row of every split; report invalid rows by line number, then statistics."""
        self.data, errors = data.read_with_errors(self.config)
        yield from errors.findings()
        if self.data is not None:
            yield from data.data_findings(self.data)

    def check_config_against_data(self) -> Iterator[Finding]:
        """Report where the config does not fit the data."""
        if self.data is not None:
            self.train = training_pairs(self.config.dataset, self.data)
            yield from (ok("data", line) for line in self.train.lines)
            for section, text in refusals(data_checks(self.config, self._training_data(self.data))):
                yield fail(section, text)

    def check_model(self) -> Iterator[Finding]:
        """Report on tokenizer, architecture and weights, and on the lengths of the pairs in tokens."""
        config = self.config
        tokenizer = build_tokenizer(config.model, lambda: all_sentences(self._loaded_data()))
        if config.model._target_ is not None:
            self.model, self.model_size, finding = model.custom_model(config, tokenizer, self._loaded_data().labels)
            yield finding
            pair_tokenizer = PairTokenizer(tokenizer, config.dataset.max_length)
            if warning := padding_warning(self.model, self._loaded_data().dev, pair_tokenizer):
                yield warn("model", warning)
        else:
            labels = _DEFAULT_LABELS if self.data is None else self.data.labels
            self.model, self.model_size, findings = model.cross_encoder(config, tokenizer, labels)
            yield from findings
        if self.data is not None:
            self.token_lengths = model.lengths(config, tokenizer, self._training_data(self.data))
            yield from model.length_findings(self.token_lengths, config.dataset.max_length)

    def check_model_support(self) -> Iterator[Finding]:
        """Check that the trainer can use this model with pairs of these lengths."""
        config, max_length = self.config, self.config.dataset.max_length
        if self.model is not None:
            apply_transforms(built_in_transforms(config.model), self.model)
            validate_model(config, select_device(config.trainer), self.model)
        if "train" in self.token_lengths:
            validate_lengths(config, lambda: self.token_lengths["train"].clip(max=max_length))
        yield from ()  # a generator, so that errors are raised when it is iterated

    def check_device(self) -> Iterator[Finding]:
        """Report on device, precision and memory."""
        longest = int(self.token_lengths["train"].max()) if self.token_lengths else None
        yield from machine.device(self.config, self.model_size, longest)

    def _training_data(self, data: Dataset) -> Dataset:
        """Return the dataset with the pairs to train on in place of the train split."""
        return data if self.train is None else replace(data, train=self.train.pairs)

    def _loaded_data(self) -> Dataset:
        if self.data is None:
            raise InputError("the data cannot be read, and this model depends on them")
        return self.data
