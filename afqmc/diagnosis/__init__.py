"""Checks of everything a run needs, before it needs it: each yields findings with a verdict."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from afqmc.config import Config
from afqmc.dataset.splits import Dataset, sentences
from afqmc.diagnosis import data, machine, model
from afqmc.diagnosis.findings import Finding, fail, ok
from afqmc.errors import InputError
from afqmc.model.load import build_tokenizer
from afqmc.ranks import here
from afqmc.validation import validate_against_data, validate_config


class Diagnosis:
    """All checks of one config, in the order of a run; a check that cannot be made says why."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Dataset | None = None
        self.size: model.Size | None = None
        self.lengths: dict[str, np.ndarray] = {}

    def findings(self) -> Iterator[Finding]:
        """Every finding."""
        checks = (
            ("config", self.checked),
            ("data", self.read),
            ("config", self.agreement),
            ("model", self.model),
            ("device", self.device),
            ("tracker", lambda: machine.tracker(self.config)),
            ("disk", lambda: machine.disk(self.config, self.size)),
        )
        for section, check in checks:
            try:
                yield from check()
            except InputError as error:
                yield fail(section, str(error))

    def checked(self) -> Iterator[Finding]:
        """Everything that needs no data."""
        config = self.config
        validate_config(config, here())
        yield ok(
            "config",
            f"composed; {config.optimizer['_target_']} and {config.scheduler['_target_']} take their arguments",
        )

    def read(self) -> Iterator[Finding]:
        """Every row of every split; odd ones by line number; then what they hold."""
        self.data, complaints = data.read(self.config)
        yield from complaints.findings()
        if self.data is not None:
            yield from data.facts_of(self.data)

    def agreement(self) -> Iterator[Finding]:
        """Class weights and the number of steps, which the data decide."""
        if self.data is not None:
            validate_against_data(self.config, self.data)
        yield from ()

    def model(self) -> Iterator[Finding]:
        """Tokenizer, architecture, weights, and how long the pairs are in tokens."""
        config = self.config
        tokenizer = build_tokenizer(config.model, lambda: sentences(self._data()))
        if config.model._target_ is not None:
            self.size, finding = model.plugged(config, tokenizer, self._data().labels)
            yield finding
        else:
            self.size, findings = model.encoder(config, tokenizer)
            yield from findings
        if self.data is not None:
            self.lengths = model.lengths(config, tokenizer, self.data)
            yield from model.tokens(self.lengths, config.dataset.max_length)

    def device(self) -> Iterator[Finding]:
        """Device, precision, and memory."""
        longest = int(self.lengths["train"].max()) if self.lengths else None
        return machine.device(self.config, self.size, longest)

    def _data(self) -> Dataset:
        if self.data is None:
            raise InputError("the data cannot be read, and this model depends on them")
        return self.data
