"""Real text that every machine has: the documentation of the installed Python standard library.

There is one document for each module, class and function that has a docstring. The docstrings are read from the source
files without importing them. The order is the same on every run of one Python version.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Page:
    """One documented name: `kind` is module, class or function; `line` is where it is defined."""

    name: str
    title: str
    body: str
    kind: str
    module: str
    line: int


def pages(limit: int) -> list[Page]:
    """Return up to `limit` pages, spread over the whole library, with no two of the same name."""
    found: dict[str, Page] = {}
    for path in _sources():
        for page in _pages_of(path):
            found.setdefault(page.name, page)
    everything = list(found.values())
    if len(everything) <= limit:
        return everything
    step = len(everything) / limit
    return [everything[int(number * step)] for number in range(limit)]


def _sources() -> Iterator[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED.intersection(path.relative_to(root).parts):
            yield path


def _pages_of(path: Path) -> Iterator[Page]:
    root = Path(sysconfig.get_path("stdlib"))
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return
    yield from _visit(tree, module, module)


def _visit(node: Documented, name: str, module: str) -> Iterator[Page]:
    text = ast.get_docstring(node)
    if text and len(text) > 20:
        yield Page(name, _title(node, name), text, _kind(node), module, getattr(node, "lineno", 1))
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _visit(child, f"{name}.{child.name}", module)


def _kind(node: Documented) -> str:
    return {"Module": "module", "ClassDef": "class"}.get(type(node).__name__, "function")


def _title(node: Documented, name: str) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return f"{name}({ast.unparse(node.args)})"[:500]
    return name
