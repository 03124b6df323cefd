"""The rooms (top-level packages) import only downwards, the domain is pure, and every module has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The rooms from the lowest to the highest. Of our packages, each may import itself and the rooms below it.
ORDER = ("schemas", "topics", "domain", "connectors", "migration", "search", "agents", "stack", "operations", "load")
MAY_IMPORT: dict[str, frozenset[str]] = {room: frozenset(ORDER[:place]) for place, room in enumerate(ORDER)}
# Decisions depend only on the schemas of what is exchanged, and on nothing else of ours.
MAY_IMPORT["domain"] = frozenset({"schemas"})
# The folders of each room. Adding one is a decision: its `__init__` says what is in it.
FOLDERS: dict[str, frozenset[str]] = {
    "connectors": frozenset(
        {"debezium", "embedding", "kafka", "memory", "qdrant", "qdrant/engine", "sql", "sql/mariadb", "sql/postgres"}
    ),
    "domain": frozenset({"rollout"}),
    "migration": frozenset(
        {"backfill", "capture", "dead_letters", "inspect", "preflight", "rollout", "verify", "watch"}
    ),
    "operations": frozenset({"clients", "commands", "demo", "render"}),
}
# Within a room: the modules that may import from a folder, besides the folder itself and the rooms above.
WALLED = {"connectors/qdrant/engine": frozenset({"connectors/qdrant/__init__.py"})}
OURS = frozenset({*MAY_IMPORT, "tests"})
# The only libraries that a decision may use. None of them reads, writes, waits, or knows the time.
DOMAIN_LIBRARIES = frozenset(
    {
        "__future__", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools",
        "hashlib", "heapq", "itertools", "math", "msgspec", "numpy", "numpy.typing", "operator", "orjson", "pydantic",
        "re", "string", "struct", "types", "typing", "unicodedata", "urllib.parse", "uuid", "zlib",
    }
)  # fmt: skip
WORLDLY_CALLS = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "open", "print", "input", "getenv"})

MODULES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))
DOMAIN = [path for path in MODULES if path.relative_to(ROOT).parts[0] == "domain"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield every module that is imported anywhere in a module, also in functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "rooms are imported by their names"
            yield node.module or ""


def forbidden(room: str, source: str) -> list[str]:
    return [
        module
        for module in imported(ast.parse(source))
        if (top := module.partition(".")[0]) in OURS and top != room and top not in MAY_IMPORT[room]
    ]


def worldly(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        module
        for module in imported(tree)
        if module.partition(".")[0] not in OURS and module not in DOMAIN_LIBRARIES and module != "collections.abc"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in WORLDLY_CALLS:
                found.append(called)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert forbidden(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("room", ORDER)
def test_a_room_has_the_folders_that_are_listed(room: str) -> None:
    found = {str(path.parent.relative_to(ROOT / room)) for path in MODULES if path.is_relative_to(ROOT / room)}
    assert found - {"."} == FOLDERS.get(room, frozenset())


@pytest.mark.parametrize("folder", WALLED)
def test_a_walled_folder_is_entered_by_its_door(folder: str) -> None:
    room, dotted = folder.partition("/")[0], folder.replace("/", ".")
    entered = {
        name_of(path)
        for path in MODULES
        if path.is_relative_to(ROOT / room) and not path.is_relative_to(ROOT / folder)
        if any(module.startswith(dotted) for module in imported(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert entered <= WALLED[folder]


@pytest.mark.parametrize("path", DOMAIN, ids=name_of)
def test_the_domain_decides_without_the_world(path: Path) -> None:
    assert worldly(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_opens_with_its_rule(path: Path) -> None:
    rule = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert rule


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("schemas", "import topics.catalogue"),
        ("domain", "from connectors.ports import Bus"),
        ("connectors", "def late():\n    from agents import wiring\n"),
        ("migration", "from agents.worker import Worker"),
        ("agents", "import os, operations"),
        ("load", "from tests.contract import test_bus"),
    ],
)
def test_the_rule_sees_an_import_upwards_wherever_it_stands(room: str, source: str) -> None:
    assert forbidden(room, source)


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "from time import monotonic",
        "import random",
        "import socket",
        "from datetime import datetime\nx = datetime.now()",
        "import uuid\nx = uuid.uuid4()",
        "from pathlib import Path",
        "x = open('f')",
        "from urllib.request import urlopen",
    ],
)
def test_the_rule_sees_the_world_in_the_domain(source: str) -> None:
    assert worldly(source)
