"""Train a WordPiece tokenizer on the sentences of a run, for models from scratch."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_MIN_FREQUENCY = 2


def train_wordpiece(sentences: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a tokenizer that works like BERT's, with a new vocabulary. Each Chinese character is a word, as in BERT.

    Pieces are learnt by byte-pair merges. Each is in the vocabulary as the start of a word and with ``##`` as its
    continuation. ``WordPieceTrainer`` would do this in one call, but its vocabulary differs between processes
    (tokenizers 0.23). ``vocab_size`` limits the number of entries, special tokens included.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    learner = Tokenizer(models.BPE())
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=_MIN_FREQUENCY, limit_alphabet=vocab_size * 9 // 10, show_progress=False
    )
    learner.train_from_iterator(sentences, trainer)
    learnt = sorted(learner.get_vocab().items(), key=lambda item: item[1])

    pieces = list(_SPECIAL.values())
    for piece, _ in learnt:
        # a Chinese character or a punctuation mark never continues a word
        starts_word = len(splitter.pre_tokenize_str(normalizer.normalize_str(f"a{piece}"))) > 1
        pieces += [piece] if starts_word else [piece, f"##{piece}"]
    vocabulary = {piece: index for index, piece in enumerate(pieces[:vocab_size])}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL["unk"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    cls, sep = (vocabulary[_SPECIAL[name]] for name in ("cls", "sep"))
    tokenizer.post_processor = processors.BertProcessing((_SPECIAL["sep"], sep), (_SPECIAL["cls"], cls))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in _SPECIAL.items()},
    )
