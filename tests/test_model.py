"""The model: pooling by hand, the standard head where there is one, and what cannot be loaded refused by its key."""

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


def classifier(encoder_class, config, pooling, num_labels=2, head_dropout=None):
    encoder = encoder_class(config, **encoder_options(config, pooling))
    return CrossEncoder(encoder, num_labels, pooling, head_dropout).eval()


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
        (Pooling.first_last_mean, [[4, -12], [6, 10]]),
    ],
)
def test_pooling_leaves_padding_out(pooling, expected):
    assert pool(STATES, 3 * STATES, MASK, pooling).tolist() == expected


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_pooling_in_half_precision_stays_finite_and_in_its_type(kind):
    for pooling in (Pooling.mean, Pooling.max):
        found = pool(STATES.to(kind), None, MASK, pooling)
        assert found.dtype is kind
        assert found.isfinite().all()


@pytest.mark.parametrize("pooling", Pooling)
def test_logits_do_not_depend_on_padding(pooling):
    model = classifier(BertModel, BertConfig(**TINY), pooling, num_labels=3)
    found = model(**inputs())
    assert found.shape == (2, 3)
    torch.testing.assert_close(model(**inputs(padding=4)), found)


def test_the_first_and_the_last_layer_are_averaged():
    model = classifier(BertModel, BertConfig(**TINY), Pooling.first_last_mean)
    states = model.encoder(**inputs(), output_hidden_states=True).hidden_states  # embeddings, layer 1, layer 2
    expected = pool((states[1] + states[2]) / 2, None, inputs()["attention_mask"], Pooling.mean)
    torch.testing.assert_close(model(**inputs()), model.classifier(expected))


@pytest.mark.parametrize(
    ("encoder_class", "config_class", "pooling", "expected"),
    [
        (BertModel, BertConfig, Pooling.pooler, True),
        (ErnieModel, ErnieConfig, Pooling.pooler, True),
        (RobertaModel, RobertaConfig, Pooling.pooler, False),  # its head has a layer of its own
        (BertModel, BertConfig, Pooling.cls, False),
        (BertModel, BertConfig, Pooling.mean, False),
    ],
)
def test_a_standard_model_is_bert_or_its_kin_with_its_own_pooler(encoder_class, config_class, pooling, expected):
    assert matches_hf_classifier(classifier(encoder_class, config_class(**TINY), pooling)) is expected
    assert not matches_hf_classifier(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("encoder_class", "config_class"), [(BertModel, BertConfig), (ErnieModel, ErnieConfig)])
def test_transformers_computes_the_same_logits_from_a_standard_models_parameters(encoder_class, config_class):
    config = config_class(**TINY, num_labels=3)
    model = classifier(encoder_class, config, Pooling.pooler, num_labels=3)
    twin = AutoModelForSequenceClassification.from_config(config).eval()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(**inputs()).logits, model(**inputs()))


def test_an_unused_pooler_is_not_built():
    unused = classifier(BertModel, BertConfig(**TINY), Pooling.cls)
    assert not [name for name, _ in unused.named_parameters() if "pooler" in name]
    assert encoder_options(ElectraConfig(**TINY), Pooling.cls) == {}


def test_parameters_are_named_as_in_transformers():
    for encoder_class, config_class, prefix in (
        (BertModel, BertConfig, "bert"),
        (RobertaModel, RobertaConfig, "roberta"),
    ):
        model = classifier(encoder_class, config_class(**TINY), Pooling.cls)
        assert {name.split(".")[0] for name in model.state_dict()} == {prefix, "classifier"}
        assert model.encoder is getattr(model, prefix)


@pytest.mark.parametrize(("head_dropout", "expected"), [(None, 0.3), (0.0, 0.0), (0.7, 0.7)])
def test_the_heads_dropout_is_the_encoders_own_unless_it_is_set(head_dropout, expected):
    config = BertConfig(**TINY, hidden_dropout_prob=0.3)
    model = classifier(BertModel, config, Pooling.cls, head_dropout=head_dropout)
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
        from_scratch=True, architecture=FROM_SCRATCH | architecture, pooling=pooling, mimetic_init=mimetic_init
    )
    return build_model(config, tokenizer, LABELS, max_length)


def change(directory, **settings):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_a_pretraining_checkpoint_is_loaded_in_silence_and_foreign_tensors_are_told(directory, caplog, capfd):
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
    (told,) = caplog.messages
    assert "16 of its tensors are not used, such as encoder.layer." in told


@pytest.mark.parametrize("pooling", [Pooling.cls, Pooling.pooler])
def test_pretrained_weights_are_loaded_from_a_directory_in_float32(saved, pooling):
    model = build(saved, pooling=pooling)
    expected = BertModel.from_pretrained(saved).state_dict()
    for name, tensor in model.encoder.state_dict().items():
        assert tensor.dtype is torch.float32
        assert torch.equal(tensor, expected[name]), name


def test_weights_saved_in_half_precision_are_loaded_in_float32(directory):
    BertModel(BertConfig(**TINY)).half().save_pretrained(directory)
    assert {parameter.dtype for parameter in build(directory).parameters()} == {torch.float32}


def test_from_scratch_takes_the_architecture_and_not_the_weights(directory):
    (directory / "model.safetensors").unlink()
    model = build(directory, from_scratch=True, architecture={"num_hidden_layers": 1})
    assert model.encoder.config.num_hidden_layers == 1
    assert model.encoder.config.hidden_size == 16


def test_from_scratch_without_a_name_has_the_tokenizers_vocabulary(tiny_tokenizer):
    config = scratch(tiny_tokenizer).encoder.config
    assert (config.model_type, config.vocab_size) == ("bert", len(tiny_tokenizer))


def test_a_tokenizer_without_a_name_is_learnt_from_the_sentences():
    tokenizer = build_tokenizer(ModelConfig(from_scratch=True, vocab_size=100), lambda: ["花呗", "借呗"] * 2)
    assert tokenizer.tokenize("花借") == ["花", "借"]


def test_mimetic_attention_starts_with_equal_queries_and_keys(tiny_tokenizer):
    for layer in scratch(tiny_tokenizer, mimetic_init=True).encoder.encoder.layer:
        assert torch.equal(layer.attention.self.query.weight, layer.attention.self.key.weight)


def test_mimetic_attention_is_refused_where_attention_has_other_names(directory):
    change(directory, model_type="distilbert", dim=16, n_heads=2, n_layers=1, hidden_dim=16)
    with pytest.raises(InputError, match="model.mimetic_init=true: not supported for distilbert"):
        build(directory, from_scratch=True, mimetic_init=True)


def test_a_missing_pooler_starts_from_random_weights_and_says_so(directory, caplog):
    BertForMaskedLM(BertConfig(**TINY)).save_pretrained(directory)
    with caplog.at_level(logging.WARNING, logger="afqmc"):
        build(directory, pooling=Pooling.cls)
        build(directory, pooling=Pooling.pooler)
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("afqmc")]
    assert said == f"{directory} has no weights for the pooler, which starts from random weights"


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
def test_a_directory_with_a_missing_or_damaged_file_is_refused(directory, file, content, message):
    path = directory / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=f"model.name_or_path={directory}: {message}"):
        build(directory)


def test_weights_of_a_different_depth_are_refused(directory):
    change(directory, num_hidden_layers=3)
    with pytest.raises(InputError, match=r"different architecture than its config \(bert\): 16 tensors are missing"):
        build(directory)


def test_a_tokenizer_with_more_entries_than_the_model_is_refused(directory, tiny_tokenizer):
    change(directory, vocab_size=10)
    with pytest.raises(InputError, match=f"has {len(tiny_tokenizer)} entries and the model 10: they do not match"):
        build(directory)


def test_an_encoder_decoder_is_refused(directory):
    T5Config(d_model=16, num_layers=1, vocab_size=100).save_pretrained(directory)
    with pytest.raises(InputError, match="its architecture is 't5'; must be a text encoder, such as bert"):
        build(directory)


def test_code_that_comes_with_a_model_is_not_run(directory):
    (directory / "mine.py").write_text("raise SystemExit('was run')")
    change(directory, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    with pytest.raises(InputError, match="no usable config in this directory: .*custom code"):
        build(directory)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "some/relative/path"])
def test_a_directory_that_is_not_there_is_refused_as_such(name):
    with pytest.raises(InputError, match=f"model.name_or_path={name}: no such directory$"):
        build(name)


def test_a_hub_id_that_cannot_be_had_is_refused_with_the_other_ways():
    hub.hub_failure.cache_clear()
    with pytest.raises(
        InputError, match="model.name_or_path=nobody/nothing: cannot get its tokenizer; tried "
    ) as refused:
        build("nobody/nothing")
    for way in (
        "(no answer: OfflineModeIsEnabled: ",
        "HF_ENDPOINT=",
        "model.name_or_path=DIR",
        "experiment=quickstart",
    ):
        assert way in str(refused.value)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"hidden_sise": 16}, "model.architecture.hidden_sise: bert has no such setting"),
        ({"hidden_size": 17}, "model.architecture.hidden_size=17: must be a multiple of num_attention_heads=2"),
        ({"max_position_embeddings": 16}, "dataset.max_length=32: this model has 16 positions; must be <= 16"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused_by_its_key(tiny_tokenizer, architecture, message):
    with pytest.raises(InputError, match=message):
        scratch(tiny_tokenizer, **architecture)


def test_the_architecture_of_pretrained_weights_is_not_changed(saved):
    with pytest.raises(InputError, match=r"model.architecture.num_hidden_layers=1: only with model.from_scratch=true"):
        build(saved, architecture={"num_hidden_layers": 1})


def test_a_pooler_that_the_encoder_lacks_is_refused(directory):
    change(directory, model_type="electra", embedding_size=16)
    with pytest.raises(InputError, match="model.pooling=pooler: electra has no pooler; allowed: cls, mean, max, first_last_mean"):
        build(directory, from_scratch=True, pooling=Pooling.pooler)


def test_roberta_has_fewer_positions_than_embeddings_of_them(tiny_tokenizer):
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


def test_a_model_of_ones_own_module_is_plugged_in_with_its_arguments(plug, tiny_tokenizer):
    config = ModelConfig(_target_=f"{plug(MINE)}.Bag", args={"width": 4})
    model = build_model(config, tiny_tokenizer, LABELS, 32)
    assert model.bag.weight.shape == (len(tiny_tokenizer), 4)
    assert model(**inputs()).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Bag", {"widht": 4}, r"model.args.widht: Bag has no such argument; did you mean 'width'\?"),
        ("Bog", {}, r"model._target_=.*Bog: .* has no 'Bog'; did you mean 'Bag'\?"),
        ("number", {}, "model._target_=.*number: returned int; must be a torch.nn.Module"),
        ("broken", {}, "model._target_=.*broken: raised KeyError: 'nothing'"),
        ("Wide", {}, r"model._target_=.*Wide: for 2 pairs it returned \(2, 1, 2\); must be .* here \(2, 2\)"),
        ("Deaf", {}, r"model._target_=.*Deaf: called with input_ids, .*, it raised TypeError: .*unexpected keyword"),
        ("Dict", {}, "model._target_=.*Dict: for 2 pairs it returned dict; must be logits"),
    ],
)
def test_a_wrong_model_of_ones_own_is_refused_by_its_key(plug, tiny_tokenizer, name, args, message):
    with pytest.raises(InputError, match=message):
        build_model(ModelConfig(_target_=f"{plug(MINE)}.{name}", args=args), tiny_tokenizer, LABELS, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "model.name_or_path: is not set; give a hub id or a directory, or model.from_scratch=true"),
        ({"from_scratch": True, "args": {"width": 1}}, "model.args: only with model._target_"),
    ],
)
def test_a_config_that_names_no_model_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        check_model_config(ModelConfig(**settings))


def test_a_directory_without_a_tokenizer_is_refused(directory):
    for file in directory.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        build(directory)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_weights_are_refused(directory, file):
    (directory / "model.safetensors").rename(directory / file)
    (directory / file).write_bytes((directory / file).read_bytes()[:1000])
    with pytest.raises(InputError, match="no usable weights in this directory"):
        build(directory)


def test_weights_of_a_different_width_are_refused_with_a_reason(directory):
    change(directory, hidden_size=32)
    with pytest.raises(InputError, match=r"different architecture than its config \(bert\)"):
        build(directory)


def test_a_directory_may_be_named_from_home(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert isinstance(build(f"~/{saved.name}"), CrossEncoder)


@pytest.mark.parametrize(
    "config",
    [GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=100), ViTConfig(hidden_size=16, num_attention_heads=2)],
    ids=["gpt2", "vit"],
)
def test_what_is_no_text_encoder_is_refused(directory, config):
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
    ids=lambda found: next(iter(found)),
)
def test_a_value_that_an_architecture_cannot_have_is_refused_by_its_key(tiny_tokenizer, architecture):
    with pytest.raises(InputError, match=f"model.architecture.{next(iter(architecture))}"):
        scratch(tiny_tokenizer, **architecture)


def test_an_unknown_key_of_the_architecture_is_refused_with_the_nearest(tiny_tokenizer):
    with pytest.raises(InputError, match="did you mean 'hidden_size'"):
        build_architecture(ModelConfig(from_scratch=True, architecture={"hidden_sise": 16}), tiny_tokenizer)


def test_a_model_of_ones_own_that_does_not_take_what_it_is_given_is_refused(plug):
    with pytest.raises(InputError, match="vocab_size"):
        check_model_config(ModelConfig(_target_=f"{plug(MINE)}.bare"))


def test_mimetic_attention_is_refused_with_pretrained_weights(saved):
    with pytest.raises(InputError, match="model.mimetic_init=true: only with model.from_scratch"):
        build(saved, mimetic_init=True)
