"""Checks of everything a run needs, before it needs it: each yields findings with a verdict."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import file_exists
from transformers import PreTrainedTokenizerBase

from afqmc.batching.tokens import Encoder
from afqmc.config import Config
from afqmc.dataset.checks import Facts, examine, worries
from afqmc.dataset.splits import Dataset, Pairs, class_names, index_of, locate, read_split, to_columns
from afqmc.errors import InputError
from afqmc.model.architecture import build_architecture, longest_input
from afqmc.model.classifier import encoder_class, encoder_options
from afqmc.model.hub import hub_is_reachable
from afqmc.model.load import WEIGHT_FILES, build_tokenizer, check_plugged_in
from afqmc.optim import check_plugged_in as check_optimizer
from afqmc.process import usable_cores
from afqmc.tracker.config import Service, resolve_mode
from afqmc.train.hardware import choose, cpu_name

_SHOWN = 8  # odd rows named, at most
_GIB = 2**30
_ADAM_BYTES = 16  # a parameter: float32 weight, gradient and two moments


class Verdict(Enum):
    """What a finding means for the run."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    section: str
    verdict: Verdict
    text: str


def ok(section: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(section, Verdict.ok, text)


def warn(section: str, text: str) -> Finding:
    """The run goes through; its figures may mean less than they seem to."""
    return Finding(section, Verdict.warn, text)


def fail(section: str, text: str) -> Finding:
    """The run would stop."""
    return Finding(section, Verdict.fail, text)


class Diagnosis:
    """All checks of one config, in the order of a run; a check that cannot be made says why."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data: Dataset | None = None

    def findings(self) -> Iterator[Finding]:
        """Every finding."""
        checks = (
            ("config", self.plugged_in),
            ("data", self.read_data),
            ("data", self.data_facts),
            ("model", self.model),
            ("device", self.device),
            ("tracker", self.tracker),
            ("disk", self.disk),
        )
        self.parameters = 0
        self.lengths: np.ndarray | None = None
        self.hidden, self.layers, self.heads = 768, 12, 12
        for section, check in checks:
            try:
                yield from check()
            except InputError as error:
                yield fail(section, str(error))

    def plugged_in(self) -> Iterator[Finding]:
        """Optimizer, schedule and model by their signatures."""
        config = self.config
        check_optimizer(config.optimizer, config.scheduler, config.lr)
        check_plugged_in(config.model)
        yield ok(
            "config",
            f"composed; {config.optimizer['_target_']} and {config.scheduler['_target_']} take their arguments",
        )

    def read_data(self) -> Iterator[Finding]:
        """Every row of every split; odd ones by line number."""
        config = self.config.dataset
        files, complaints = locate(config), list[str]()
        rows = {split: list(read_split(config, split, file, complaints.append)) for split, file in files.items()}
        complaints += [f"{files[split].name}: holds no pairs" for split, found in rows.items() if not found]
        names = class_names(config, [row.label for row in rows["train"]]) if rows["train"] else ()
        columns = {}
        for split, found in rows.items():
            legal = [row for row in found if row.label is None or row.label in names]
            columns[split] = to_columns(files[split].name, legal, index_of(names))
            complaints += [
                f"{files[split].name}:{row.line}: label {row.label!r} is not one of: {', '.join(names)}"
                for row in found
                if names and row.label is not None and row.label not in names
            ]
        for complaint in complaints[:_SHOWN]:
            yield fail("data", complaint)
        if len(complaints) > _SHOWN:
            yield fail("data", f"and {len(complaints) - _SHOWN} more such rows")
        if all(len(split) for split in columns.values()):
            self.data = Dataset(config.name, names, **columns)

    def data_facts(self) -> Iterator[Finding]:
        """Counts, repeats, leaks, the majority baseline, and what dev can tell apart."""
        if self.data is None:
            return
        facts = examine(self.data)
        yield from _counts(self.data, facts)
        for text in worries(facts):
            yield warn("data", text)
        for name, found in facts.splits.items():
            if found.identical_sentences:
                rows = ", ".join(map(str, found.where["identical_sentences"]))
                yield warn("data", f"{name}: {found.identical_sentences} pairs of a sentence with itself (rows {rows})")
        if not worries(facts):
            yield ok("data", "no repeated, contradictory or shared pairs")
        counts = facts.splits["dev"].label_counts
        majority, total = max(counts) / sum(counts), sum(counts)
        error = math.sqrt(majority * (1 - majority) / total)
        yield ok(
            "data",
            f"dev: always answering {self.data.labels[counts.index(max(counts))]!r} scores {majority:.2%}; one "
            f"standard error is {error:.2%}, so two runs whose accuracies differ by less than about "
            f"{1.96 * math.sqrt(2) * error:.1%} cannot be told apart by it (unpaired, 95%)",
        )

    def model(self) -> Iterator[Finding]:
        """Tokenizer, architecture, weights, and how long the pairs are in tokens."""
        config = self.config.model
        tokenizer = build_tokenizer(config, self._sentences)
        if config._target_ is not None:
            yield ok("model", f"{config._target_} takes its arguments; its weights are its own affair")
        else:
            yield from self._architecture(tokenizer)
        if self.data is not None:
            yield from self._lengths(tokenizer)

    def device(self) -> Iterator[Finding]:
        """Device, precision, and memory."""
        choice = choose(self.config.trainer)
        name = torch.cuda.get_device_name() if choice.device == "cuda" else f"{cpu_name()}, {usable_cores()} cores"
        yield ok("device", f"{choice.device} ({name}); precision {choice.precision}: {choice.reason}")
        if not self.parameters or self.lengths is None:
            return
        need = self.parameters * _ADAM_BYTES + self._activations(choice.precision)
        free = torch.cuda.mem_get_info()[0] if choice.device == "cuda" else _free_memory()
        text = f"about {need / _GIB:.1f} GiB needed for weights, optimizer and one batch; {free / _GIB:.1f} GiB free"
        if need > free:
            advice = "; raise trainer.gradient_accumulation_steps or lower batch_size or dataset.max_length"
            yield fail("device", text + advice)
        else:
            yield ok("device", text)

    def tracker(self) -> Iterator[Finding]:
        """Where W&B's figures would go."""
        config = self.config.tracker
        if config.service is Service.none:
            yield ok("tracker", "none; local files only")
            return
        mode = resolve_mode(config)
        if mode == "online":
            yield ok("tracker", f"W&B: online, project {config.project}")
        elif mode == "offline":
            yield ok("tracker", "W&B: offline (not logged in, or asked for); `wandb sync` sends the run later")
        else:
            yield ok("tracker", "W&B: disabled")

    def disk(self) -> Iterator[Finding]:
        """Room for checkpoints."""
        # best, the one being written beside it, and what is kept of past evaluations
        copies = 2 + (self.config.trainer.save_total_limit or 0)
        need = copies * self.parameters * 4
        free = shutil.disk_usage(Path.cwd()).free
        text = f"{free / _GIB:.1f} GiB free here, about {need / _GIB:.2f} GiB needed for checkpoints"
        yield ok("disk", text) if free > need else fail("disk", text)

    def _sentences(self) -> list[str]:
        if self.data is None:
            raise InputError("the vocabulary is trained on the train split, which cannot be read")
        assert isinstance(self.data.train, Pairs)
        return [*self.data.train.sentence1, *self.data.train.sentence2]

    def _architecture(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
        config = self.config.model
        architecture = build_architecture(config, tokenizer)
        self.hidden = architecture.hidden_size
        self.layers = getattr(architecture, "num_hidden_layers", self.layers)
        self.heads = getattr(architecture, "num_attention_heads", self.heads)
        with torch.device("meta"):
            encoder = encoder_class(architecture)(architecture, **encoder_options(architecture, config.pooling))
        self.parameters = sum(parameter.numel() for parameter in encoder.parameters())
        name = config.name_or_path or "BERT"
        yield ok(
            "model",
            f"{name}: {architecture.model_type}, {self.layers} layers x {self.hidden}, {self.parameters / 1e6:.1f} M "
            f"parameters, vocabulary of {len(tokenizer)}",
        )
        if config.from_scratch:
            yield ok("model", "random weights (model.from_scratch=true)")
        elif _has_weights(name, config.revision):
            yield ok("model", "its weights are there")
        else:
            yield fail("model", f"model.name_or_path={name}: no weights there ({' or '.join(WEIGHT_FILES[::2])})")
        limit, wanted = longest_input(architecture, tokenizer), self.config.dataset.max_length
        if wanted > limit:
            yield fail("model", f"dataset.max_length={wanted}: this model has {limit} positions; must be <= {limit}")

    def _lengths(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
        assert self.data is not None
        limit = self.config.dataset.max_length
        for name, split in self.data.splits().items():
            assert isinstance(split, Pairs)
            lengths = Encoder(tokenizer, limit).encode(split).lengths
            if name == "train":
                self.lengths = lengths
            whole = lengths if lengths.max() < limit else Encoder(tokenizer, 1_000_000).encode(split).lengths
            cut = float((whole > limit).mean())
            text = (
                f"{name}: tokens a pair: mean {whole.mean():.1f}, median {np.median(whole):.0f}, 95% "
                f"{np.percentile(whole, 95):.0f}, longest {whole.max()}; {cut:.2%} cut at dataset.max_length={limit}"
            )
            yield warn("tokens", text) if cut > 0.01 else ok("tokens", text)

    def _activations(self, precision: str) -> float:
        """Bytes kept for the backward pass of the longest batch: s b h (34 + 5 a s / h) a layer in 16 bits.

        Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 2.
        """
        assert self.lengths is not None
        longest = float(self.lengths.max())
        pairs = -(-self.config.batch_size // self.config.trainer.gradient_accumulation_steps)
        a_layer = longest * pairs * self.hidden * (34 + 5 * self.heads * longest / self.hidden)
        return a_layer * self.layers * (2 if precision == "no" else 1)


def _counts(data: Dataset, facts: Facts) -> Iterator[Finding]:
    for name, found in facts.splits.items():
        shares = ", ".join(
            f"{label!r} {count} ({count / found.pairs:.1%})"
            for label, count in zip(data.labels, found.label_counts, strict=True)
        )
        labelled = shares if sum(found.label_counts) else "no labels"
        yield ok("data", f"{name}: {found.pairs} pairs; {labelled}")


def _has_weights(name: str, revision: str | None) -> bool:
    if Path(name).expanduser().is_dir():
        return any((Path(name).expanduser() / file).exists() for file in WEIGHT_FILES)
    return hub_is_reachable() and any(file_exists(name, file, revision=revision) for file in WEIGHT_FILES)


def _free_memory() -> float:
    """Bytes of memory that could be had, by the kernel's own estimate where there is one."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024.0
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
