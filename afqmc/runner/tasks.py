"""The two kinds of runs: fine-tuning on pairs, and pretraining on sentences. They differ in data, model and metrics."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from afqmc.config import Config
from afqmc.data.batching import Shard, TrainLoader
from afqmc.data.download import cache_dir
from afqmc.data.loading import Dataset, load_dataset
from afqmc.data.masking import MaskedLoader, Masker
from afqmc.data.masking_config import MaskingUnit
from afqmc.data.pairs import Pairs, PairStream
from afqmc.data.quality import analyze, summary_lines
from afqmc.data.sentence_tokenization import SentenceTokenizer
from afqmc.data.sentences import PRETRAINING_FILE, SentenceCounts, load_sentences, sentence_hash
from afqmc.data.tokenization import PairTokenizer, TokenizedPairs
from afqmc.evaluation.evaluator import Evaluation, OnProgress, evaluate
from afqmc.evaluation.masked_lm import evaluate_masked_lm
from afqmc.models.loading import build_model
from afqmc.models.masked_lm import build_masked_lm
from afqmc.runner.data_methods import TrainingPairs, training_pairs
from afqmc.runner.pretraining_text import pretrained_hashes

log = logging.getLogger(__name__)


class Task(Protocol):
    """The kind of a run: its data, model, batches and metrics."""

    def load_data(self) -> Dataset:
        """Read the data."""
        ...

    def describe(self, data: Dataset) -> None:
        """Log what is in the data."""
        ...

    def training_pairs(self, data: Dataset) -> TrainingPairs:
        """Return the rows to train on, to which data methods may add some."""
        ...

    def build_model(self, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> nn.Module:
        """Build the model in float32, without transforms."""
        ...

    def build_pair_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PairTokenizer:
        """Return what makes tokens of the rows of the data."""
        ...

    def build_loader(self, train: Pairs | PairStream, pair_tokenizer: PairTokenizer) -> TrainLoader:
        """Return the batches of each epoch."""
        ...

    def evaluate(
        self,
        model: nn.Module,
        tokenized: TokenizedPairs,
        pair_tokenizer: PairTokenizer,
        device: torch.device,
        on_progress: OnProgress,
        shard: Shard,
        swapped: TokenizedPairs | None,
    ) -> Evaluation:
        """Evaluate a split; with ``swapped``, the pairs in the other order, the logits are the mean of both orders."""
        ...

    def weights_files(self, data: Dataset) -> dict[str, str]:
        """Return the texts of files to save beside the weights, by name."""
        ...


class PairClassification:
    """Fine-tuning a classifier on labelled pairs, with ``afqmc run``."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def load_data(self) -> Dataset:
        """Read all splits."""
        return load_dataset(self.config.dataset)

    def describe(self, data: Dataset) -> None:
        """Log the counts and what may distort the metrics."""
        stats = analyze(data)
        for line in summary_lines(data, stats):
            log.info(line)
        for text in stats.suspicions:
            log.warning("data: %s", text)

    def training_pairs(self, data: Dataset) -> TrainingPairs:
        """Apply the data methods to the train split."""
        return training_pairs(self.config.dataset, data)

    def build_model(self, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> nn.Module:
        """Build the classifier."""
        return build_model(self.config.model, tokenizer, data.labels, self.config.dataset.max_length)

    def build_pair_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PairTokenizer:
        """Return the tokenizer of pairs."""
        dataset = self.config.dataset
        return PairTokenizer(tokenizer, dataset.max_length, cache_dir(dataset) / "tokens")

    def build_loader(self, train: Pairs | PairStream, pair_tokenizer: PairTokenizer) -> TrainLoader:
        """Return the batches of pairs."""
        config = self.config
        return TrainLoader(train, pair_tokenizer, config.batch_size, config.seed, config.dataset)

    def evaluate(
        self,
        model: nn.Module,
        tokenized: TokenizedPairs,
        pair_tokenizer: PairTokenizer,
        device: torch.device,
        on_progress: OnProgress,
        shard: Shard,
        swapped: TokenizedPairs | None,
    ) -> Evaluation:
        """Compute logits and, if the split is labelled, metrics."""
        size = self.config.trainer.eval_batch_size
        return evaluate(model, tokenized, pair_tokenizer, size, device, on_progress, shard, swapped)

    def weights_files(self, data: Dataset) -> dict[str, str]:
        """Return none."""
        return {}


class Pretraining:
    """Masked language modelling on sentences, with ``afqmc pretrain``.

    Attributes:
        counts: Of the sentences; set by ``load_data``.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.counts: SentenceCounts | None = None
        self.masker: Masker | None = None

    def load_data(self) -> Dataset:
        """Read the sentences of train that are neither in dev nor in test."""
        data, self.counts = load_sentences(self.config.dataset, self.config.masking.dev_share)
        return data

    def describe(self, data: Dataset) -> None:
        """Log how many sentences there are, and how many are left out."""
        counts = self.counts
        assert counts is not None
        log.info(
            "data: %s: %d sentences to pretrain on, %d held out; %d of the %d sentences of train are left out, since "
            "they occur in dev (%d) or test (%d)",
            data.name, counts.pretrained, counts.held_out,
            counts.excluded, counts.unique, counts.in_dev, counts.in_test,
        )  # fmt: skip

    def training_pairs(self, data: Dataset) -> TrainingPairs:
        """Return the sentences; the config allows no data methods."""
        return TrainingPairs(data.train)

    def build_model(self, tokenizer: PreTrainedTokenizerBase, data: Dataset) -> nn.Module:
        """Build the encoder with its masked-LM head."""
        return build_masked_lm(self.config.model, tokenizer, self.config.dataset.max_length)

    def build_pair_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PairTokenizer:
        """Return the tokenizer of single sentences."""
        dataset, masking = self.config.dataset, self.config.masking
        self.masker = Masker(tokenizer, masking)
        with_words = masking.unit is MaskingUnit.whole_word
        return SentenceTokenizer(tokenizer, dataset.max_length, cache_dir(dataset) / "tokens", with_words)

    def build_loader(self, train: Pairs | PairStream, pair_tokenizer: PairTokenizer) -> TrainLoader:
        """Return the batches of masked sentences."""
        config = self.config
        assert self.masker is not None
        assert isinstance(train, Pairs)
        return MaskedLoader(train, pair_tokenizer, config.batch_size, config.seed, config.dataset, self.masker)

    def evaluate(
        self,
        model: nn.Module,
        tokenized: TokenizedPairs,
        pair_tokenizer: PairTokenizer,
        device: torch.device,
        on_progress: OnProgress,
        shard: Shard,
        swapped: TokenizedPairs | None,
    ) -> Evaluation:
        """Compute the loss on masks that depend on ``dataset.split_seed`` alone, so that runs can be compared."""
        assert self.masker is not None
        size, seed = self.config.trainer.eval_batch_size, self.config.dataset.split_seed
        return evaluate_masked_lm(model, tokenized, pair_tokenizer, size, device, self.masker, seed, on_progress, shard)

    def weights_files(self, data: Dataset) -> dict[str, str]:
        """Return the hashes of the pretraining text, against which a fine-tuning run checks its dev and test pairs.

        They include those of an earlier pretraining that this one continues.
        """
        assert isinstance(data.train, Pairs)
        hashes = {sentence_hash(text) for text in data.train.sentence1} | pretrained_hashes(self.config.model)
        return {PRETRAINING_FILE: "".join(f"{line}\n" for line in sorted(hashes))}


def task_of(config: Config) -> Task:
    """Return the task of a config: pretraining if it has a masking unit."""
    return PairClassification(config) if config.masking.unit is None else Pretraining(config)
