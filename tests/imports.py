"""Read from source text, without running it, what a module imports and which modules its strings name.

What was read of a text is kept: each of the package's modules is asked about again and again.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "stepfront"
MODULE_PATH = re.compile(rf"{PACKAGE}\.(\w+)(\.|:|$)")


def nodes_of(source: str) -> Iterator[ast.AST]:
    """Return every node of a source's syntax tree."""
    return ast.walk(ast.parse(source))


@cache
def imports_of(source: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each module that a source imports, wherever in it, and the names taken from it.

    Raises ValueError at a relative import.
    """
    found = list[tuple[str, tuple[str, ...]]]()
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno} has a relative import; write the full name of the module")
            found.append((str(node.module), tuple(alias.name for alias in node.names)))
    return tuple(found)


def libraries_of(source: str) -> set[str]:
    """Return the first parts of the names of all modules that a source imports."""
    return {name.partition(".")[0] for name, _ in imports_of(source)}


def arrows_of(module: str, source: str, modules: Collection[str]) -> set[str]:
    """Return the modules of the package that a module imports by name."""
    found = set()
    for name, taken in imports_of(source):
        if name in modules:
            found |= {f"{name}.{each}" if f"{name}.{each}" in modules else name for each in taken} or {name}
    return found - {module}


def with_parents(module: str, arrows: set[str]) -> set[str]:
    """Add the packages that Python imports on the way to each module, except those that `module` itself stands in."""
    above = set(parents_of(module))
    return arrows | {parent for other in arrows for parent in parents_of(other) if parent not in above | {module}}


def parents_of(module: str) -> list[str]:
    """Return the packages that a module stands in."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def unresolved(source: str, sources: dict[str, str]) -> set[str]:
    """Return what a source imports of the package, or from a package of it, that does not exist."""
    missing = set()
    for name, taken in imports_of(source):
        if name.partition(".")[0] != PACKAGE:
            continue
        if name not in sources:
            missing.add(name)
            continue
        bound = names_bound(sources[name])
        missing |= {f"{name}.{each}" for each in taken if f"{name}.{each}" not in sources and each not in bound}
    return missing


@cache
def names_bound(source: str) -> set[str]:
    """Return the names that a source assigns, defines or imports, and those of its `__all__`."""
    found = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def imports_by_string(source: str) -> set[str]:
    """Return the calls of a source that import a module whose name is a value."""
    calls = {ast.unparse(node.func) for node in nodes_of(source) if isinstance(node, ast.Call)}
    return {call for call in calls if call.rpartition(".")[2] in {"import_module", "__import__", "run_module"}}


def module_strings(source: str, modules: Collection[str]) -> set[str]:
    """Return the string literals of a source that begin with the path of a module of the package."""
    strings = {node.value for node in nodes_of(source) if isinstance(node, ast.Constant) and type(node.value) is str}
    matches = {text: MODULE_PATH.match(text) for text in strings}
    return {text for text, match in matches.items() if match and f"{PACKAGE}.{match[1]}" in modules}


def source_of(file: Path) -> str:
    """Return the Python of a file: its text, or the code cells of a notebook."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)
