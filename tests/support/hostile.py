"""Malicious changes to a run directory. Each payload creates a canary file if its code is ever executed.

``plant(name, run, canary)`` changes a copy of a finished run. The payloads in ``HARMLESS`` add files that commands do
not need and must ignore. Those in ``REFUSED`` replace a file that commands do need; the expected message is given.
"""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

_CODE = """
import pathlib
pathlib.Path({canary!r}).touch()
from transformers import BertConfig, BertModel, BertTokenizer
class EvilConfig(BertConfig): model_type = "evil"
class EvilModel(BertModel): config_class = EvilConfig
class EvilTokenizer(BertTokenizer): pass
def build(*_, **__): return None
"""


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


def best(run: Path) -> Path:
    """Return the directory of the best weights."""
    return run / "checkpoints/best"


def change_json(path: Path, **entries) -> None:
    """Set keys of a JSON object."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")


def change_config(run: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text in config.yaml."""
    text = (run / "config.yaml").read_text("utf-8")
    assert text.count(old) >= 1, old
    (run / "config.yaml").write_text(text.replace(old, new, 1), "utf-8")


def plant_code(directory: Path, canary: Path) -> None:
    """Write modules under names that transformers, Hydra or Python itself might import."""
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil", "evil", "torch", "json", "sitecustomize"):
        (directory / f"{name}.py").write_text(_CODE.format(canary=str(canary)), "utf-8")


def _pickles(run: Path, canary: Path) -> None:
    last = run / "checkpoints/last"
    last.mkdir(exist_ok=True)
    for directory in (run, best(run), last):
        for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin"):
            torch.save({"state": Pickled(canary)}, directory / name)
        for name in ("random_states_0.pkl", "rng_state.pth", "custom_checkpoint_0.pkl"):
            (directory / name).write_bytes(pickle.dumps(Pickled(canary)))
        torch.save({"bert.embeddings.word_embeddings.weight": Pickled(canary)}, directory / "pytorch_model.bin")


def _code_files(run: Path, canary: Path) -> None:
    plant_code(best(run), canary)
    plant_code(run, canary)
    auto = {"AutoConfig": "configuration_evil.EvilConfig", "AutoModel": "modeling_evil.EvilModel"}
    change_json(best(run) / "config.json", auto_map=auto, trust_remote_code=True, architectures=["EvilModel"])
    auto = {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]}
    change_json(best(run) / "tokenizer_config.json", auto_map=auto, trust_remote_code=True)


def _templates(run: Path, canary: Path) -> None:
    call = f"{{{{ ''.__class__.__mro__[1].__subclasses__()[-1].__init__.__globals__['os'].system('touch {canary}') }}}}"
    (best(run) / "chat_template.jinja").write_text(call, "utf-8")
    change_json(best(run) / "tokenizer_config.json", chat_template=call)


def _targets(run: Path, canary: Path) -> None:
    plant_code(run, canary)
    text = (run / "config.yaml").read_text("utf-8")
    start, end = text.index("optimizer:"), text.index("trainer:")
    groups = f"optimizer:\n  _target_: os.system\n  command: touch {canary}\nscheduler:\n  _target_: evil.build\n"
    (run / "config.yaml").write_text(text[:start] + groups + text[end:], "utf-8")


def _hydra(run: Path, canary: Path) -> None:
    (run / ".hydra").mkdir(exist_ok=True)
    callback = f"hydra:\n  callbacks:\n    a:\n      _target_: os.system\n      command: touch {canary}\n"
    for name in ("config.yaml", "hydra.yaml"):
        (run / ".hydra" / name).write_text(callback, "utf-8")
    (run / ".hydra/overrides.yaml").write_text("- model._target_=evil.build\n", "utf-8")


def _tracker(run: Path, canary: Path) -> None:
    change_config(run, "backend: none\n  mode: auto", "backend: wandb\n  mode: online")
    change_config(run, "project: afqmc", "project: stolen")


def _json(name: str, **entries) -> Callable[[Path, Path], None]:
    return lambda run, _: change_json(best(run) / name, **entries)


def _bytes(name: str, content: bytes) -> Callable[[Path, Path], None]:
    return lambda run, _: (run / name).write_bytes(content) and None


def _notes(value: str) -> Callable[[Path, Path], None]:
    return lambda run, canary: change_config(run, "notes: null", f"notes: {value.format(canary=canary)}")


def _pickled_weights(run: Path, canary: Path) -> None:
    (best(run) / "model.safetensors").write_bytes(pickle.dumps(Pickled(canary)))


def _saved_weights(run: Path, canary: Path) -> None:
    torch.save({"weight": Pickled(canary)}, best(run) / "model.safetensors")


def _custom_model(run: Path, canary: Path) -> None:
    _code_files(run, canary)
    change_json(best(run) / "config.json", model_type="evil")


def _custom_tokenizer(run: Path, canary: Path) -> None:
    _custom_model(run, canary)
    change_json(best(run) / "tokenizer_config.json", tokenizer_class="EvilTokenizer")


def _tokenizer_class(name: str) -> Callable[[Path, Path], None]:
    """Name a transformers class that does not get trust_remote_code=False, and so would ask on the terminal."""

    def plant(run: Path, canary: Path) -> None:
        _custom_model(run, canary)
        change_json(best(run) / "tokenizer_config.json", tokenizer_class=name)

    return plant


def _own_target(target: str) -> Callable[[Path, Path], None]:
    def plant(run: Path, canary: Path) -> None:
        plant_code(run, canary)
        change_config(run, "_target_: null", f"_target_: {target}")

    return plant


def _other_config_file(run: Path, canary: Path) -> None:
    settings = json.loads((best(run) / "config.json").read_text("utf-8"))
    evil = settings | {"attn_implementation": "evil/kernel"}
    (best(run) / "config.4.0.0.json").write_text(json.dumps(evil), "utf-8")
    change_json(best(run) / "config.json", configuration_files=["config.4.0.0.json"])


def _replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def plant(run: Path, _: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return plant


_PARTS = ("config.yaml", *(f"checkpoints/best/{name}" for name in (
    "config.json", "decision.json", "labels.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
)))  # fmt: skip
_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
_DEEP = b"[" * 100_000 + b"]" * 100_000
_LABELS = (b'{"0": 1, "1": 2}', b"[0, 1]", b'["0"]', b'["0", "0"]', b'"01"', b'[["0"], ["1"]]', b"null", b"[", b"\xff")

HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    "pickles": _pickles,
    "code files": _code_files,
    "templates": _templates,
    "optimizer and scheduler targets": _targets,
    "hydra files": _hydra,
    "tracker": _tracker,
}
REFUSED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "pickled weights": (_pickled_weights, "model.safetensors: not readable as safetensors"),
    "torch.save weights": (_saved_weights, "model.safetensors: not readable as safetensors"),
    "custom model class": (_custom_model, "config.json: not usable"),
    "custom tokenizer class": (_custom_tokenizer, "config.json: not usable"),
    "model as tokenizer": (_tokenizer_class("AutoModel"), "tokenizer_class=AutoModel: not a tokenizer"),
    "prompting tokenizer": (_tokenizer_class("AutoTokenizerFast"), "AutoTokenizerFast: not a tokenizer"),
    "function as tokenizer": (_tokenizer_class("pipeline"), "tokenizer_class=pipeline: not a tokenizer"),
    "list as tokenizer": (_json("tokenizer_config.json", tokenizer_class=["os"]), "must be a text"),
    "hub attention": (_json("config.json", attn_implementation="evil/kernel"), "evil/kernel"),
    "hub attention, private key": (_json("config.json", _attn_implementation="evil/kernel"), "evil/kernel"),
    "hub attention of a submodule": (_json("config.json", sub={"attn_implementation": {"": "evil/k"}}), "evil/k"),
    "downloadable attention": (
        _json("config.json", attn_implementation="flash_attention_2"),
        "allowed: eager",
    ),
    "other config file": (_other_config_file, "configuration_files"),
    "image encoder": (_json("config.json", model_type="vit"), "a vit is not a text encoder"),
    "standard library target": (
        _own_target("os.system"),
        "model._target_=os.system is untrusted code; --trust runs it",
    ),
    "run directory target": (
        _own_target("evil.build"),
        "model._target_=evil.build is untrusted code; --trust runs it",
    ),
    "interpolation": (_notes("${{oc.env:HOME}}"), "a saved config is literal"),
    "YAML apply tag": (_notes("!!python/object/apply:os.system ['touch {canary}']"), "config.yaml: not readable YAML"),
    "YAML new tag": (_notes("!!python/object/new:os.system ['touch {canary}']"), "config.yaml: not readable YAML"),
    "YAML alias bomb": (
        lambda run, _: (run / "config.yaml").write_text(_BOMB, "utf-8") and None,
        "aliases are not followed",
    ),
    "deep config": (_bytes("config.yaml", _DEEP), "config.yaml:1: nested deeper than 20 levels"),
    "huge config": (_bytes("config.yaml", b"a: " + b"x" * (1 << 21)), "a run's config has at most 1048576"),
    "number as group": (_bytes("config.yaml", b"dataset: 3\n"), "config.yaml: not a run's config"),
    "list as config": (_bytes("config.yaml", b"[1]\n"), "config.yaml: not a run's config"),
    "binary config": (_bytes("config.yaml", b"\xff\xfe\x00"), "config.yaml: not readable YAML"),
    "deep model config": (_bytes("checkpoints/best/config.json", _DEEP), "config.json: not readable as JSON"),
    "list as model config": (_bytes("checkpoints/best/config.json", b"[]"), "must be a JSON object"),
    "deep tokenizer config": (
        _bytes("checkpoints/best/tokenizer_config.json", b'{"a": ' * 400 + b"1" + b"}" * 400),
        "tokenizer_config.json: nested deeper than 32 levels",
    ),
    "deep vocabulary": (_bytes("checkpoints/best/tokenizer.json", _DEEP), "checkpoints/best: not usable"),
    **{f"FIFO as {name}": (_replaced(name, os.mkfifo), "not a regular file (a FIFO)") for name in _PARTS},
    **{
        f"device as {name}": (_replaced(name, lambda path: path.symlink_to("/dev/zero")), "a regular file (a device)")
        for name in _PARTS
    },
    "FIFO as unused file": (
        lambda run, _: os.mkfifo(best(run) / "vocab.txt"),
        "vocab.txt: not a regular file (a FIFO)",
    ),
    "many layers": (_json("config.json", num_hidden_layers=10**5), "num_hidden_layers=100000: the weights have"),
    "many classes": (_json("config.json", num_labels=10**9), "num_labels counts 1000000000 classes, labels.json 2"),
    "large hidden size": (_json("config.json", hidden_size=10**9), "its weights do not fit its config"),
    "large vocabulary": (_json("config.json", vocab_size=10**9), "its weights do not fit its config"),
    "many labels": (
        lambda run, _: (best(run) / "labels.json").write_text(json.dumps([*map(str, range(10**6))])) and None,
        "classes, labels.json 1000000",
    ),
    "deep decision": (_bytes("checkpoints/best/decision.json", _DEEP), "decision.json: not readable as JSON"),
    "text as temperature": (_json("decision.json", temperature="1"), "temperature: must be a number from"),
    "infinite temperature": (_json("decision.json", temperature=float("inf")), "temperature: must be a number from"),
    "deep labels": (_bytes("checkpoints/best/labels.json", _DEEP), "labels.json: not readable as JSON"),
    **{
        f"labels {content!r}": (_bytes("checkpoints/best/labels.json", content), "labels.json: ") for content in _LABELS
    },
}


def plant(name: str, run: Path, canary: Path) -> None:
    """Apply the payload of that name to a run directory."""
    payload = HARMLESS.get(name) or REFUSED[name][0]
    payload(run, canary)
