"""Test that models whose tensors share memory are saved and loaded, and others that cannot be saved are rejected."""

import importlib
import json

import pytest
import torch
from equality import differences
from helpers import small, train
from safetensors.torch import load_file
from torch import nn

from afqmc.checkpoint.weights import load_weights, read_tensors, save_weights
from afqmc.inference.predictor import Predictor
from afqmc.models.config import ModelConfig
from afqmc.models.loading import build_custom_model
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.utils.errors import InputError
from afqmc.utils.signals import Terminated

LABELS = ("0", "1")
SOURCE = """
import os, signal
import torch
from torch import nn

calls, end_at = 0, None

class Plain(nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id):
        super().__init__()
        self.words, self.more = nn.Embedding(vocab_size, 8), nn.Embedding(vocab_size, 8)
        self.out = nn.Linear(8, num_labels)
        self.change(vocab_size)
    def change(self, vocab_size):
        pass
    def forward(self, input_ids, attention_mask, **_):
        mask = attention_mask.unsqueeze(-1).float()
        return self.out(((self.words(input_ids) + self.more(input_ids)) * mask).sum(1) / mask.sum(1))

class Tied(Plain):
    def change(self, vocab_size):
        self.more.weight = self.words.weight
    def forward(self, **inputs):
        global calls
        calls += self.training
        if self.training and calls == end_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(**inputs)

class Sliced(Plain):
    def change(self, vocab_size):
        self.more.weight = nn.Parameter(self.words.weight[: vocab_size])
        self.register_buffer("first", self.words.weight.detach()[:2])

class TiedBuffers(Plain):
    def change(self, vocab_size):
        self.register_buffer("one", torch.arange(3))
        self.register_buffer("other", self.one)

class Turned(Plain):
    def change(self, vocab_size):
        self.words.weight = nn.Parameter(torch.randn(8, vocab_size).t())
        self.register_buffer("row", self.words.weight.detach()[0])

class Empty(Plain):
    def change(self, vocab_size):
        self.register_buffer("none", torch.zeros(0))
        self.register_buffer("nothing", torch.zeros(0, 3))

class Kinds(Plain):
    def change(self, vocab_size):
        for kind in (torch.bool, torch.int8, torch.float64, torch.bfloat16, torch.complex64):
            self.register_buffer("a_" + str(kind)[6:], torch.ones(2, dtype=kind))

class Shared(Plain):
    def change(self, vocab_size):
        self.more = self.words

class Sparse(Plain):
    def change(self, vocab_size):
        self.register_buffer("odd", torch.eye(2).to_sparse())

class Wide(Plain):
    def change(self, vocab_size):
        self.register_buffer("odd", torch.zeros(1, dtype=torch.complex128))

class Meta(Plain):
    def change(self, vocab_size):
        self.register_buffer("odd", torch.zeros(1, device="meta"))

class Extra(Plain):
    def get_extra_state(self):
        return {"calls": 3}
    def set_extra_state(self, state):
        pass

class Expanded(Plain):
    def change(self, vocab_size):
        self.register_buffer("odd", torch.zeros(1).expand(3))
"""
SAVED = ("Tied", "Sliced", "TiedBuffers", "Turned", "Empty", "Kinds", "Shared")


@pytest.fixture
def plugged(plug):
    return importlib.import_module(plug(SOURCE))


def build(plugged, name, tokenizer):
    config = ModelConfig(_target_=f"{plugged.__name__}.{name}")
    return config, build_custom_model(config, tokenizer, LABELS)


@pytest.mark.parametrize("name", SAVED)
def test_shared_memory_round_trip(plugged, tiny_tokenizer, tmp_path, name):
    """A state with shared memory is the same after saving and loading."""
    config, model = build(plugged, name, tiny_tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter))
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    save_weights(tmp_path / "best", model, tiny_tokenizer, LABELS)
    assert read_tensors(tmp_path / "best").keys() == expected.keys()
    state = load_weights(tmp_path / "best", config, trust=True).model.state_dict()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def test_tied_tensor_is_stored_once(plugged, tiny_tokenizer, tmp_path):
    """A tied tensor is stored once, and tied again when loaded."""
    config, model = build(plugged, "Tied", tiny_tokenizer)
    save_weights(tmp_path / "best", model, tiny_tokenizer, LABELS)
    assert sorted(load_file(tmp_path / "best/model.safetensors")) == ["out.bias", "out.weight", "words.weight"]
    assert json.loads((tmp_path / "best/tied.json").read_text()) == {"more.weight": "words.weight"}
    loaded = load_weights(tmp_path / "best", config, trust=True).model
    assert loaded.more.weight is loaded.words.weight


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Sparse", "odd in its state_dict.. is sparse_coo"),
        ("Wide", "odd in its state_dict.. is of type complex128"),
        ("Meta", "odd in its state_dict.. is on the meta device"),
        ("Extra", "_extra_state in its state_dict.. is a dict, not a tensor"),
        ("Expanded", "its own state_dict.. cannot be loaded again: .*odd.*more than one element"),
    ],
)
def test_unsavable_state(plugged, tiny_tokenizer, name, problem):
    """A state that cannot be saved is rejected before training."""
    with pytest.raises(InputError, match=rf"^model\._target_=.*{name}: {problem}"):
        build(plugged, name, tiny_tokenizer)


def test_state_check_changes_nothing(plugged, tiny_tokenizer):
    """The check of a state changes no value."""
    torch.manual_seed(3)
    expected = plugged.Tied(2, len(tiny_tokenizer), 0).state_dict()
    torch.manual_seed(3)
    _, model = build(plugged, "Tied", tiny_tokenizer)
    assert isinstance(model, nn.Module)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key])


def test_run_with_tied_model(plugged, tmp_path):
    """A run with a tied model can be completed, resumed and evaluated."""
    own = (f"model._target_={plugged.__name__}.Tied", "checkpoint.save_steps=5")
    uninterrupted = train(tmp_path / "uninterrupted", *own)
    trained = Predictor.load(uninterrupted.path, trust=True)
    scored = trained.evaluate(trained.read_pairs(None, True))
    rows = [json.loads(line) for line in (uninterrupted.path / "predictions/dev.jsonl").read_text().splitlines()]
    assert len(rows) == len(scored.logits)

    stopped = RunDir(tmp_path / "stopped")
    plugged.calls, plugged.end_at = 0, 17
    with pytest.raises(Terminated):
        run_experiment(small(*own), stopped)
    run_experiment(small(*own), stopped, resume=True)
    assert differences(uninterrupted, stopped) == []
