"""Hypothesis strategies: data files and overrides that are mostly valid, with every kind of error.

``make fuzz`` tries thousands of examples; the default suite tries a few dozen, always the same ones.
"""

import csv
import dataclasses
import io
import json
import os
import string

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from afqmc.config import Config
from afqmc.utils.command_help import groups, options

_SETTINGS = {
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    "print_blob": True,
}
_QUICK = {"deadline": None, "derandomize": True, "database": None, "phases": [Phase.explicit, Phase.generate]}
settings.register_profile("short", max_examples=60, **_QUICK, **_SETTINGS)
settings.register_profile("long", max_examples=3000, deadline=20_000, **_SETTINGS)  # ms: slower examples fail
settings.load_profile(os.environ.get("FUZZ", "short"))


def often(good, odd):
    """Draw the valid value in seven of eight cases."""
    return st.integers(0, 7).flatmap(lambda number: odd if number == 3 else good)


# ordinary text, and characters that often break readers: invisible ones, lone surrogates, format characters
_ODD = [
    "\0",
    "\ud83d",
    "\udc80",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\x85",
    "\x1c",
    "\x0b",
    "\r",
    "\n",
    "\t",
    '"',
    "'",
    "\\",
]
letters = st.sampled_from([*"花呗怎么还款ab1 ", *_ODD, ",", ";", "|", "{", "}", "[", "]", ":", "é", "😀", "ß", "İ"])
good_text = st.text(st.sampled_from("花呗借怎么还款额度ab1"), min_size=1, max_size=12)
odd_text = often(st.text(letters, max_size=8) | st.text(max_size=5), st.just("长" * 140_000))  # csv reads 131072
huge = st.integers(4000, 4299).map(lambda digits: 10**digits)  # Python reads and writes up to 4300 digits
values = st.recursive(
    odd_text | odd_text | st.none() | st.booleans() | st.integers() | st.floats() | huge,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _rows(draw):
    """Draw a few pairs of two classes."""
    kinds = draw(st.sampled_from([["0", "1"], ["0", "1"], [0, 1], ["不同", "相同"], [True, False]]))
    rows, with_ids = [], draw(st.booleans())
    for number in range(draw(st.integers(2, 5))):
        row = {"sentence1": draw(good_text), "sentence2": draw(good_text), "label": kinds[number % 2]}
        rows.append({"id": number, **row} if with_ids else row)
    return rows


def _spoil_row(draw, rows):
    """Change one row: give a value another type, or add or remove a key."""
    row, kind = draw(st.sampled_from(rows)), draw(st.sampled_from(["text", "value", "value", "missing", "more"]))
    key = draw(st.sampled_from(sorted(row)))
    if kind == "missing":
        del row[key]
    else:
        row[draw(odd_text) if kind == "more" else key] = draw(odd_text if kind == "text" else values)


def _json_lines(draw, rows, malformed):
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in rows]
    end = draw(st.sampled_from(["\r\n", "\r", "\n\n", "", " \n", "\n\u3000\n"])) if malformed else "\n"
    if malformed and draw(st.booleans()):
        begin = draw(st.sampled_from(['{"label": "0", ', '{"a": 1, "a": 2, ', "{{", "[{", " {", '{"b": NaN, ']))
        lines[-1] = lines[-1].replace("{", begin, 1)
    return end.join(lines) + draw(st.sampled_from([end, ""]))


def _table(draw, rows, malformed, delimiter):
    """Draw a CSV or TSV text, quoted or not, perhaps with a malformed header, delimiter or line ends."""
    columns, ends, quoting = ["sentence1", "sentence2", "label", "id"], "\n", csv.QUOTE_MINIMAL
    cells = [[str(row.get(name, "")) for name in columns] for row in rows]
    if malformed:
        columns = draw(st.sampled_from([columns, columns[::-1]]) | st.lists(odd_text | good_text, max_size=5))
        ends = draw(st.sampled_from(["\n", "\r\n", "\r"]))
        delimiter = draw(st.sampled_from([delimiter, ",", "\t", ";"]))
        quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        draw(st.sampled_from(cells)).extend(draw(st.lists(odd_text, max_size=2)))
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=ends).writerows([columns, *cells])
    return out.getvalue()


@st.composite
def _damaged(draw, content):
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 20)))
    middle = draw(
        st.sampled_from([b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b'"', content[start:end] * 2, b"[" * 5000])
    )
    return content[:start] + middle + content[end:]


@st.composite
def files(draw):
    """Draw the name and content of a file of pairs with up to two faults, or of random bytes."""
    name = draw(st.sampled_from(["x.jsonl", "x.json", "x.csv", "x.tsv", "x.txt", "x"]))
    if draw(st.integers(0, 19)) == 7:
        return name, draw(st.binary(max_size=200))
    faults = draw(st.lists(st.sampled_from(["row", "row", "format", "encoding", "bytes", "name"]), max_size=2))
    rows = draw(_rows())
    for _ in range(faults.count("row")):
        _spoil_row(draw, rows)
    delimiter = {".csv": ",", ".tsv": "\t", ".txt": "\t"}.get(name[1:])
    text = (
        _table(draw, rows, "format" in faults, delimiter) if delimiter else _json_lines(draw, rows, "format" in faults)
    )
    encodings = ["utf-8-sig", "gb18030", "utf-16", "utf-16-le", "latin-1"]
    encoding = draw(st.sampled_from(encodings)) if "encoding" in faults else "utf-8"
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    for _ in range(faults.count("bytes")):
        content = draw(_damaged(content))
    return draw(st.sampled_from(["x.jsonl", "x.csv", "x.tsv"])) if "name" in faults else name, content


# overrides


def leaves(schema=Config, prefix=""):
    """Return all dotted keys of the schema."""
    keys = []
    for item in dataclasses.fields(schema):
        default = item.default_factory() if item.default is dataclasses.MISSING else item.default
        key = prefix + item.name
        keys += leaves(type(default), f"{key}.") if dataclasses.is_dataclass(default) else [key]
    return keys


_KEYS = leaves()
_NAMES = string.ascii_lowercase + "._@/:[]0"
_SIGNS = [
    "'",
    '"',
    "\\",
    ",",
    "=",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "$",
    "${",
    "}",
    ":",
    "~",
    "+",
    "%",
    "#",
    "&",
    " ",
    "\n",
]
_ATOMS = [
    "", "1", "0", "-1", "1e-5", "3.5", "1_000", "1" * 25, "9" * 400, "9" * 5000, "1e999", "nan", "-inf", "inf", "null",
    "None", "true", "False", "yes", "abc", "数据", "é", "😀", "\u200b", "what's", 'say "x"', "'a", '"a', "a\\", "a b",
    "a=b", "a:b", "~", "~nobody/x", "数据 (旧)[1]/x", "C:\\x", "x" * 300, "[1", "1]", "{a", "a}", "(", ")", "[]", "{}",
    "[1,2]", "[a,null]", "[[1],[2]]", "{a:1}", "{a:{b:[1]}}", "{1:2}", "{a:1,a:2}", "[" * 40, "[" * 40 + "]" * 40,
    "torch.optim.SGD", "os.system", "builtins.eval", "no.such.thing", ".", "a..b", "transformers.get_cosine_schedule",
    "${lr}", "${seed}", "${nope}", "${lr", "$lr", "${}", "${.lr}", "${..lr}", "${${lr}}", "${dataset}",
    "${model.kwargs}",
    "${oc.env:HOME}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.env:NO_SUCH_VARIABLE,1}", "${oc.decode:'[1'}",
    "${oc.create:{a:1}}", "${oc.select:nope}", "${oc.dict.keys:dataset}", "${slug:1}", "${slug:[a=b]}", "${now:%Y}",
    "${hydra:runtime.cwd}", "${hydra.run.dir}", "${no.such.resolver:1}", "\\${lr}", "a${lr}b",
    "choice(1,2)", "range(1,3)", "range(1,3,0)", "interval(0,1)", "glob(*)", "sort(3,1)", "shuffle(1,2)", "int(x)",
    "int(1e999)", "float(9)", "str(1)", "bool(x)", "tag(a,1)", "choice()", "nope(1)", "json_str(1)", "1,2", "a,b,", ",",
]  # fmt: skip
_values = st.one_of(
    st.sampled_from(_ATOMS),
    st.sampled_from(_ATOMS),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.sampled_from(_ATOMS + _SIGNS), max_size=4).map("".join),
    st.text(st.characters(exclude_characters="\0"), max_size=6),  # an argument of a process cannot contain NUL
    st.lists(st.sampled_from(_ATOMS), max_size=3).map(lambda atoms: f"[{','.join(atoms)}]"),
)


@st.composite
def _misspelled(draw):
    key = draw(st.sampled_from(_KEYS))
    position = draw(st.integers(0, len(key)))
    return (
        key[:position] + draw(st.text(st.sampled_from(_NAMES), max_size=2)) + key[position + draw(st.integers(0, 2)) :]
    )


_keys = st.one_of(
    st.sampled_from(_KEYS),
    st.sampled_from(_KEYS),
    st.sampled_from(["optimizer", "scheduler", "model.kwargs", "model.config_overrides", "dataset.checksums"]).flatmap(
        lambda group: st.sampled_from(["lr", "eps", "_target_", "warmup_steps", "new", "a.b", "0", "数"]).map(
            lambda name: f"{group}.{name}"
        )
    ),
    _misspelled(),
    st.sampled_from(_KEYS).map(lambda key: f"{key}.more"),
    st.sampled_from(["dataset.labels[0]", "dataset.labels.0", "optimizer.betas.0", "optimizer.betas.9", "lr[0]"]),
    st.text(st.characters(exclude_characters="\0"), max_size=6),
    st.sampled_from(["", ".", "..", "a..b", "@", "a@b", "a@:b", "a/b", "-", "--x", "=", "$x", "数据", " lr ", "LR"]),
)


def _choices():
    names = groups()
    real = [f"{name}={option}" for name in names for option in options(name)]
    wrong = [
        f"{name}{after}" for name in names for after in ("=", "=nope", "=null", "=[]", "={}", "@x=y", "=../config")
    ]
    return st.sampled_from([*real, *real, *wrong])


_hydra = st.builds(
    "{}={}".format,
    st.sampled_from(
        ["hydra.run.dir", "hydra.run", "hydra", "hydra.mode", "hydra.job.name", "hydra.verbose",
         "hydra/launcher", "hydra/job_logging", "hydra.callbacks", "hydra.output_subdir"]
    ),
    _values,
)  # fmt: skip
_valid = st.sampled_from(
    ["lr=3e-4", "seed=7", "epochs=2", "batch_size=8", "tracker.name=甲 乙", "trainer.monitor=dev/f1",
     "trainer.patience=3",
     "dataset.labels=[不同,相同]", "optimizer.weight_decay=0.1", "+optimizer.maximize=true", "scheduler.warmup_steps=1",
     "dataset.batching=random", "model.pooling=max", "objective.class_weights=balanced", "model.classifier_dropout=0.5",
     "trainer.max_grad_norm=1", "dataset.sentence1_field=${dataset.name}", "tracker.tags=[a,b]", "~experiment"]
)  # fmt: skip
overrides = st.one_of(
    _valid,
    _valid,
    _choices(),
    st.builds("{}{}={}".format, often(st.just(""), st.sampled_from(["+", "++", "~", "~~", "+~", " "])), _keys, _values),
    _choices(),
    st.builds("{}{}".format, st.sampled_from(["~", "", "+", "++"]), st.sampled_from(_KEYS + groups())),
    _hydra,
)
command_lines = st.lists(overrides, min_size=1, max_size=3)
