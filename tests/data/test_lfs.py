"""Test the messages for Git LFS pointers and damaged downloads among the files of a model."""

import shutil

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel, BertTokenizer

from afqmc.checkpoint.weights import load_weights, save_weights
from afqmc.models.config import ModelConfig
from afqmc.models.loading import build_model, build_tokenizer
from afqmc.utils.errors import InputError
from afqmc.utils.git_lfs import is_lfs_pointer

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 411553788\n"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"花呗借还款")
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small BERT with each file that a pointer may stand for: both kinds of weights and of vocabularies."""
    directory = tmp_path_factory.mktemp("saved")
    model = BertModel(BertConfig(vocab_size=len(WORDS), **SIZES))
    model.save_pretrained(directory)
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def build(name, **settings):
    config = ModelConfig(name_or_path=str(name), **settings)
    return build_model(config, build_tokenizer(config, list), ("0", "1"), 32)


def test_is_lfs_pointer():
    """A pointer is recognised by its first bytes."""
    assert is_lfs_pointer(POINTER.encode())
    assert is_lfs_pointer(b"\xef\xbb\xbf" + POINTER.encode())  # as an editor on Windows saves it
    assert not is_lfs_pointer(b"")
    assert not is_lfs_pointer(b"version 1\n")


@pytest.mark.parametrize(
    ("pointer", "without"),
    [
        ("config.json", ()),
        ("tokenizer.json", ()),
        ("tokenizer_config.json", ()),
        ("vocab.txt", ("tokenizer.json",)),
        ("model.safetensors", ()),
        ("pytorch_model.bin", ("model.safetensors",)),
    ],
)
def test_pointer_in_directory(directory, pointer, without):
    """A pointer in the directory of a model is reported with its path."""
    for name in without:
        (directory / name).unlink()
    (directory / pointer).write_text(POINTER)
    with pytest.raises(
        InputError, match=f"^{directory / pointer}: is a Git LFS pointer.*`git lfs pull` in {directory}"
    ):
        build(directory)


def test_pointer_among_shards(directory):
    """A pointer among sharded weights is reported with its path."""
    (directory / "model.safetensors").unlink()
    BertModel(BertConfig(vocab_size=len(WORDS), **SIZES)).save_pretrained(directory, max_shard_size=2000)
    part = sorted(directory.glob("model-*.safetensors"))[1]
    part.write_text(POINTER)
    with pytest.raises(InputError, match=f"^{part}: is a Git LFS pointer"):
        build(directory)


def test_unused_pointer(directory):
    """A pointer in place of an unused file is ignored."""
    for name in ("vocab.txt", "pytorch_model.bin"):
        (directory / name).write_text(POINTER)
    build(directory)
    (directory / "model.safetensors").write_text(POINTER)
    build(directory, from_scratch=True)


def test_pointer_in_hub_cache(directory, tmp_path, monkeypatch):
    """A pointer in the hub's cache is reported with its path."""
    cache = tmp_path / "hub"
    repository = cache / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = shutil.copytree(directory, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    build("some/model")
    (snapshot / "model.safetensors").write_text(POINTER)
    with pytest.raises(InputError, match=f"^{snapshot / 'model.safetensors'}: is a Git LFS pointer"):
        build("some/model")


def test_pointer_in_run(directory, tmp_path):
    """A pointer in place of the weights of a run is reported with its path."""
    config = ModelConfig(name_or_path=str(directory))
    tokenizer = build_tokenizer(config, list)
    best = tmp_path / "best"
    save_weights(best, build_model(config, tokenizer, ("0", "1"), 32), tokenizer, ("0", "1"))
    load_weights(best, config)
    (best / "model.safetensors").write_text(POINTER)
    with pytest.raises(InputError, match=f"^{best / 'model.safetensors'}: is a Git LFS pointer"):
        load_weights(best, config)


PAGE = b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>"


@pytest.mark.parametrize(
    ("name", "changed", "damage"),
    [
        ("model.safetensors", lambda _: PAGE, "is an HTML or XML page"),
        ("model.safetensors", lambda _: b"", "is empty"),
        ("model.safetensors", lambda _: b"Not Found: no such file", "is not a safetensors file"),
        ("model.safetensors", lambda content: content[:5], "ends too early, after 5 bytes"),
        ("model.safetensors", lambda content: content[:50], "ends too early, after 50 bytes"),
        ("model.safetensors", lambda content: content[:-8], r"has \d+ bytes instead of \d+"),
        ("pytorch_model.bin", lambda _: PAGE, "is an HTML or XML page"),
        ("pytorch_model.bin", lambda _: b"", "is empty"),
        ("pytorch_model.bin", lambda content: content[:-50], "ends too early"),
        ("config.json", lambda content: content[:-5], "is not valid JSON"),
        ("tokenizer.json", lambda _: b"\xef\xbb\xbf" + PAGE, "is an HTML or XML page"),
        ("tokenizer.json", lambda content: content[: len(content) // 2], "is not valid JSON"),
    ],
)
def test_incomplete_download(directory, name, changed, damage):
    """A damaged file is reported with its path and what is wrong with it."""
    if name == "pytorch_model.bin":
        (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(changed((directory / name).read_bytes()))
    with pytest.raises(
        InputError, match=f"in this directory: {directory / name}: {damage}.*; the download was probably incomplete"
    ):
        build(directory)
