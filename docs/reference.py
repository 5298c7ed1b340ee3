"""Write the generated pages: all config keys and all commands, in English and Chinese.

python docs/reference.py            tests/project/test_readme.py checks that the pages are current
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from unittest.mock import patch

from afqmc.config.schema import Config
from afqmc.utils.command_help import COMMANDS, CONFIG_NAMES, conf_dir, help_text
from afqmc.utils.fields import format_bounds
from afqmc.utils.language import catalogue

os.environ["AFQMC_LANG"] = "en"  # of the texts of --help
DOCS = Path(__file__).parent
CHINESE: dict[str, str] = catalogue()["help"] | json.loads((DOCS / "reference.zh.json").read_text(encoding="utf-8"))
_GENERATED = "<!-- written by docs/reference.py; do not edit -->"
_OPEN_GROUPS = ("optimizer", "scheduler", "objective", "callbacks", "hydra/launcher", "hydra/sweeper")
_KEYS = {
    "en": "Every key can be set on the command line as `key=value`, or in a YAML file. The defaults are those of the "
    "schema; the files in `conf/` set some of them for a data set, a model or an experiment. "
    "`python -m afqmc.run --cfg job` shows the values of a run. [Configuration](configuration.md) explains how to "
    "write them.",
    "zh": "每个键都可以在命令行上写成 `key=value`，也可以写在 YAML 文件中。这里列出的是程序中的默认值；"
    "`conf/` 中的文件会为某个数据集、模型或实验设置其中一部分。"
    "`python -m afqmc.run --cfg job` 显示一次运行的实际取值。写法见[配置](configuration.zh.md)。",
}
_FILES = {
    "en": "Keys of the groups that are given to a class or function, named by `_target_`. Any other argument of the "
    "class is added with `+`, such as `+optimizer.amsgrad=true`.",
    "zh": "以下配置组的键会传给 `_target_` 指定的类或函数。该类的其他参数用 `+` 添加，例如 `+optimizer.amsgrad=true`。",
}
_COMMANDS = {
    "en": "Each command is `python -m afqmc.NAME`, and `afqmc NAME` once the package is installed. `--help` shows the "
    "same. [Exit codes](runs.md#exit-codes) are those of all commands.",
    "zh": "每条命令都写作 `python -m afqmc.NAME`，安装后也可以写作 `afqmc NAME`。"
    "`--help` 显示相同的内容。所有命令的退出码见[运行之后](runs.zh.md)。",
}


class Stop(Exception):  # noqa: N818 not an error
    """Ends a command when it has built its parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def translated(text: str, language: str) -> str:
    """Return a text of the reference in a language. A missing translation is a KeyError."""
    return text if language == "en" else CHINESE[text]


def config_keys(kind: type, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Yield the dotted key, the field and the type of every config field."""
    hints = get_type_hints(kind)
    for item in fields(kind):
        if is_dataclass(hints[item.name]):
            yield from config_keys(hints[item.name], f"{prefix}{item.name}.")
        elif "help" in item.metadata:
            yield prefix + item.name, item, hints[item.name]


def type_name(kind: Any, language: str) -> str:
    """Return ``integer``, ``text or null``, ``auto, cpu, cuda, mps``, ..."""
    if get_origin(kind) in (Union, UnionType):
        (one,) = (one for one in get_args(kind) if one is not NoneType)
        return translated("{} or null", language).format(type_name(one, language))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    names = {str: "text", list: "list", dict: "mapping", bool: "true or false", int: "integer", float: "number"}
    return translated(names[get_origin(kind) or kind], language)


def default_of(item: Field[Any]) -> str:
    """Return the default as it is written on the command line."""
    value = item.default if item.default_factory is MISSING else item.default_factory()
    value = value.value if isinstance(value, Enum) else value
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def config_page(language: str) -> str:
    """Return the page of all config keys."""

    def t(text: str) -> str:
        return translated(text, language)

    lines = [_GENERATED, f"# {t('All keys')}", "", _KEYS[language], ""]
    group = None
    header = [t(name) for name in ("key", "type", "range", "default", "meaning")]
    for key, item, kind in config_keys(Config):
        if (part := key.rpartition(".")[0]) != group:
            group = part
            lines += ["", f"## {f'`{group}`' if group else t('Top level')}", ""]
            lines += [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        bounds = format_bounds(item.metadata["bounds"]).replace(" and ", t(" and "))
        cells = (f"`{key}`", type_name(kind, language), bounds, default_of(item), t(item.metadata["help"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", f"## {t('Open groups')}", "", _FILES[language]]
    for name in _OPEN_GROUPS:
        for path in sorted(Path(conf_dir(), name).glob("*.yaml")):
            lines += ["", f"### `{name}={path.stem}`", "", "```yaml", path.read_text(encoding="utf-8").rstrip(), "```"]
    return "\n".join([*lines, ""]).replace("\n\n\n", "\n\n")


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser that a command builds, without running the command."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Stop(parser)

    module = importlib.import_module(f"afqmc.{command}")
    parser, arguments = argparse.ArgumentParser, [command]
    with (
        patch.object(parser, "parse_args", stop),
        patch.object(parser, "parse_intermixed_args", stop),
        patch.object(sys, "argv", arguments),
    ):
        try:
            module.main()
        except Stop as stopped:
            return stopped.parser
    raise AssertionError(f"{command} has no parser")


def option_row(action: argparse.Action, language: str) -> str:
    """Return the table row of an argument."""
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
    value = " ".join(value) if isinstance(value, tuple) else value
    names = ", ".join(action.option_strings)
    shown = (" ".join(filter(None, (names, value))) if names else value).replace("|", "\\|")
    return f"| `{shown}` | {translated(str(action.help), language)} |"


def command_page(language: str) -> str:
    """Return the page of all commands."""

    def t(text: str) -> str:
        return translated(text, language)

    lines = [_GENERATED, f"# {t('All commands')}", "", _COMMANDS[language]]
    for command, purpose in COMMANDS.items():
        lines += ["", f"## `{command}`", "", t(purpose)[0].upper() + t(purpose)[1:] + t("."), ""]
        if command in CONFIG_NAMES:
            lines += ["```", help_text([], command), "```"]
            continue
        parser = parser_of(command)
        usage = (parser.usage or "").replace("%(prog)s", "").strip()
        shown = usage or " ".join(filter(None, ("[options]", *map(_positional, parser._actions))))
        lines += ["```", f"python -m afqmc.{command} {shown}".rstrip(), "```", ""]
        lines += [f"| {t('argument')} | {t('meaning')} |", "|---|---|"]
        lines += [option_row(action, language) for action in parser._actions if action.dest != "help"]
    return "\n".join([*lines, ""])


def _positional(action: argparse.Action) -> str:
    if action.option_strings:
        return ""
    shapes: dict[int | str | None, str] = {None: "{}", "?": "[{}]", "*": "[{} ...]", "+": "{} ..."}
    return shapes[action.nargs].format(action.metavar)


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    written = {}
    for language, suffix in (("en", ""), ("zh", ".zh")):
        written[DOCS / f"reference-config{suffix}.md"] = config_page(language)
        written[DOCS / f"reference-commands{suffix}.md"] = command_page(language)
    return written


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)
