"""Secrets are recognized by name, position or format, and appear nowhere but in config.yaml."""

import json
import logging
import sys

import pytest
import yaml
from helpers import SMALL, command
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wandb_file import Offline

from afqmc import config as schema
from afqmc import run as entry
from afqmc.cli import run_command
from afqmc.utils.redaction import RedactingFormatter, redacted, redacted_argument, redacted_tree
from afqmc.utils.secret_names import is_secret

GIVEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def given_secrets(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", GIVEN)
    monkeypatch.setenv("SHORT_TOKEN", "an")


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "HF_TOKEN", "DB_PASSWORD", "MY_SECRET", "hfToken", "HFToken", "apikey", "model.kwargs.passwd",
     "GH_PAT", "+model.kwargs.auth.user", "credential", "AWS_SECRET_ACCESS_KEY", "X-Amz-Signature", "accesstoken",
     "pass", "DB_PASS", "dbpass", "secretkey", "accesskey",
     "privatekey", "authkey", "passkey", "passcode", "jwt", "bearer", "tokens", "access_tokens", "apikeys", "APIKeys",
     "token_value", "sas", "otp", "api_key_2", "q[token]", "Ocp-Apim-Subscription-Key", "X-Goog-Api-Key",
     "PRIVATE-TOKEN", "--api-key", "awssecretaccesskey", "smtp.pw", "accessTokens"],
)  # fmt: skip
def test_secret_names(name):
    """These are names of secrets."""
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["dataset.max_tokens_per_batch", "pad_token_id", "key_size", "tokenizer", "author", "monkey", "label_field", "lr",
     "keyword", "dataset.checksums", "max_new_tokens", "seed", "", "1e-5", "turkey", "trainer.padding_free", "bypass",
     "max_tokens_per_batch", "passes", "n_tokens", "compass", "past_key_values", "token_type_ids", "special_tokens",
     "keys_per_row", "passthrough", "jwt_algorithm", "assassin", "hotkey"],
)  # fmt: skip
def test_ordinary_names(name):
    """These names only resemble names of secrets."""
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"before {GIVEN}after", "before ***after"),
        ("an ordinary word", "an ordinary word"),
        ("https://me:pass@host.example:80/a.zip", "https://***@host.example:80/a.zip"),
        ("https://host/a.zip?x=1&token=abc&y=2#z", "https://host/a.zip?x=1&token=***&y=2#z"),
        ("dataset.url=https://u@host/a?sig=abc: gone", "dataset.url=https://***@host/a?sig=*** gone"),
        ("optimizer.token=abc, and the rest", "optimizer.token=***, and the rest"),
        ('client(password="a b", n=1)', "client(password=***, n=1)"),
        ("postgresql+psycopg2://bob:a/S3C?R#ET@x@db/name", "postgresql+psycopg2://***@db/name"),
        ("Authorization: Bearer abc.def/ghi=", "Authorization: ***"),
        ("{'Authorization': 'Bearer abc def'}", "{'Authorization': '***'}"),
        ("curl -H 'X-Api-Key: a b@c' https://h", "curl -H 'X-Api-Key: ***' https://h"),
        ("asked with Bearer abcdef", "asked with Bearer ***"),
        ("lr=1e-5 of 借=呗, mail a@b.example", "lr=1e-5 of 借=呗, mail a@b.example"),
    ],
)
def test_redacted_text(text, clean):
    """Secrets in a text are redacted, and redacting twice changes nothing."""
    assert redacted(text) == clean
    assert redacted(clean) == clean


@pytest.mark.parametrize(
    ("argument", "clean"),
    [
        ("+model.kwargs.api_key=abc", "+model.kwargs.api_key=***"),
        ("+model.kwargs.token=a,b", "+model.kwargs.token=***"),
        ("model.kwargs={token: abc, width: 3}", "model.kwargs={token: ***, width: 3}"),
        ("dataset.max_tokens_per_batch=2048", "dataset.max_tokens_per_batch=2048"),
        ("-m", "-m"),
    ],
)
def test_redacted_override(argument, clean):
    """The secret value of an override is redacted."""
    assert redacted_argument(argument) == clean


@pytest.mark.parametrize(
    "text",
    ["https://h/p?mail=a@b", "write to a@b.example, or c@d.example", "user@host:path/to", "git@host.example:a/b.git",
     "https://host/a@v1.zip", "Basic text, Bearer: none", "unknown key: lr", "lr: has no value; write key=value",
     "cookies are off: see {a: 1, b: [2]}",
     "the token indices are longer than 512", "https://host:8080/a?b=c"],
)  # fmt: skip
def test_ordinary_text(text):
    """Text without secrets is unchanged."""
    assert redacted(text) == redacted_argument(text) == redacted_tree([text])[0] == text


CORE = "Zq7Kx9"
PRINTABLE = "".join(map(chr, range(33, 127)))
HEADERS = ["Authorization: Bearer {}", "Authorization: Token {}", "Proxy-Authorization: Basic {}", "X-Api-Key: {}",
           "Cookie: id={}"]  # fmt: skip
ADDRESSES = ["postgresql+psycopg2://bob:{}@host/db?x=y", "redis://:{}@host", "https://bob:{}@host.example:80/a.zip#b"]
KEYS = ["Authorization", "X-Api-Key", "cookie", "api_key", "password", "hf.token"]


def each_character(test):
    """Add an example with each printable character around a secret."""
    for sign in PRINTABLE:
        test = example(f"{sign}{CORE}{sign}{CORE}")(test)
    return test


def in_texts(value):
    """Return texts that quote a value as logs, tracebacks and files do."""
    return [
        *(write(value) for write in (str, repr, json.dumps)),
        json.dumps(json.dumps({"value": value})),
        yaml.dump({"value": value}, width=10_000, default_style="'"),
        yaml.dump({"value": value}, width=10_000, default_style='"'),
        repr(["run.py", f"model.name={value}"]),
    ]


def line_of(value):
    try:
        raise ConnectionError(f"no answer: {value}")
    except ConnectionError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "with %s", (value,), sys.exc_info())
    return RedactingFormatter("%(message)s").format(record)


@settings(max_examples=60, deadline=None)
@example(f"':{CORE}")
@each_character
@given(st.builds(f"{{}}{CORE}{{}}".format, *[st.text(PRINTABLE, max_size=6)] * 2))
def test_any_character_in_secret(secret):
    """A secret with any printable character is redacted completely."""
    for value in [form.format(secret) for form in ADDRESSES + HEADERS]:
        shown = [redacted_argument(f"hydra.sweeper.storage={value}"), redacted_argument(value), line_of(value)]
        shown += [*map(redacted, in_texts(value)), json.dumps(redacted_tree({"a": value, "b": [[value]], value: 1}))]
        assert [text for text in shown if CORE in text] == [], value
    for key in KEYS:
        shown = [redacted_tree({"a": {key: f"Bearer {secret}"}, "b": [{key: [secret]}]})]
        shown += [redacted_argument(f"+model.kwargs.{key}={secret}"), redacted(json.dumps({"a": {key: secret}}))]
        shown += [redacted(repr({key: secret})), line_of({key: secret}), line_of(f"{key}={secret}")]
        assert [text for text in shown if CORE in str(text)] == [], key
    assert CORE not in str(redacted_tree([["Authorization", f"Token {secret}"], [f"Bearer {secret}"]]))


@settings(max_examples=60, deadline=None)
@given(st.builds(f"{{}}{CORE}{{}}".format, *[st.text(PRINTABLE + "  ", max_size=6)] * 2))
def test_spaces_in_quoted_secret(secret):
    """A quoted secret with spaces is redacted completely."""
    for value in [form.format(secret) for form in ADDRESSES + HEADERS]:
        shown = [redacted_argument(f"hydra.sweeper.storage={value}"), *map(redacted, in_texts(value)[1:])]
        shown += [str(redacted_tree({"a": value, "b": [value]}))]
        assert [text for text in shown if CORE in text] == [], value
    for key in KEYS:
        shown = [redacted(json.dumps({key: secret})), redacted(repr({key: secret})), redacted(f"{key}={secret!r}")]
        assert [text for text in shown if CORE in text] == [], key


NAMES = ["db_pass", "DB_PASS", "secretkey", "accesskey", "privatekey", "authkey", "passkey", "passcode", "jwt",
         "access_tokens", "apikeys", "token_value", "api-key", "PRIVATE-TOKEN", "X-Auth-Token", "X-Goog-Api-Key",
         "Ocp-Apim-Subscription-Key", "X-Api-Token", "token", "wandb_key", "hfToken", "client_secret"]  # fmt: skip
TEXTS = ["{name}: {secret}", "['{name}: {secret}']", "{name}:{secret}", "curl -H '{name}: {secret}' https://h",
         "with {name}: {secret}, and so on", "--{name} {secret}", "run --{name} '{secret}' --lr 1", "--{name}={secret}",
         "['run', '--{name}', '{secret}']", "https://h/p?a=b&{name}={secret}&c=d", "https://h/?q[{name}]={secret}",
         "+a.{name}={secret}", "+env={{A_{name}:{secret},b:c}}", '{{"{name}": "{secret}"}}',
         "{name}={secret}"]  # fmt: skip
SECRET_TEXTS = [
    "curl -u bob:{} https://h", "curl --user 'bob:{}' https://h", "['curl', '-u', 'bob:{}']", "//bob:{}@h",
    "bob:{}@h/n", "at bob:{}@host.example:5432/n now", "url=//bob:{}@h/n", "https://h/p?api%5Fkey={}", "https://h/p?jwt={}&a=b",
    "https://h/p?pass={}", "hf_{}aB3dE5fG7h", "ghp_{}aB3dE5fG7h", "glpat-{}aB3dE5fG7h", "sk-{}aB3dE5fG7h",
]  # fmt: skip


def everywhere(value):
    """Return a text as redacted in each way in which texts are written."""
    tree = {"a": value, "b": [value, [value]]}
    shown = [redacted_argument(f"tracker.tags=['{value}']"), redacted_argument(value), line_of(value), redacted(value)]
    return [*shown, json.dumps(redacted_tree(tree)), redacted(json.dumps(tree))]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_all_notations(name):
    """The same names are secret as keys, headers, options and query parameters."""
    for text in TEXTS:
        value = text.format(name=name, secret=CORE)
        assert [shown for shown in everywhere(value) if CORE in shown] == [], value
    shown = [redacted_tree({name: CORE}), redacted_tree({name: [CORE]}), redacted_tree({name: {"a": CORE}})]
    shown += [redacted_tree([f"--{name}", CORE]), redacted_tree([[name, CORE]]), redacted_argument(f"a.{name}={CORE}")]
    assert CORE not in str(shown)


@pytest.mark.parametrize("text", SECRET_TEXTS)
def test_credentials(text):
    """Credentials are recognized by their position or format."""
    assert [shown for shown in everywhere(text.format(CORE)) if CORE in shown] == []


@pytest.mark.parametrize(
    "argument",
    ["dataset.max_tokens_per_batch=4096,8192", "tokens=512", "tokens=[1,2]", "+a.use_auth=true", "token=null",
     "passes=3",
     "trainer.padding_free=true", "dataset.batching=token_budget", "filter=bypass", "image=repo/a:b@sha256:0a",
     "model.name_or_path=hf_transformers_model", "mail=mailto:a@b.example", "sk-learn", "optimizer@a:b",
     "trainer.token: unknown key; legal: a, b", "tokens: 512 of 600", "12:30@noon", "-u a.py", "sort -u names.txt",
     "model.kwargs.tokens: not a number", "token: not known here"],
)  # fmt: skip
def test_ordinary_values(argument):
    """Numbers, booleans and ordinary words are unchanged."""
    assert redacted(argument) == redacted_argument(argument) == redacted_tree([argument])[0] == argument


def test_token_counts():
    """Numbers named tokens are unchanged; texts with such a name are redacted."""
    counts = {"tokens": {"train": 512, "dev": [1, 2.5]}, "auth": False, "max_tokens_per_batch": "x"}
    tree = {**counts, "access_tokens": ["abc"]}
    assert redacted_tree(tree) == {**tree, "access_tokens": ["***"]}


def test_working_directory(monkeypatch):
    """PWD and OLDPWD are not passwords."""
    monkeypatch.setenv("PWD", "/elsewhere")
    monkeypatch.setenv("OLDPWD", "/elsewhere/again")
    assert redacted("/elsewhere/again/run: no such directory") == "/elsewhere/again/run: no such directory"


def test_redacted_tree():
    """Secrets in nested containers are redacted; the rest is equal."""
    tree = {"args": {"token": "x", "auth": {"user": "me"}, "key": None, "password": 123, "n": [1, f"a {GIVEN}"]}}
    clean = {"args": {"token": "***", "auth": "***", "key": None, "password": "***", "n": [1, "a ***"]}}
    assert redacted_tree(tree) == clean


def test_redacted_traceback():
    """Secrets in the traceback of a log record are redacted."""
    try:
        raise ValueError(f"not with {GIVEN}")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "key %s", (f"{GIVEN}\x1b[2J",), sys.exc_info())
    line = RedactingFormatter("%(message)s").format(record)
    assert line.startswith("key ***\\x1b[2J\n")
    assert line.endswith("ValueError: not with ***")


def test_long_text():
    """Redacting takes linear time."""
    text = "借" * 200_000 + "://" + "a" * 200_000 + " " + "x.y=1 " * 20_000
    assert redacted(text) == text
    assert redacted("://" * 50_000) == "://" * 50_000


MODEL = """
import logging, os, torch

class Model(torch.nn.Module):
    def __init__(self, num_labels, vocab_size, pad_token_id, api_key, login):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(vocab_size, 8), torch.nn.Linear(8, num_labels)
        log = logging.getLogger("mine")
        log.info("asking with %s and %s", api_key, os.environ["WANDB_API_KEY"])
        try:
            raise ConnectionError(f"https://me:{login['password']}@host.example/?token={os.environ['HF_TOKEN']}")
        except ConnectionError:
            log.exception("no answer")

    def forward(self, input_ids, **_):
        return self.head(self.embedding(input_ids).mean(dim=1))
"""
SECRETS = {
    "an override": "override-5c1d77aa",
    "a member of one": "member-19b2e04f",
    "an address": "user-83aa0c55",
    "a query": "query-b4d2",  # short, but recognized by its position
    "the key of W&B": "wandb" + "7" * 35,
    "the token of the hub": "hf_Zx81kLm2Qw",
}


@pytest.fixture(scope="module")
def secret_run(tmp_path_factory):
    """Directory and output of a run that gets secrets in every way, with an offline W&B run."""
    home = tmp_path_factory.mktemp("home")
    (home / "my_module.py").write_text(MODEL, "utf-8")
    override, member, user, query, wandb, hub = SECRETS.values()
    done = command(
        "run", *SMALL, "tracker=wandb", "tracker.mode=offline", f"tracker.notes=made with {wandb}",
        "model._target_=my_module.Model", f"+model.kwargs.api_key={override}",
        f"+model.kwargs.login={{user: me, password: {member}}}",
        f"dataset.url=https://me:{user}@host.example/a.zip?token={query}",
        "trainer.max_steps=2", "hydra.run.dir=run",
        cwd=home, env={"WANDB_API_KEY": wandb, "HF_TOKEN": hub},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home / "run", done.stdout + done.stderr


@pytest.mark.parametrize("name", SECRETS)
def test_run_files_contain_no_secret(name, secret_run):
    """A run writes secrets to no file but config.yaml, and does not print them."""
    run, printed = secret_run
    secret = SECRETS[name]
    assert secret not in printed
    written = [path for path in run.rglob("*") if path.is_file() and ".hydra" not in path.parts]
    assert {path.name for path in written} >= {"environment.json", "status.json", "run.log", "summary.json"}
    holding = [path.name for path in written if secret.encode() in path.read_bytes()]
    assert holding in ([], ["config.yaml"])  # needed to resume and evaluate the run


def test_run_files_mark_redactions(secret_run):
    """Files of a run show where secrets were redacted."""
    run, printed = secret_run
    command_line = json.loads((run / "environment.json").read_text("utf-8"))["command"]
    assert "+model.kwargs.api_key=***" in command_line
    assert "password: ***" in command_line
    assert "https://***@host.example/a.zip?token=***" in command_line
    log = (run / "run.log").read_text("utf-8")
    assert "asking with *** and ***" in log
    assert "ConnectionError: https://***@host.example/?token=***" in log
    assert "asking with *** and ***" in printed


def test_tracker_config(secret_run):
    """The tracker gets the config without secrets."""
    offline = Offline(secret_run[0])
    assert offline.config["model"]["kwargs"] == {"api_key": "***", "login": {"user": "me", "password": "***"}}
    assert offline.config["dataset"]["url"] == "https://***@host.example/a.zip?token=***"
    assert offline.run.notes == "made with ***"


def test_config_keeps_secrets(secret_run):
    """config.yaml keeps the secrets, which are needed to resume."""
    assert schema.load(secret_run[0]).model.kwargs["api_key"] == SECRETS["an override"]


def test_failed_run(plug, tmp_path, monkeypatch, capsys):
    """The error of a failed run is printed and saved without secrets."""
    source = MODEL.replace("return", f"assert not self.training, 'no answer to {GIVEN}'\n        return")
    monkeypatch.setenv("WANDB_API_KEY", GIVEN)
    monkeypatch.setenv("HF_TOKEN", GIVEN)
    monkeypatch.chdir(tmp_path)
    args = "+model.kwargs={api_key: a, login: {password: b}}"
    monkeypatch.setattr(
        sys, "argv", ["afqmc.run", *SMALL, f"model._target_={plug(source)}.Model", args, "hydra.run.dir=run"]
    )
    assert run_command(entry.main) == 1
    status = json.loads((tmp_path / "run/status.json").read_text("utf-8"))
    assert status["error"].startswith("AssertionError: no answer to ***")
    assert "no answer to ***" in status["traceback"]
    printed = capsys.readouterr()
    assert "no answer to ***" in printed.err
    for text in (json.dumps(status), printed.out, printed.err, (tmp_path / "run/run.log").read_text("utf-8")):
        assert GIVEN not in text


OPTIMIZER = """
import torch

class Failing(torch.optim.AdamW):
    def __init__(self, params, lr, api_key, **others):
        super().__init__(params, lr)
        self.api_key = api_key

    def step(self, closure=None):
        raise RuntimeError(f"no answer for api_key={self.api_key}")
"""


@pytest.mark.slow
def test_sweep(plug, tmp_path, monkeypatch, capsys):
    """A sweep prints and writes no secrets of its jobs."""
    monkeypatch.chdir(tmp_path)
    arguments = ["-m", *SMALL, "hydra.sweep.dir=sweep", f"optimizer._target_={plug(OPTIMIZER)}.Failing"]
    secrets = ["+hydra.job.env_set={DB_PASS:alephdb,PRIVATE_TOKEN:alepht}", "tracker.tags=['PRIVATE-TOKEN: alephh']"]
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *arguments, *secrets, "+optimizer.api_key=aleph"])
    assert run_command(entry.main) == 1
    printed = capsys.readouterr()
    assert "1 failed: sweep" in printed.err
    assert "aleph" not in printed.out + printed.err
    for name in ("multirun.yaml", "sweep.json", "results.csv", "results.jsonl"):
        text = (tmp_path / "sweep" / name).read_text("utf-8")
        assert "aleph" not in text
        assert "***" in text
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *arguments, "+optimizer.api_key=beta,gamma"])
    assert run_command(entry.main) == 2
    printed = capsys.readouterr()
    assert "differ only in a secret" in printed.err
    assert "beta" not in printed.out + printed.err


def test_message_control_characters(capsys):
    """Control characters in an error message are escaped."""

    def fails():
        raise OSError("a\x1b[2J\x9b1m\u202eb\nc\t借")

    assert run_command(fails) == 1
    assert "a\\x1b[2J\\x9b1m\\u202eb\nc\t借" in capsys.readouterr().err


def test_printed_traceback(monkeypatch, capsys):
    """Secrets in a printed traceback are redacted."""

    def fails():
        raise OSError(f"https://me:{GIVEN}@host.example does not answer")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run_command(fails) == 1
    error = capsys.readouterr().err
    assert error.endswith("OSError: https://***@host.example does not answer\n")
    assert "in fails" in error
