"""The documents match the code: generated pages are up to date, settings complete, and commands and links exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from agents.wiring import AGENTS
from operations.app import command_tree
from operations.render.reference import PAGES, main
from schemas.settings import Collection, EmbeddingColumn, GateLimits, Guards, Settings, Shadow
from tests.test_rooms import ROOT
from topics.catalogue import CATALOGUE
from topics.roles import ROLES, readers_of, writers_of

DOCS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_made_page_is_up_to_date(name: str, tmp_path: Path) -> None:
    main(tmp_path)
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8")


def test_every_role_has_an_agent_and_every_topic_of_a_role_is_in_the_catalogue() -> None:
    assert tuple(agent.role for agent in AGENTS) == ROLES
    assert {topic for role in ROLES for topic in (*role.reads, *role.writes)} <= {topic.name for topic in CATALOGUE}
    assert all(readers_of(topic) and writers_of(topic) for topic in CATALOGUE)


def test_the_diagram_connects_everything_that_it_draws() -> None:
    diagram = PAGES["flow.md"]().split("```")[1]
    drawn = set(re.findall(r"(\w+)[\[(]", diagram))
    edges = [line for line in diagram.splitlines() if "-->" in line or "-.->" in line]
    connected = {name for line in edges for name in re.split(r"\s*(?:-->|-\.->|-- \w+ -->)\s*", line.strip())}
    assert drawn == {re.split(r"[\[(]", name)[0] for name in connected}


def sections() -> dict[str, type[BaseModel]]:
    """Return the models of the configuration file's tables by their headings in the guide."""
    found: dict[str, type[BaseModel]] = {
        "[collections.NAME]": Collection,
        "[collections.NAME.gates]": GateLimits,
        "[collections.NAME.shadow]": Shadow,
        "[collections.NAME.guards]": Guards,
        "embedding = {…}": EmbeddingColumn,
    }
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[f"[{name}]"] = field.annotation
    return found


def written_default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"  # as TOML writes it
    if isinstance(value, BaseModel):
        return "see below"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


@pytest.mark.parametrize("heading", sections())
def test_the_guide_lists_every_setting_with_its_default(heading: str) -> None:
    part = re.split(r"^#+ ", GUIDE.split(f"### `{heading}`\n", 1)[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", part, re.MULTILINE)
    fields = sections()[heading].model_fields
    assert [(name, default) for name, default, _ in rows] == [
        (name, written_default(field.get_default(call_default_factory=True))) for name, field in fields.items()
    ]
    assert all(meaning.strip() for _, _, meaning in rows)


def commands() -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            found[*path, name] = inner
            walk(inner, (*path, name))

    walk(typer.main.get_command(command_tree()), ())
    return found


def spoken(text: str) -> list[list[str]]:
    """Return the `crossfade …` commands of a page, from code spans and blocks, as lists of words."""
    spans = re.findall(r"`(crossfade [^`\n]+)`", text)
    for block in text.split("```")[1::2]:
        spans += re.findall(r"^ *(crossfade .+)$", block, re.MULTILINE)
    return [shlex.split(span.split("#")[0].split(" | ")[0].split(";")[0], posix=True)[1:] for span in spans]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_of_the_documents_exist_with_their_options(path: Path) -> None:
    known = commands()
    for words in spoken(path.read_text(encoding="utf-8")):
        command = next((known[tuple(words[:n])] for n in (2, 1) if tuple(words[:n]) in known), None)
        if words[0].startswith("--"):
            command = typer.main.get_command(command_tree())
        assert command is not None, words
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= options, words


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
