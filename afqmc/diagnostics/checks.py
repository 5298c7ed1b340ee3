"""Runs all checks of one config in the order of a run, and yields their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
from afqmc.runner.validation import config_checks, data_checks, refusals, validate_lengths, validate_model
from afqmc.training.device import select_device
from afqmc.utils.errors import InputError

_DEFAULT_LABELS = ("0", "1")  # used if the data cannot be read


class Checks:
    """All checks of one config. A check that cannot be made yields a failure with the reason.

    Attributes:
        data: The data set, or None if it cannot be read.
        built: The model, without pretrained weights, or None.
        size: The size of the model, or None.
        lengths: Tokens per pair of each split, before truncation.
        refused: (section, message) of each error in the config alone.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Dataset | None = None
        self.built: nn.Module | None = None
        self.size: model.ModelSize | None = None
        self.lengths: dict[str, np.ndarray] = {}
        self.refused: list[tuple[str, str]] = []

    def findings(self) -> Iterator[Finding]:
        """Yield every finding; a failure that several sections come to is reported once."""
        sections = (
            ("config", self.check_config),
            ("data", self.check_data),
            ("config", self.check_config_against_data),
            ("model", self.check_model),
            ("model", self.check_model_use),
            ("device", self.check_device),
            ("tracker", lambda: machine.tracker(self.config)),
            ("disk", lambda: machine.disk(self.config, self.size)),
        )
        self.refused = list(refusals(config_checks(self.config, current_rank())))
        reported = set()
        for section, check in sections:
            for finding in self._section_findings(section, check):
                if finding.verdict is not Verdict.fail or finding.text not in reported:
                    yield finding
                reported.add(finding.text)

    def _section_findings(self, section: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """Yield the config errors of a section, then the findings of its check."""
        yield from (fail(name, text) for name, text in self.refused if name == section)
        try:
            yield from check()
        except InputError as error:
            yield fail(section, str(error))

    def check_config(self) -> Iterator[Finding]:
        """Report that the config is valid, as far as that is known without data."""
        config = self.config
        if all(section != "config" for section, _ in self.refused):
            yield ok(
                "config",
                f"composed; {config.optimizer['_target_']} and {config.scheduler['_target_']} take their arguments",
            )

    def check_data(self) -> Iterator[Finding]:
        """Read every row of every split; report invalid rows by line number, then statistics."""
        self.data, errors = data.read(self.config)
        yield from errors.findings()
        if self.data is not None:
            yield from data.data_findings(self.data)

    def check_config_against_data(self) -> Iterator[Finding]:
        """Report where the config does not fit the data."""
        if self.data is not None:
            for section, text in refusals(data_checks(self.config, self.data)):
                yield fail(section, text)

    def check_model(self) -> Iterator[Finding]:
        """Report on tokenizer, architecture and weights, and on the lengths of the pairs in tokens."""
        config = self.config
        tokenizer = build_tokenizer(config.model, lambda: all_sentences(self._loaded_data()))
        if config.model._target_ is not None:
            self.built, self.size, finding = model.custom_model(config, tokenizer, self._loaded_data().labels)
            yield finding
            pair_tokenizer = PairTokenizer(tokenizer, config.dataset.max_length)
            if warning := padding_warning(self.built, self._loaded_data().dev, pair_tokenizer):
                yield warn("model", warning)
        else:
            labels = _DEFAULT_LABELS if self.data is None else self.data.labels
            self.built, self.size, findings = model.cross_encoder(config, tokenizer, labels)
            yield from findings
        if self.data is not None:
            self.lengths = model.lengths(config, tokenizer, self.data)
            yield from model.length_findings(self.lengths, config.dataset.max_length)

    def check_model_use(self) -> Iterator[Finding]:
        """Check that the trainer can use this model with pairs of these lengths."""
        config, max_length = self.config, self.config.dataset.max_length
        if self.built is not None:
            validate_model(config, select_device(config.trainer), self.built)
        if "train" in self.lengths:
            validate_lengths(config, lambda: self.lengths["train"].clip(max=max_length))
        yield from ()

    def check_device(self) -> Iterator[Finding]:
        """Report on device, precision and memory."""
        longest = int(self.lengths["train"].max()) if self.lengths else None
        return machine.device(self.config, self.size, longest)

    def _loaded_data(self) -> Dataset:
        if self.data is None:
            raise InputError("the data cannot be read, and this model depends on them")
        return self.data
