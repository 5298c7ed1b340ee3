"""Collect the templates of all English texts in the code that a user may read."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
# calls whose texts the terminal does not show: patterns, parts of libraries' messages, and texts of other sections
_NO_MESSAGES = {
    "config_field", "add_argument", "CommandParser", "compile", "search", "match", "fullmatch", "sub", "finditer",
    "_first_match", "startswith", "endswith", "partition", "rpartition", "replace", "removeprefix", "removesuffix",
    "count", "getLogger", "RedactingFormatter", "confusion_matrix", "line", "Table", "find_spec",
}  # fmt: skip
NOT_SHOWN = {  # names, patterns, and texts for files, programmers or other programs
    "module {} has no attribute {}", "  afqmc {} {}", "python -m afqmc.{}", "call wait() first", "# Runs by {}",
    "## Without final metrics\n\n",
    "Upload an export of afqmc",
    '"use strict";', "comparison of {}", "dataset.train_file=... dataset.dev_file=...", "did you", "new-line character",
    "unexpected end", "usage: python -m afqmc.data.sample DIR", "how to pay", "my limit", " trust=true",
    "{}: conflicts", "{} {}, lr {}, ", " and ", " or ",
    " words rjieba {}", "{} (held out)", "{} sentences of dev or test would be pretrained on",
    r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'",
    r"Could not override '([^']+)'\.\s*No match in the defaults list",
    r"Could not append to config\. An item is already at '([^']+)'",
}  # fmt: skip
_NOT_SHOWN_STARTS = ("_afqmc_completion()", "complete -r afqmc", "default-src 'none'")


_ENGLISH_FILES = {"model_card.py"}  # write texts for files, which are in English


def sources():
    """Return the files of the package and of the launchers, without the service: it answers programs in English."""
    files = sorted(path for root in ("afqmc", "hydra_plugins") for path in (ROOT / root).rglob("*.py"))
    return [path for path in files if path.parent.name != "serving"]


def english_templates():
    """Yield (file, line, template, is_msg) of each text of at least two words, and each text of ``msg``."""
    for path in sources():
        if path.name in _ENGLISH_FILES:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from ((path, *found) for found in _texts(tree) if not found[1].startswith(_NOT_SHOWN_STARTS))


def normalized(template):
    """Return a template with all placeholders alike."""
    return re.sub(r"\{\w*(![rs])?(:[^{}]*)?\}", "{}", template)


def _is_prose(text):
    constant = re.sub(r"\{\w*\}", "", text).replace("%s", "")
    return bool(re.search(r"[A-Za-z]{2,}", constant)) and (" " in constant.strip() or constant[:1] in (";", ",", " "))


def _texts(node, is_msg=False):
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _NO_MESSAGES:
            return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        is_template = is_msg or re.search(r"\{\w*\}", node.value)  # of msg, or of str.format
        if is_msg or _is_prose(node.value):
            text = node.value if is_template else node.value.replace("{", "{{").replace("}", "}}")
            yield node.lineno, text, is_msg
    elif isinstance(node, ast.JoinedStr):
        if _is_prose(text := _template(node)):
            yield node.lineno, text, False
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts(part.value)
    else:
        is_msg = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "msg"
        for child in ast.iter_child_nodes(node):
            yield from _texts(child, is_msg)


def _template(node):
    parts, seen = [], Counter()
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(part.value.replace("{", "{{").replace("}", "}}"))
        else:
            name = re.sub(r"\W", "", _name(part.value)).strip("_").lower() or "value"
            seen[name] += 1
            parts.append(f"{{{name}{seen[name] if seen[name] > 1 else ''}}}")
    return "".join(parts)


def _name(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return _name(node.args[0]) if node.args else _name(node.func)
    if isinstance(node, ast.Subscript):
        is_key = isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
        return node.slice.value if is_key else _name(node.value)
    if isinstance(node, ast.IfExp) and {getattr(part, "value", None) for part in (node.body, node.orelse)} == {"", "s"}:
        return "s"  # of a plural
    return "value"
