"""Test the messages for faults of the hub: the name of the model, the reason, and the alternatives."""

import hashlib
import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from file_server import FileServer, serving
from transformers import BertConfig, BertModel

pytestmark = pytest.mark.slow  # a fresh process: HF_HUB_OFFLINE is read when huggingface_hub is imported
ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef" * 2 + "01234567"


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub that a download needs. The first part of the name of a model is its fault."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == [""]:
            self.reply(200)
        elif parts[:2] != ["api", "models"] and parts[2:3] != ["resolve"]:
            self.reply(404)  # further requests of the client
        elif parts[0] == "api":
            self.about(*parts[2:4], "/".join(parts[4:]))
        else:
            self.file(*parts[:2], "/".join(parts[4:]))

    do_GET = do_HEAD

    def about(self, fault, what, question):
        if fault == "silent":
            self.server.closing.wait()
        elif not self.refuse(fault):
            about = {
                "id": f"{fault}/{what}",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in self.server.files],
            }
            self.reply(200, json.dumps([] if question.startswith("tree") else about).encode())

    def file(self, fault, what, name):
        if self.refuse(fault):
            pass
        elif name not in self.server.files or (fault, what) == ("less", name):
            self.reply(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = b"{garbage" if (fault, what) == ("garbage", name) else self.server.files[name]
            sends = len(content) // 2 if (fault, what) == ("cut", name) else len(content)
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.reply(200, content, sends, **{"ETag": tag, "X-Repo-Commit": COMMIT})

    def refuse(self, fault):
        """Answer with an error, if that is the fault."""
        if fault.isdigit():
            self.reply(int(fault))
        elif fault == "gone":
            self.reply(404, **{"X-Error-Code": "RepoNotFound"})
        elif fault == "revised":
            self.reply(404, **{"X-Error-Code": "RevisionNotFound"})
        elif fault == "gated":
            self.reply(403, **{"X-Error-Code": "GatedRepo"})
        elif fault == "portal":
            self.reply(200, b"<html>log in to this network</html>")
        else:
            return False
        return True

    def reply(self, status, body=b"", sends=None, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sends])

    def log_message(self, *_):
        pass


LOAD = """
import json, sys, time
from afqmc.models.config import ModelConfig
from afqmc.models import hub
from afqmc.models.loading import build_model, build_tokenizer
hub.constants.HF_HUB_ETAG_TIMEOUT = 0.2  # 10 s
time.sleep = lambda seconds: None  # the hub's client pauses before it tries again
results = {}
for name in sys.argv[1:]:
    config = ModelConfig(name_or_path=name)
    try:
        build_model(config, build_tokenizer(config, list), ("0", "1"), 32)
        results[name] = []
    except Exception as error:
        results[name] = [type(error).__name__, str(error)]
print(json.dumps(results))
"""

FAULTS = {
    "404/bare": ("tokenizer", "404 Not Found: the model does not exist"),
    "gone/model": ("tokenizer", "404 Not Found: the model does not exist"),
    "revised/model": ("tokenizer", "no such model.revision"),
    "401/bare": ("tokenizer", "401 Unauthorized: .*HF_TOKEN"),
    "gated/model": ("tokenizer", "403 Forbidden: .*HF_TOKEN"),
    "429/busy": ("tokenizer", "429 Too Many Requests"),
    "500/broken": ("tokenizer", "500 Internal Server Error"),
    "503/away": ("tokenizer", "503 Service Unavailable"),
    "portal/html": ("tokenizer", "does not seem to be served by a Hugging Face Hub"),
    "silent/about": ("tokenizer", "timed out"),
    "cut/config.json": ("tokenizer", "closed connection without sending complete message"),
    "cut/tokenizer.json": ("tokenizer", "closed connection without sending complete message"),
    "cut/model.safetensors": ("weights", "closed connection without sending complete message"),
    "less/config.json": ("config", "Unrecognized model"),
    "less/model.safetensors": ("weights", "does not appear to have a file named .*model.safetensors"),
    "garbage/config.json": ("tokenizer", "config.json"),
    "garbage/tokenizer.json": ("tokenizer", "is not valid JSON"),
    "garbage/model.safetensors": ("weights", "is not a safetensors file"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_tokenizer):
    """Load each model in one fresh process; returns the exception type and message per model."""
    saved, home = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("home")
    tiny_tokenizer.save_pretrained(saved)
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tiny_tokenizer), pad_token_id=0, **shape)).save_pretrained(saved)
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    with serving(FileServer(Hub)) as server:
        server.files = files
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        environment |= {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "no_proxy": "*", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, "fine/model", *FAULTS],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_valid_model_is_loaded(results):
    """A valid model is loaded from the hub."""
    assert results["fine/model"] == []


@pytest.mark.parametrize("name", FAULTS)
def test_hub_faults(results, name):
    """Each fault is one message with its reason and the alternatives."""
    kind, message = results[name]
    what, reason = FAULTS[name]
    first, *others = message.splitlines()
    assert kind == "InputError", message
    assert re.match(f"model.name_or_path={name}: cannot get its {what}; tried http.* and the cache: .*{reason}", first)
    assert [line.split(":")[0].strip() for line in others] == [
        *(["a damaged copy"] if name.startswith(("garbage", "less")) else []),
        "a mirror",
        "a local directory",
        "no network",
    ]
