"""Checks of everything a run needs, before it needs it: each yields findings with a verdict."""

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

_TWO = ("0", "1")  # classes, where the data are not there to say which


class Checks:
    """All checks of one config, in the order of a run; a check that cannot be made says why."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Dataset | None = None
        self.built: nn.Module | None = None  # an encoder without its weights
        self.size: model.ModelSize | None = None
        self.lengths: dict[str, np.ndarray] = {}
        self.refused: list[tuple[str, str]] = []  # section and message of what needs no data

    def findings(self) -> Iterator[Finding]:
        """Every finding; a refusal is reported once, in the first section that comes to it."""
        sections = (
            ("config", self.checked),
            ("data", self.read),
            ("config", self.agreement),
            ("model", self.model),
            ("model", self.adapted),
            ("device", self.device),
            ("tracker", lambda: machine.tracker(self.config)),
            ("disk", lambda: machine.disk(self.config, self.size)),
        )
        self.refused = list(refusals(config_checks(self.config, current_rank())))
        told = set()
        for section, check in sections:
            for finding in self._of(section, check):
                if finding.verdict is not Verdict.fail or finding.text not in told:
                    yield finding
                told.add(finding.text)

    def _of(self, section: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """What was refused of the section beforehand, then what its own check finds."""
        yield from (fail(section, text) for of, text in self.refused if of == section)
        try:
            yield from check()
        except InputError as error:
            yield fail(section, str(error))

    def checked(self) -> Iterator[Finding]:
        """That the config is sound, as far as that can be said without data."""
        config = self.config
        if all(section != "config" for section, _ in self.refused):
            yield ok(
                "config",
                f"composed; {config.optimizer['_target_']} and {config.scheduler['_target_']} take their arguments",
            )

    def read(self) -> Iterator[Finding]:
        """Every row of every split; odd ones by line number; then what they hold."""
        self.data, complaints = data.read(self.config)
        yield from complaints.findings()
        if self.data is not None:
            yield from data.data_findings(self.data)

    def agreement(self) -> Iterator[Finding]:
        """What the config and the data disagree on."""
        if self.data is not None:
            for section, text in refusals(data_checks(self.config, self.data)):
                yield fail(section, text)

    def model(self) -> Iterator[Finding]:
        """Tokenizer, architecture, weights, and how long the pairs are in tokens."""
        config = self.config
        tokenizer = build_tokenizer(config.model, lambda: all_sentences(self._data()))
        if config.model._target_ is not None:
            self.built, self.size, finding = model.plugged(config, tokenizer, self._data().labels)
            yield finding
            encoder = PairTokenizer(tokenizer, config.dataset.max_length)
            if warning := padding_warning(self.built, self._data().dev, encoder):
                yield warn("model", warning)
        else:
            labels = _TWO if self.data is None else self.data.labels
            self.built, self.size, findings = model.encoder(config, tokenizer, labels)
            yield from findings
        if self.data is not None:
            self.lengths = model.lengths(config, tokenizer, self.data)
            yield from model.tokens(self.lengths, config.dataset.max_length)

    def adapted(self) -> Iterator[Finding]:
        """Whether the trainer can use this model, and what depends on the pairs' tokens."""
        config, longest = self.config, self.config.dataset.max_length
        if self.built is not None:
            validate_model(config, select_device(config.trainer), self.built)
        if "train" in self.lengths:
            validate_lengths(config, lambda: self.lengths["train"].clip(max=longest))
        yield from ()

    def device(self) -> Iterator[Finding]:
        """Device, precision, and memory."""
        longest = int(self.lengths["train"].max()) if self.lengths else None
        return machine.device(self.config, self.size, longest)

    def _data(self) -> Dataset:
        if self.data is None:
            raise InputError("the data cannot be read, and this model depends on them")
        return self.data
