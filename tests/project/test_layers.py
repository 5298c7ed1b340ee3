"""The layers of the design: imports only point down, and some libraries are imported in one package only."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "afqmc"
LEVELS = {
    "__main__": 10,
    "compare": 9, "doctor": 9, "ls": 9, "pretrain": 9, "reproduce": 9, "serve": 9,
    "run": 8, "evaluate": 8, "predict": 8, "export": 8, "comparison": 8, "diagnostics": 8,
    "runner": 7,
    "inference": 6, "results": 6,
    "config": 5,
    "training": 4, "sweeps": 4,
    "evaluation": 3, "checkpoint": 3, "cli": 3,
    "data": 2, "models": 2, "tracking": 2, "distributed": 2, "run_dir": 2,
    "utils": 1,
}  # fmt: skip
ONLY_IN = {
    "fastapi": {"inference"},
    "uvicorn": {"inference"},
    "wandb": {"tracking"},
    "hydra": {"config", "run"},
    "omegaconf": {"config", "run"},
    "yaml": {"config"},
}


def modules():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path):
    names = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def test_every_module_has_a_layer():
    assert {part_of(path) for path in modules()} == set(LEVELS)


def test_imports_only_point_down():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imports(path)
        if name.startswith("afqmc.")
        and (imported := name.split(".")[1]) != (part := part_of(path))
        and LEVELS[imported] >= LEVELS[part]
    ]
    assert wrong == []


def test_no_circular_imports():
    """Imports for type checkers and inside functions count too."""
    names = {".".join(("afqmc", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    graph = {name: set(imports(path)) & names.keys() - {name} for name, path in names.items()}
    while leaves := {name for name, imported in graph.items() if not imported}:
        graph = {name: imported - leaves for name, imported in graph.items() if name not in leaves}
    assert not graph, f"circle among {sorted(graph)}"


def test_package_has_few_top_level_names():
    assert len({part_of(path) for path in modules()} - {"__main__"}) <= 28


def test_libraries_are_imported_in_their_packages_only():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imports(path)
        if part_of(path) not in ONLY_IN.get(name.split(".")[0], {part_of(path)})
    ]
    assert wrong == []


def test_every_module_has_a_docstring():
    assert [path for path in modules() if not ast.get_docstring(tree(path))] == []


def test_public_names_are_unique():
    """No two modules define the same public function, class or constant."""
    defined = {}
    for path in [*modules(), *sorted((PACKAGE.parent / "hydra_plugins").rglob("*.py"))]:
        for node in tree(path).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            for name in (getattr(target, "name", getattr(target, "id", "_")) for target in targets):
                if not name.startswith("_") and name not in {"log", "main"}:
                    defined.setdefault(name, []).append(str(path.relative_to(PACKAGE.parent)))
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}
