"""Quoting: what people type reaches the config as it was typed; what Hydra reads by itself is left alone."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from afqmc import run as entry
from afqmc.config import compose, to_config
from afqmc.config.quoting import quoted


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
        ("dataset.labels=[不同,相同]", ["不同", "相同"]),
        ("dataset.labels=[ 不同 , same]", ["不同", "same"]),
        ("model.args={a: 甲, b: [乙, {c: 丙:丁}]}", {"a": "甲", "b": ["乙", {"c": "丙:丁"}]}),
    ],
)
def test_a_value_is_read_as_it_was_typed(typed, value):
    assert OverridesParser.create().parse_override(quoted(typed)).value() == value


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("tracker.name=甲,乙", ["'甲'", "'乙'"]),
        ("tracker.name=choice(甲,b)", ["'甲'", "b"]),
        ("dataset.labels=[不,是],[no,yes]", ["['不','是']", "[no,yes]"]),
    ],
)
def test_a_sweep_stays_a_sweep(typed, values):
    override = OverridesParser.create().parse_override(quoted(typed))
    assert override.is_sweep_override()
    assert list(override.sweep_string_iterator()) == values


@pytest.mark.parametrize(
    "typed",
    [
        "lr=1e-5", "lr=1e-5,2e-5", "seed=range(1,4)", "dataset.labels=[0,1]", "model.args={a: 1, b: [x]}", "a=",
        "tracker.name='已 引'", 'tracker.name="it\'s 引"', "dataset.path=${oc.env:HOME}/x", "dataset.path=/a b/c-d_e.f",
        "~optimizer.eps", "--config-dir=数据", "model", "a=b\\,c", "lr=[1",
    ],
)  # fmt: skip
def test_what_needs_no_quotes_is_left_alone(typed):
    assert quoted(typed) == typed


def test_chinese_values_and_a_home_directory_compose():
    config = compose(["dataset.path=~/数据", "dataset.labels=[不同,相同]", "dataset.sentence1_field=句子一"])
    assert (config.dataset.path, config.dataset.labels) == ("~/数据", ["不同", "相同"])
    assert config.dataset.sentence1_field == "句子一"


@pytest.mark.parametrize("more", [[], ["-m"]])
def test_the_run_takes_them_too(more, monkeypatch, tmp_path):
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "run", lambda node, resume: seen.append(to_config(node).tracker.name))
    names = "甲,乙" if more else "甲"
    monkeypatch.setattr(sys, "argv", ["afqmc.run", *more, "experiment=quickstart", f"tracker.name={names}"])
    assert entry.main() == 0
    assert seen == names.split(",")
