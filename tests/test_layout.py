"""Tests that folders have few entries, files and functions are short, and names are unique."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deepdefense"
SOURCES = sorted(
    path
    for folder in ("deepdefense", "backends", "reference")
    for path in (ROOT / folder).rglob("*.py")
)
MAX_ENTRIES, MAX_FILE_LINES, MAX_FUNCTION_LINES = 12, 300, 70

# The names that two modules may both define, and why.
SHARED_NAMES = {
    "evaluate": "the public function and the command of the same name",
    "harden": "the public function and the command of the same name",
    "reproduce": "the public function and the command of the same name",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def count_lines(function: Function) -> int:
    """Return the number of lines of a function without its decorators and its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    docstring = function.body[0]
    assert docstring.end_lineno is not None
    return lines - (docstring.end_lineno - docstring.lineno + 1)


def iterate_top_level_names(module: ast.Module) -> Iterator[str]:
    """Yield the names of a module's functions, classes and constants, except dunder names."""
    for node in module.body:
        names: list[str] = []
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names = [name]
            case ast.ClassDef(name=name):
                names = [name]
            case ast.Assign(targets=targets):
                names = [t.id for t in targets if isinstance(t, ast.Name)]
                names += [e.id for t in targets if isinstance(t, ast.Tuple) for e in t.elts]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names = [name]
        yield from (name for name in names if not name.startswith("__"))


def test_top_folder_has_few_entries() -> None:
    entries = {
        path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")
    }
    parts = entries - {"__init__.py", "__main__.py"}
    assert len(parts) <= MAX_ENTRIES, sorted(parts)


def test_files_are_short() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{name_of(path)}:{node.lineno} {node.name}": count_lines(node)
        for path in SOURCES
        for node in ast.walk(parse(path))
        if isinstance(node, Function)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_top_level_names_are_unique() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in iterate_top_level_names(parse(path)):
            places[name].add(name_of(path))
    repeated = {
        name: sorted(found)
        for name, found in places.items()
        if len(found) > 1 and name not in SHARED_NAMES
    }
    assert repeated == {}
