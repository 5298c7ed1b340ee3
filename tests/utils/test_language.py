"""Terminal output in Chinese: a complete catalogue, and messages matched to their templates."""

import importlib
import json
import logging
import re
import subprocess
import sys
from string import Formatter

import pytest
from helpers import SMALL, command, train
from templates import NOT_SHOWN, english_templates, normalized

from afqmc.cli import run_command
from afqmc.utils.command_help import COMMANDS
from afqmc.utils.console import Console
from afqmc.utils.errors import InputError
from afqmc.utils.language import catalogue, check_language, chinese, language, msg, translate, translate_log

TEMPLATES = list(english_templates())
LOCALE = ("AFQMC_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture(autouse=True)
def in_chinese(monkeypatch):
    """The terminal is Chinese."""
    monkeypatch.setenv("AFQMC_LANG", "zh")


def names(template):
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]


def adjacent(template):
    return re.findall(r"(?:\{\w+\}){2,}", template)


def test_every_message_has_a_translation():
    """Each text in the code is in the catalogue or listed as not shown; those of ``msg`` exactly."""
    known = {normalized(english) for section in catalogue().values() for english in section} | NOT_SHOWN
    missing = [f"{path.name}:{line}: {text}" for path, line, text, _ in TEMPLATES if normalized(text) not in known]
    assert missing == []
    assert {text for _, _, text, is_msg in TEMPLATES if is_msg} - set(catalogue()["messages"]) == set()


def test_catalogue_has_no_unused_messages():
    """Each message of the catalogue is in the code."""
    used = {normalized(text) for _, _, text, _ in TEMPLATES}
    assert [english for english in catalogue()["messages"] if normalized(english) not in used] == []


def test_translations_have_the_same_placeholders():
    """Translations have all placeholders but the plural s; adjacent ones and %s stay in the same order."""
    for section in catalogue().values():
        for english, translation in section.items():
            if "%" in english and re.search(r"%[.\d]*[a-z]", english):
                assert re.findall(r"%[.\d]*[a-z]", translation) == re.findall(r"%[.\d]*[a-z]", english)
            else:
                assert set(names(english)) - {"s"} == set(names(translation)) - {"s"}, english
                assert all(group in translation for group in adjacent(english)), english


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AFQMC_LANG": "zh", "LANG": "en_US.UTF-8"}, "zh"),
        ({"AFQMC_LANG": "en", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LC_ALL": "C.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "de_DE.UTF-8"}, "zh"),
        ({"LANG": "zha_CN"}, "en"),
        ({}, "en"),
    ],
)
def test_language_of_the_terminal(monkeypatch, variables, expected):
    """AFQMC_LANG decides, then the locale as in gettext."""
    for name in LOCALE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_unknown_language_is_rejected(monkeypatch):
    """An AFQMC_LANG without texts is an error that lists the languages."""
    monkeypatch.setenv("AFQMC_LANG", "fr")
    with pytest.raises(InputError, match=r"AFQMC_LANG=fr: allowed: en, zh"):
        check_language()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "pretrain")])
def test_help_is_translated(name, capsys, monkeypatch):
    """Headings, the purpose and the meaning of each argument are Chinese."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"afqmc.{name}").main()
    printed = capsys.readouterr().out
    assert printed.startswith("用法：")
    assert translate(COMMANDS[name]) in printed
    assert "选项" in printed
    assert [line for line in printed.splitlines() if re.search(r"  (\w+ ){4}", line)] == []  # four English words


def test_values_stay_as_they_are():
    """Keys and values of the user are not translated, even if they are words of the program."""
    assert (
        translate("optimzer: no such key; did you mean 'optimizer'?")
        == "optimzer：没有这个键；您是否想用 'optimizer'？"
    )
    assert translate("run: no such directory") == "run：目录不存在"
    assert "'no labels, missing'" in translate(
        "label 'no labels, missing' is not one of: a, b (dataset.labels sets them; a finished run keeps its own)"
    )
    assert translate("花呗 a, b") == "花呗 a, b"


def test_messages_in_messages_are_translated():
    """A reason inside a message, a hint after it, and a message after a file name are translated too."""
    inner = msg("{seeds} seeds", seeds=3)
    whole = msg("95% CI {interval}, {p}, {seeds}", interval="1", p="p = 0.5", seeds=inner)
    assert chinese(whole) == "95% 置信区间 1，p = 0.5，3 个种子"
    assert translate("lr=x: must be a number > 0 and <= 10 (peak learning rate)") == (
        "lr=x：应为：数字 > 0 且 <= 10（学习率的最大值）"
    )
    assert translate("a/b.csv: is compressed by RAR; unpack it") == "a/b.csv: 是 RAR 压缩文件；请先解压"
    assert translate("x.json: not readable as JSON (JSONDecodeError: bad)").startswith("x.json：无法按 JSON 解析")


def test_log_lines_on_the_terminal(capsys):
    """The terminal shows Chinese and an unchanged record reaches the log file."""
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "the model has collapsed: %s", ("this CPU has AMX",), None)
    Console().emit(record)
    assert capsys.readouterr().out == "警告：模型已塌缩：该 CPU 有 AMX\n"
    assert record.getMessage() == "the model has collapsed: this CPU has AMX"
    assert translate_log(
        "step %d/%d  epoch %.2f  loss %.4f  lr %.2e  %.0f pairs/s  %s left", (1, 2, 0.5, 1, 1, 9, "0:01")
    )
    assert translate_log("100% of {x}", ()) == "100% of {x}"


def test_english_output_does_not_read_the_catalogue():
    """Without a Chinese locale, the catalogue is not loaded."""
    code = (
        "import afqmc.utils.language as l; l.translate('lr: no such key'); "
        "raise SystemExit(l.catalogue.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"AFQMC_LANG": "en"}, check=False).returncode == 0


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a command in this process; returns the exit code and its output."""

    def call(name, *arguments):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", [f"afqmc.{name}", *map(str, arguments)])
        code = run_command(importlib.import_module(f"afqmc.{name}").main)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lrr=1", "lrr：没有这个键；您是否想用 'lr'？"),
        ("lr=99", "lr=99.0：应为：> 0 且 <= 10（学习率的最大值）"),
        ("lr=much", "lr=much：应为：数字 > 0 且 <= 10（学习率的最大值）"),
        ("model.pooling=x", "model.pooling=x：应为：以下之一：cls, mean, max, first_last_avg"),
        ("optimizer=sgdd", "optimizer=sgdd：没有这样的 optimizer；您是否想用 'sgd'？；现有选项：adafactor, "),
    ],
)
def test_errors_of_the_command_line(call, override, expected):
    """Errors are printed in Chinese, with keys and values unchanged."""
    code, shown = call("doctor", "experiment=quickstart", override)
    assert code == 2
    assert shown.startswith(expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two small runs; the first from a Chinese terminal, with its output."""
    place = tmp_path_factory.mktemp("trained")
    run = command("run", *SMALL, "trainer.max_steps=2", "hydra.run.dir=a", cwd=place, env={"AFQMC_LANG": "zh"})
    assert run.returncode == 0, run.stderr
    train(place / "b", "seed=1", "trainer.max_steps=2")
    return place, run.stdout


def test_run_prints_chinese_and_writes_english(trained):
    """Log lines and the table on the terminal are Chinese; the files of the run have no Chinese text."""
    place, shown = trained
    for text in ("设备：cpu，精度", "数据：sample：train", "剩余", "dev 上最佳（按 accuracy）", "多数标签准确率"):
        assert text in shown
    english = (place / "a/run.log").read_text("utf-8") + (place / "a/summary.json").read_text("utf-8")
    assert "device: cpu, precision" in english
    assert "majority accuracy" in english
    assert not re.search("[一-龥]", english)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("compare", "a", "b"), ("次运行，按 dev/accuracy 从好到差排列", "注意事项")),
        (("ls", "."), ("最后写入", "完成")),
        (("evaluate", "a"), ("各类别的指标", "混淆矩阵", "真实")),
        (("doctor", *SMALL), ("配置组合成功", "没有重复、矛盾或共有的句对", "这次运行可以正常进行：0 项失败")),
    ],
)
def test_commands_in_chinese(trained, call, monkeypatch, arguments, expected):
    """Compare, ls, evaluate and doctor print Chinese."""
    monkeypatch.chdir(trained[0])
    code, shown = call(*arguments)
    assert code == 0, shown
    for text in expected:
        assert text in shown


@pytest.mark.parametrize("arguments", [("ls", "."), ("evaluate", "a"), ("doctor", *SMALL)])
def test_json_stays_english(trained, call, monkeypatch, arguments):
    """JSON has no Chinese text."""
    monkeypatch.chdir(trained[0])
    code, shown = call(*arguments, "--json")
    assert code == 0
    assert json.loads(shown)
    assert not re.search("[一-龥]", shown)


def test_files_of_compare_stay_english(trained, call, monkeypatch):
    """The JSON, CSV and Markdown of compare are the same in both languages."""
    monkeypatch.chdir(trained[0])
    for name in ("en", "zh"):
        monkeypatch.setenv("AFQMC_LANG", name)
        assert call("compare", "a", "b", *(f"--{kind}={name}.{kind}" for kind in ("json", "csv", "md")))[0] == 0
    for kind in ("json", "csv", "md"):
        english, other = ((trained[0] / f"{name}.{kind}").read_text("utf-8") for name in ("en", "zh"))
        assert english == other
