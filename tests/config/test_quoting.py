"""Quoting: values reach the config as typed, and what Hydra can read without quotes is unchanged."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from afqmc import run as entry
from afqmc.config import compose, to_config
from afqmc.config.overrides import quote_override
from afqmc.utils.errors import InputError


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("dataset.path=/数据/afqmc", "/数据/afqmc"),
        ("dataset.path=~/x", "~/x"),
        ("dataset.path=/数据(旧)[1]/a", "/数据(旧)[1]/a"),
        ("dataset.path=C:\\数据\\", "C:\\数据\\"),
        ("dataset.url=https://h/a?b=c&d=e", "https://h/a?b=c&d=e"),
        ("tracker.name= 测 试 ", "测 试"),
        ("tracker.name=what's", "what's"),
        ("tracker.name=一\\,二", "一,二"),
        ("tracker.name=${lr}号", "${lr}号"),
        ("+tracker.name=测试", "测试"),
        ("decision.metric=cost:1,5", "cost:1,5"),
        ("decision.metric='cost:1,5'", "cost:1,5"),
        ("dataset.labels=[不同,相同]", ["不同", "相同"]),
        ("dataset.labels=[ 不同 , same]", ["不同", "same"]),
        ("model.kwargs={a: 甲, b: [乙, {c: 丙:丁}]}", {"a": "甲", "b": ["乙", {"c": "丙:丁"}]}),
    ],
)
def test_value_is_read_as_typed(typed, value):
    """Hydra reads a quoted value as the user typed it."""
    assert OverridesParser.create().parse_override(quote_override(typed)).value() == value


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("tracker.name=甲,乙", ["'甲'", "'乙'"]),
        ("tracker.name=choice(甲,b)", ["'甲'", "b"]),
        ("dataset.labels=[不,是],[no,yes]", ["['不','是']", "[no,yes]"]),
        ("decision.metric=f1,cost:1,5,cost:2.5,1e-3", ["f1", "'cost:1,5'", "'cost:2.5,1e-3'"]),
    ],
)
def test_sweep_stays_a_sweep(typed, values):
    """Quoting keeps the values of a sweep separate."""
    override = OverridesParser.create().parse_override(quote_override(typed))
    assert override.is_sweep_override()
    assert list(override.sweep_string_iterator()) == values


@pytest.mark.parametrize(
    "typed",
    [
        "lr=1e-5", "lr=1e-5,2e-5", "seed=range(1,4)", "dataset.labels=[0,1]", "model.kwargs={a: 1, b: [x]}", "a=",
        "tracker.name='已 引'", 'tracker.name="it\'s 引"', "dataset.path=${oc.env:HOME}/x", "dataset.path=/a b/c-d_e.f",
        "~optimizer.eps", "--config-dir=数据", "model", "a=b\\,c", "lr=[1",
    ],
)  # fmt: skip
def test_readable_override_is_unchanged(typed):
    """An override that Hydra can read, a flag or broken syntax is returned unchanged."""
    assert quote_override(typed) == typed


def test_chinese_values_compose():
    """Chinese paths, labels and columns, and ~, compose without quotes."""
    config = compose(["dataset.path=~/数据", "dataset.labels=[不同,相同]", "dataset.sentence1_field=句子一"])
    assert (config.dataset.path, config.dataset.labels) == ("~/数据", ["不同", "相同"])
    assert config.dataset.sentence1_field == "句子一"


@pytest.mark.parametrize("more", [[], ["-m", "hydra/launcher=basic", "hydra/sweeper=basic"]])
def test_run_quotes_overrides(more, monkeypatch, tmp_path):
    """The run command quotes the overrides of a run and of a sweep."""
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "run", lambda node, **_: seen.append(to_config(node).tracker.name))
    names = "甲,乙" if more else "甲"
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *more, "experiment=quickstart", f"tracker.name={names}"])
    assert entry.main() == 0
    assert seen == names.split(",")


@pytest.mark.parametrize("flag", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_path_of_flag_is_not_quoted(flag, monkeypatch, tmp_path):
    """The path of a flag is not an override, whatever characters it has."""
    directory = tmp_path / "a,b=[1] 'c' 数据"
    (directory / "experiment").mkdir(parents=True)
    (directory / "experiment/mine.yaml").write_text("# @package _global_\nlr: 0.25\n", encoding="utf-8")
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "run", lambda node, **_: seen.append(to_config(node).lr))
    arguments = [word.format(directory) for word in flag.split(" ")]
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *arguments, "experiment=mine", "tracker=none"])
    assert entry.main() == 0
    assert seen == [0.25]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=0", "model=0: must be a name; allowed: bert-base-chinese, "),
        ("dataset=[1,2]", "dataset=[1,2]: must be a name; allowed: afqmc, files, sample"),
        (f"hydra/launcher={'9' * 400}", f"hydra/launcher={'9' * 135} ... {'9' * 150}: must be a name"),
        ("dataset= null", "dataset= null: a run needs one; allowed: afqmc, files, sample"),
        ("=1", "=1: has no key; write key=value"),
        ("lr", "lr: has no value; write key=value"),
        ("~lr", "~lr: lr is part of every run; lr=... sets it"),
        ("~tracker", "~tracker: tracker is part of every run; tracker=... sets it"),
        ("+lr=1", "+lr=...: lr already exists; lr=... sets it"),
        ("lr.more=1", "lr.more=1: lr holds no keys; lr=... sets it"),
        ("dataset.labels.0=a", "dataset.labels.0=a: dataset.labels holds no keys; dataset.labels=... sets it"),
        ("dataset.labels[0]=a", "dataset.labels[0]=a: cannot be read: unexpected '[0]=a' (quote spaces, "),
        ("model.config_overrides=\\${lr}", "model.config_overrides=${lr}: must be a mapping"),
        ("tracker.tags=\\${lr}", "tracker.tags=${lr}: must be a list"),
        ("seed=range(1,3)", "seed=range(1,3): several values; -m runs each: "),
        (f"seed={'9' * 5000}", f"seed={'9' * 145} ... {'9' * 150}: cannot be read: Exceeds the limit (4300 digits)"),
    ],
)
def test_invalid_override_is_named(override, message):
    """The message for an invalid override begins with the override, also where Hydra's own would not name it."""
    with pytest.raises(InputError) as error:
        compose([override])
    assert str(error.value).startswith(message)
