"""The layers of the design: imports point down only, and some libraries are used in one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "afqmc"
LEVELS = {
    "errors": 0, "groups": 0, "knobs": 0, "plugins": 0, "dataset": 0, "model": 0, "optim": 0, "metrics": 0,
    "tracker": 0, "rundir": 0, "environment": 0, "checkpoint": 0, "process": 0, "console": 0, "signals": 0,
    "inspection": 0, "lock": 0, "sweep": 0, "search": 0, "redaction": 0, "secret_names": 0, "paths": 0, "streams": 0,
    "ranks": 0, "safe_files": 0, "board": 0, "beside": 0, "lfs": 0, "proxies": 0,
    "batching": 1, "evaluation": 1,
    "train": 2,
    "config": 3,
    "cli": 4, "validation": 4, "execution": 4, "job": 4, "table": 4, "scoring": 4, "diagnosis": 4,
    "preparation": 4, "preflight": 4, "training": 4, "checkpointing": 4, "records": 4, "following": 4,
    "ensemble": 4, "comparison": 4, "compare": 4,
    "outputs": 4, "changes": 4, "per_class_table": 0, "prediction": 4,
    "run": 4, "evaluate": 4, "predict": 4, "doctor": 4,
}  # fmt: skip
ONLY_IN = {"wandb": {"tracker"}, "hydra": {"config", "run"}, "omegaconf": {"config", "run"}, "yaml": {"config"}}
ENTRIES = {"run", "evaluate", "predict", "compare", "doctor", "job"}


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "afqmc":
                yield from (f"afqmc.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer():
    assert {part_of(path) for path in modules()} == set(LEVELS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    level = LEVELS[part_of(path)]
    for name in imports(path):
        if name.startswith("afqmc."):
            assert LEVELS[name.split(".")[1]] <= level, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_imported_only_where_the_design_says(path):
    for name in imports(path):
        allowed = ONLY_IN.get(name.split(".")[0])
        assert allowed is None or part_of(path) in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_opens_with_a_line_that_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
