"""docs/architecture.md: its rooms are those of the code, and each reading list is complete, in order and short."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from types import ModuleType
from typing import Any, get_origin

import msgspec
import pytest
from pydantic import BaseModel

from tests.test_rooms import ORDER, ROOT, imported

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# What a reader need not open: formats, ports, and the adapters below them.
BELOW = ("schemas", "topics", "connectors", "migration.collection", "migration.context")
LIMITS = {
    "A question": 6,
    "Verify: the proof": 10,
    "Verify: repair": 6,
    "Backfill": 10,
    "Quarantine: a database or a table that was replaced": 6,
    "Quarantine: a Qdrant collection that was replaced": 6,
    "Topic adoption": 6,
    "Recapture: a new connector": 11,
    "A comparison: a shadow read": 7,
    "A rollout: a command": 6,
}
STEP = 5


@dataclass(frozen=True)
class Reading:
    """One reading list: its title, the module that binds its parts, and its modules in order."""

    title: str
    entry: str
    modules: tuple[str, ...]


def dotted(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def readings(page: str) -> Iterator[Reading]:
    for section in re.split(r"^### ", page.partition("## Reading lists")[2].partition("\n## ")[0], flags=re.M)[1:]:
        (entry,) = re.findall(r"^Entry: `(\S+)`$", section, re.M)
        modules = re.findall(r"^\d+\. `(\S+)`", section, re.M)
        yield Reading(section.partition("\n")[0], dotted(entry), tuple(map(dotted, modules)))


def is_value(thing: Any) -> bool:
    """Return whether a name has no behaviour to read: a constant, a type, an error, a dataclass without methods."""
    if isinstance(thing, ModuleType) or inspect.isroutine(thing) or hasattr(thing, "__wrapped__"):
        return False
    if not isinstance(thing, type) or get_origin(thing) is not None:
        return True
    if getattr(thing, "_is_protocol", False) or issubclass(thing, (Enum, BaseException, BaseModel, msgspec.Struct)):
        return True
    methods = [name for name, each in vars(thing).items() if inspect.isfunction(each) and not name.startswith("__")]
    return hasattr(thing, "__dataclass_fields__") and not methods


def calls(module: str) -> set[str]:
    """Return the modules of ours from which a module imports something with behaviour, wherever the import stands."""
    source = ROOT / (module.replace(".", "/") + ".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ORDER:
            for alias in node.names:
                thing = getattr(import_module(node.module), alias.name)
                if not is_value(thing):
                    found.add(thing.__name__ if isinstance(thing, ModuleType) else node.module)
    return found


def unlisted(reading: Reading) -> set[str]:
    read = {module for module in reading.modules if not module.startswith(BELOW)}
    called = {each for module in read for each in calls(module)}
    return {each for each in called - {*reading.modules} if not each.startswith(BELOW)}


LISTS = list(readings(PAGE))


def test_every_step_of_a_document_a_question_the_tasks_and_what_stops_a_collection_have_a_list() -> None:
    assert len(LISTS) == 21
    assert all(reading.modules for reading in LISTS)
    assert {*LIMITS} <= {reading.title for reading in LISTS}


@pytest.mark.parametrize("reading", LISTS, ids=lambda reading: reading.title)
def test_a_reading_list_is_complete(reading: Reading) -> None:
    assert unlisted(reading) == set()


@pytest.mark.parametrize("reading", LISTS, ids=lambda reading: reading.title)
def test_a_reading_list_is_short(reading: Reading) -> None:
    assert len(set(reading.modules)) == len(reading.modules) <= LIMITS.get(reading.title, STEP)


@pytest.mark.parametrize("reading", LISTS, ids=lambda reading: reading.title)
def test_a_reading_list_is_in_order_and_nothing_in_it_is_superfluous(reading: Reading) -> None:
    before = {reading.entry}
    for module in reading.modules:
        source = [(ROOT / (each.replace(".", "/") + ".py")).read_text(encoding="utf-8") for each in before]
        assert any(module in set(imported(ast.parse(text))) for text in source), module
        before.add(module)


def test_a_list_without_one_of_its_modules_is_found_incomplete() -> None:
    for reading in LISTS:
        needed = [m for m in reading.modules[1:] if not m.startswith(BELOW)]
        for module in needed:
            without = Reading(reading.title, reading.entry, tuple(m for m in reading.modules if m != module))
            assert unlisted(without) == {module}, (reading.title, module)


def test_the_rooms_are_described_as_they_describe_themselves() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.M)
    assert tuple(room for room, _ in rows) == ORDER
    for room, text in rows:
        rule = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert rule.startswith(text), room


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(\w[\w/]*(?:\.py|\.md)?)`", PAGE))
    paths = {name for name in named if "/" in name}
    assert paths
    assert {path for path in paths if not (ROOT / path).exists()} == set()
