"""Test the cross-encoder, and loading and building models."""

import json
import logging
import shutil

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    ElectraConfig,
    ErnieConfig,
    ErnieModel,
    GPT2Config,
    RobertaConfig,
    RobertaModel,
    T5Config,
    ViTConfig,
)

from afqmc.models import hub
from afqmc.models.architecture import build_architecture, longest_input
from afqmc.models.config import ModelConfig, Pooling
from afqmc.models.cross_encoder import CrossEncoder, encoder_options, matches_hf_classifier, pool
from afqmc.models.loading import build_model, build_tokenizer, check_model_config
from afqmc.utils.errors import InputError

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "vocab_size": 100,
    "pad_token_id": 0,
}
LABELS = ("0", "1")
FROM_SCRATCH = {key: value for key, value in TINY.items() if key not in ("vocab_size", "pad_token_id")}


def classifier(encoder_class, config, pooling, num_labels=2, classifier_dropout=None):
    encoder = encoder_class(config, **encoder_options(config, pooling))
    return CrossEncoder(encoder, num_labels, pooling, classifier_dropout).eval()


def inputs(padding=0):
    """Two pairs of 5 and 3 tokens, and more padding."""
    tokens = torch.zeros(2, 5 + padding, dtype=torch.long)
    tokens[0, :5], tokens[1, :3] = torch.arange(5, 10), torch.arange(11, 14)
    return {"input_ids": tokens, "attention_mask": (tokens > 0).long()}


STATES = torch.tensor([[[1.0, -8.0], [3.0, -4.0], [90.0, 90.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]])  # (2, 3, 2)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (Pooling.cls, [[1, -8], [1, 2]]),
        (Pooling.mean, [[2, -6], [3, 5]]),
        (Pooling.max, [[3, -4], [5, 9]]),
        (Pooling.first_last_avg, [[4, -12], [6, 10]]),
    ],
)
def test_pooling_ignores_padding(pooling, expected):
    """Each pooling gives the result computed by hand, without padding."""
    assert pool(STATES, 3 * STATES, MASK, pooling).tolist() == expected


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_pooling_in_half_precision(kind):
    """Mean and max pooling keep the dtype and stay finite in float16 and bfloat16."""
    for pooling in (Pooling.mean, Pooling.max):
        pooled = pool(STATES.to(kind), None, MASK, pooling)
        assert pooled.dtype is kind
        assert pooled.isfinite().all()


@pytest.mark.parametrize("pooling", Pooling)
def test_logits_ignore_padding(pooling):
    """More padding does not change the logits."""
    model = classifier(BertModel, BertConfig(**TINY), pooling, num_labels=3)
    logits = model(**inputs())
    assert logits.shape == (2, 3)
    torch.testing.assert_close(model(**inputs(padding=4)), logits)


def test_first_last_mean():
    """first_last_avg averages the outputs of the first and last layers."""
    model = classifier(BertModel, BertConfig(**TINY), Pooling.first_last_avg)
    states = model.encoder(**inputs(), output_hidden_states=True).hidden_states  # embeddings, layer 1, layer 2
    expected = pool((states[1] + states[2]) / 2, None, inputs()["attention_mask"], Pooling.mean)
    torch.testing.assert_close(model(**inputs()), model.classifier(expected))


@pytest.mark.parametrize(
    ("encoder_class", "config_class", "pooling", "expected"),
    [
        (BertModel, BertConfig, Pooling.pooler_output, True),
        (ErnieModel, ErnieConfig, Pooling.pooler_output, True),
        (RobertaModel, RobertaConfig, Pooling.pooler_output, False),  # its head has another layer
        (BertModel, BertConfig, Pooling.cls, False),
        (BertModel, BertConfig, Pooling.mean, False),
    ],
)
def test_matches_hf_classifier(encoder_class, config_class, pooling, expected):
    """Only BERT-style encoders with their pooler match the classifier of transformers."""
    assert matches_hf_classifier(classifier(encoder_class, config_class(**TINY), pooling)) is expected
    assert not matches_hf_classifier(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("encoder_class", "config_class"), [(BertModel, BertConfig), (ErnieModel, ErnieConfig)])
def test_hf_classifier_computes_same_logits(encoder_class, config_class):
    """The classifier of transformers computes the same logits from the same parameters."""
    config = config_class(**TINY, num_labels=3)
    model = classifier(encoder_class, config, Pooling.pooler_output, num_labels=3)
    twin = AutoModelForSequenceClassification.from_config(config).eval()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(**inputs()).logits, model(**inputs()))


def test_unused_pooler_is_not_built():
    unused = classifier(BertModel, BertConfig(**TINY), Pooling.cls)
    assert not [name for name, _ in unused.named_parameters() if "pooler" in name]
    assert encoder_options(ElectraConfig(**TINY), Pooling.cls) == {}


def test_parameter_names():
    """Parameters have the same prefixes as in transformers."""
    for encoder_class, config_class, prefix in (
        (BertModel, BertConfig, "bert"),
        (RobertaModel, RobertaConfig, "roberta"),
    ):
        model = classifier(encoder_class, config_class(**TINY), Pooling.cls)
        assert {name.split(".")[0] for name in model.state_dict()} == {prefix, "classifier"}
        assert model.encoder is getattr(model, prefix)


@pytest.mark.parametrize(("classifier_dropout", "expected"), [(None, 0.3), (0.0, 0.0), (0.7, 0.7)])
def test_head_dropout(classifier_dropout, expected):
    """The head has the dropout of the encoder's config unless classifier_dropout is set."""
    config = BertConfig(**TINY, hidden_dropout_prob=0.3)
    model = classifier(BertModel, config, Pooling.cls, classifier_dropout=classifier_dropout)
    assert model.dropout.p == expected
    assert not model.classifier.bias.any()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_tokenizer):
    """A directory of a tiny BERT with its pooler, as transformers saves it."""
    directory = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    BertModel(BertConfig(**TINY)).save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "model")


def build(name, max_length=32, **settings):
    config = ModelConfig(name_or_path=str(name), **settings)
    tokenizer = build_tokenizer(config, lambda: [])
    return build_model(config, tokenizer, LABELS, max_length)


def scratch(tokenizer, max_length=32, mimetic_init=False, pooling=Pooling.cls, **architecture):
    config = ModelConfig(
        from_scratch=True, config_overrides=FROM_SCRATCH | architecture, pooling=pooling, mimetic_init=mimetic_init
    )
    return build_model(config, tokenizer, LABELS, max_length)


def change(directory, **settings):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_unused_tensors_warning(directory, caplog, capfd):
    """A pretraining checkpoint loads without warnings. Unexpected tensors cause one."""
    BertForPreTraining(BertConfig(**TINY)).save_pretrained(directory)
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):
        build(directory)
    assert (caplog.messages, *capfd.readouterr()) == ([], "", "")
    deeper = BertConfig(**TINY | {"num_hidden_layers": TINY["num_hidden_layers"] + 1})
    BertModel(deeper).save_pretrained(directory)
    change(directory, num_hidden_layers=TINY["num_hidden_layers"])
    with caplog.at_level(logging.WARNING):
        build(directory)
    (warning,) = caplog.messages
    assert "16 of its tensors are not used, such as encoder.layer." in warning


@pytest.mark.parametrize("pooling", [Pooling.cls, Pooling.pooler_output])
def test_load_from_directory(saved, pooling):
    """Weights are loaded from a directory in float32."""
    model = build(saved, pooling=pooling)
    expected = BertModel.from_pretrained(saved).state_dict()
    for name, tensor in model.encoder.state_dict().items():
        assert tensor.dtype is torch.float32
        assert torch.equal(tensor, expected[name]), name


def test_half_precision_weights_load_as_float32(directory):
    BertModel(BertConfig(**TINY)).half().save_pretrained(directory)
    assert {parameter.dtype for parameter in build(directory).parameters()} == {torch.float32}


def test_from_scratch_with_name(directory):
    """from_scratch uses the config of name_or_path and needs no weights."""
    (directory / "model.safetensors").unlink()
    model = build(directory, from_scratch=True, config_overrides={"num_hidden_layers": 1})
    assert model.encoder.config.num_hidden_layers == 1
    assert model.encoder.config.hidden_size == 16


def test_from_scratch_without_name(tiny_tokenizer):
    """Without name_or_path the model is a BERT with the vocabulary of the tokenizer."""
    config = scratch(tiny_tokenizer).encoder.config
    assert (config.model_type, config.vocab_size) == ("bert", len(tiny_tokenizer))


def test_tokenizer_is_trained_without_name():
    """Without name_or_path a tokenizer is trained on the sentences."""
    tokenizer = build_tokenizer(ModelConfig(from_scratch=True, vocab_size=100), lambda: ["花呗", "借呗"] * 2)
    assert tokenizer.tokenize("花借") == ["花", "借"]


def test_mimetic_init(tiny_tokenizer):
    """Mimetic initialisation makes query and key projections equal."""
    for layer in scratch(tiny_tokenizer, mimetic_init=True).encoder.encoder.layer:
        assert torch.equal(layer.attention.self.query.weight, layer.attention.self.key.weight)


def test_mimetic_init_needs_bert_names(directory):
    """Mimetic initialisation is rejected if modules do not have BERT's names."""
    change(directory, model_type="distilbert", dim=16, n_heads=2, n_layers=1, hidden_dim=16)
    with pytest.raises(InputError, match="model.mimetic_init=true: not supported for distilbert"):
        build(directory, from_scratch=True, mimetic_init=True)


def test_missing_pooler_warning(directory, caplog):
    """A pooler without weights starts from random ones, with a warning."""
    BertForMaskedLM(BertConfig(**TINY)).save_pretrained(directory)
    with caplog.at_level(logging.WARNING, logger="afqmc"):
        build(directory, pooling=Pooling.cls)
        build(directory, pooling=Pooling.pooler_output)
    (warning,) = [record.getMessage() for record in caplog.records if record.name.startswith("afqmc")]
    assert warning == f"{directory} has no weights for the pooler, which starts from random weights"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "no usable config in this directory: Unrecognized model"),
        ("config.json", "{", "no usable tokenizer in this directory: .*config.json: is not valid JSON"),
        ("config.json", '{"model_type": "no-such"}', "no usable config in this directory: .*`no-such`"),
        ("config.json", "[]", "no usable (tokenizer|config) in this directory: TypeError"),
        ("config.json", '{"model_type": "bert", "hidden_size": "x"}', "no usable .* in this directory: .*hidden_size"),
        ("tokenizer.json", "{}", "no usable tokenizer in this directory"),
        ("tokenizer.json", "null", "no usable tokenizer in this directory: AttributeError"),
        ("tokenizer_config.json", "[]", "no usable tokenizer in this directory: AttributeError"),
        ("model.safetensors", None, "has no weights .model.safetensors or pytorch_model.bin.; model.from_scratch="),
    ],
)
def test_missing_or_damaged_file(directory, file, content, message):
    """A missing or damaged file is reported with the directory."""
    path = directory / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=f"model.name_or_path={directory}: {message}"):
        build(directory)


def test_weights_of_other_depth(directory):
    """Weights with fewer layers than the config are rejected."""
    change(directory, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"different architecture than its config \(bert\): 16 tensors are missing"):
        build(directory)


def test_tokenizer_larger_than_model(directory, tiny_tokenizer):
    """A tokenizer with more entries than the model is rejected."""
    change(directory, vocab_size=10)
    with pytest.raises(InputError, match=f"has {len(tiny_tokenizer)} entries and the model 10: they do not match"):
        build(directory)


def test_encoder_decoder(directory):
    """An encoder-decoder is rejected."""
    T5Config(d_model=16, num_layers=1, vocab_size=100).save_pretrained(directory)
    with pytest.raises(InputError, match="its architecture is 't5'; must be a text encoder, such as bert"):
        build(directory)


def test_remote_code_is_not_run(directory):
    """Code in the directory of a model is never run."""
    (directory / "mine.py").write_text("raise SystemExit('was run')")
    change(directory, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    with pytest.raises(InputError, match="no usable config in this directory: .*custom code"):
        build(directory)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "some/relative/path"])
def test_missing_directory(name):
    """A name that looks like a path must be an existing directory."""
    with pytest.raises(InputError, match=f"model.name_or_path={name}: no such directory$"):
        build(name)


def test_unreachable_hub_lists_alternatives():
    """If the hub is unreachable, the message lists the alternatives."""
    hub.hub_failure.cache_clear()
    with pytest.raises(
        InputError, match="model.name_or_path=no-such/model: cannot get its tokenizer; tried "
    ) as refused:
        build("no-such/model")
    for way in (
        "(no answer: OfflineModeIsEnabled: ",
        "HF_ENDPOINT=",
        "model.name_or_path=DIR",
        "model=mini",
    ):
        assert way in str(refused.value)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"hidden_sise": 16}, "model.config_overrides.hidden_sise: bert has no such setting"),
        ({"hidden_size": 17}, "model.config_overrides.hidden_size=17: must be a multiple of num_attention_heads=2"),
        ({"max_position_embeddings": 16}, "dataset.max_length=32: this model has 16 positions; must be <= 16"),
    ],
)
def test_invalid_architecture(tiny_tokenizer, architecture, message):
    """Invalid sizes are reported with their key."""
    with pytest.raises(InputError, match=message):
        scratch(tiny_tokenizer, **architecture)


def test_architecture_needs_from_scratch(saved):
    """model.config_overrides is rejected for pretrained weights."""
    with pytest.raises(InputError, match=r"model.config_overrides.num_hidden_layers=1: only with"):
        build(saved, config_overrides={"num_hidden_layers": 1})


def test_pooling_without_pooler(directory):
    """pooling=pooler_output is rejected for an encoder without a pooler."""
    change(directory, model_type="electra", embedding_size=16)
    with pytest.raises(
        InputError, match="model.pooling=pooler_output: electra has no pooler; allowed: cls, mean, max, first_last_avg"
    ):
        build(directory, from_scratch=True, pooling=Pooling.pooler_output)


def test_longest_input_of_roberta(tiny_tokenizer):
    """RoBERTa can use fewer positions than it has embeddings."""
    assert longest_input(BertConfig(**TINY), tiny_tokenizer) == 64
    assert longest_input(RobertaConfig(**TINY | {"pad_token_id": 1}), tiny_tokenizer) == 62


MINE = """
import torch
class Bag(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id, width=8):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(vocab_size, width, padding_idx=pad_token_id)
        self.head = torch.nn.Linear(width, num_labels)
    def forward(self, input_ids, **others):
        return self.head(self.bag(input_ids))
def number(num_labels, vocab_size, pad_token_id):
    return 5
def broken(num_labels, vocab_size, pad_token_id):
    raise KeyError("nothing")
class Wide(Bag):
    def forward(self, input_ids, **others):
        return self.head(self.bag(input_ids))[:, None]
class Deaf(Bag):
    def forward(self, tokens):
        return tokens
class Dict(Bag):
    def forward(self, **others):
        return others
def bare(num_labels):
    return torch.nn.Linear(2, num_labels)
"""


def test_custom_model(plug, tiny_tokenizer):
    """A custom model is built with its arguments."""
    config = ModelConfig(_target_=f"{plug(MINE)}.Bag", kwargs={"width": 4})
    model = build_model(config, tiny_tokenizer, LABELS, 32)
    assert model.bag.weight.shape == (len(tiny_tokenizer), 4)
    assert model(**inputs()).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Bag", {"widht": 4}, r"model.kwargs.widht: Bag has no such argument; did you mean 'width'\?"),
        ("Bog", {}, r"model._target_=.*Bog: .* has no 'Bog'; did you mean 'Bag'\?"),
        ("number", {}, "model._target_=.*number: returned int; must be a torch.nn.Module"),
        ("broken", {}, "model._target_=.*broken: raised KeyError: 'nothing'"),
        ("Wide", {}, r"model._target_=.*Wide: returned \(2, 1, 2\) for 2 pairs; must be .* here \(2, 2\)"),
        ("Deaf", {}, r"model._target_=.*Deaf: called with input_ids, .*, it raised TypeError: .*unexpected keyword"),
        ("Dict", {}, "model._target_=.*Dict: returned dict for 2 pairs; must be logits"),
    ],
)
def test_invalid_custom_model(plug, tiny_tokenizer, name, args, message):
    """An invalid custom model is reported with its key."""
    with pytest.raises(InputError, match=message):
        build_model(ModelConfig(_target_=f"{plug(MINE)}.{name}", kwargs=args), tiny_tokenizer, LABELS, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model.name_or_path: is not set; set a hub id or a directory, or model.from_scratch=true"),
        ({"from_scratch": True, "kwargs": {"width": 1}}, "model.kwargs: only with model._target_"),
    ],
)
def test_invalid_model_config(settings, message):
    """A config without a model, or with args but no _target_, is rejected."""
    with pytest.raises(InputError, match=message):
        check_model_config(ModelConfig(**settings))


def test_directory_without_tokenizer(directory):
    """A directory without a tokenizer is rejected."""
    for file in directory.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        build(directory)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights(directory, file):
    """Truncated weights are rejected."""
    (directory / "model.safetensors").rename(directory / file)
    (directory / file).write_bytes((directory / file).read_bytes()[:1000])
    with pytest.raises(InputError, match="no usable weights in this directory"):
        build(directory)


def test_weights_of_other_width(directory):
    """Weights with another hidden size than the config are rejected."""
    change(directory, hidden_size=32)
    with pytest.raises(InputError, match=r"different architecture than its config \(bert\)"):
        build(directory)


def test_home_directory_is_expanded(saved, monkeypatch):
    """~ in name_or_path is expanded."""
    monkeypatch.setenv("HOME", str(saved.parent))
    assert isinstance(build(f"~/{saved.name}"), CrossEncoder)


@pytest.mark.parametrize(
    "config",
    [GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=100), ViTConfig(hidden_size=16, num_attention_heads=2)],
    ids=["gpt2", "vit"],
)
def test_not_a_text_encoder(directory, config):
    """Decoders and image models are rejected."""
    config.save_pretrained(directory)
    with pytest.raises(InputError, match="must be a text encoder"):
        build(directory, from_scratch=True)


@pytest.mark.parametrize(
    "architecture",
    [
        {"hidden_size": "abc"},
        {"hidden_size": 0},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"hidden_dropout_prob": 2},
        {"hidden_act": "geluu"},
        {"to_dict": 1},
    ],
    ids=lambda architecture: next(iter(architecture)),
)
def test_invalid_architecture_value(tiny_tokenizer, architecture):
    """An invalid value in model.config_overrides is reported with its key."""
    with pytest.raises(InputError, match=f"model.config_overrides.{next(iter(architecture))}"):
        scratch(tiny_tokenizer, **architecture)


def test_unknown_architecture_key(tiny_tokenizer):
    """The message for an unknown key suggests the nearest one."""
    with pytest.raises(InputError, match="did you mean 'hidden_size'"):
        build_architecture(ModelConfig(from_scratch=True, config_overrides={"hidden_sise": 16}), tiny_tokenizer)


def test_custom_model_signature(plug):
    """A custom model must accept num_labels, vocab_size and pad_token_id."""
    with pytest.raises(InputError, match="vocab_size"):
        check_model_config(ModelConfig(_target_=f"{plug(MINE)}.bare"))


def test_mimetic_init_needs_from_scratch(saved):
    """Mimetic initialisation is rejected for pretrained weights."""
    with pytest.raises(InputError, match="model.mimetic_init=true: only with model.from_scratch"):
        build(saved, mimetic_init=True)
