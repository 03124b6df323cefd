"""Reads `crossfade.toml` and the environment into settings, once. It contacts no server: `config check` does that.

Order of precedence: environment (`CROSSFADE_KAFKA__BOOTSTRAP=…`), the file, the defaults, the local stack's addresses.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError, create_model
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from operations.errors import CommandError
from schemas.settings import Settings
from stack.layout import StackAddresses

CONFIG_NAME = "crossfade.toml"
PREFIX = "CROSSFADE_"
NESTED = "__"
USAGE_ERROR = 2
# Short names that people expect. The long form of the same setting wins.
_ALIASES = {"CROSSFADE_QDRANT_URL": "CROSSFADE_QDRANT__URL"}
# Former names of a collection's keys. They are read until the next major version.
_OLD_KEYS = {"fill": "initial_load"}

Tree = dict[str, Any]
Path_ = tuple[str | int, ...]


def find_config(path: Path | None, home: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: `path`, else CROSSFADE_CONFIG, else `crossfade.toml` here, else the one in `home`.

    Return None if none of them exists. Raises CommandError if a requested file does not exist.
    """
    asked = path or (Path(environ["CROSSFADE_CONFIG"]) if environ.get("CROSSFADE_CONFIG") else None)
    if asked is None:
        return next((found for found in (Path(CONFIG_NAME), home / CONFIG_NAME) if found.is_file()), None)
    asked = asked.expanduser()
    if not asked.is_file():
        source = "--config" if path else "CROSSFADE_CONFIG"
        raise CommandError(f"{asked}: there is no such file.", f"It was given by {source}.", USAGE_ERROR)
    return asked


def read_settings(path: Path | None, home: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the file that `find_config` finds, overridden by the environment.

    Raises one CommandError for all mistakes. For each mistake it names the file or variable, the key, what is wrong
    and what is allowed.
    """
    found = find_config(path, home, environ)
    written = _read_file(found) if found is not None else {}
    overriding = _read_environment(environ)
    tree = _renamed(_merged(written, overriding), str(found or "environment"))
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        faults = [_explain(fault, found, overriding) for fault in error.errors(include_url=False)]
        raise CommandError("\n".join(faults), "`crossfade config check` checks it again.", USAGE_ERROR) from None


def resolve(settings: Settings, addresses: StackAddresses | None) -> Settings:
    """Return the settings, with the local stack's addresses for those that are not set (None: no stack was ever up)."""
    if addresses is None:
        return settings
    kafka = settings.kafka.model_copy(
        update={
            "bootstrap": settings.kafka.bootstrap or addresses.kafka,
            "connect": settings.kafka.connect or addresses.connect,
        }
    )
    databases = {"postgres": addresses.postgres, "mariadb": addresses.mariadb}
    collections = {
        name: collection.model_copy(update={"dsn": collection.dsn or databases[collection.connector]})
        for name, collection in settings.collections.items()
    }
    return settings.model_copy(update={"kafka": kafka, "collections": collections})


def _read_file(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror or error}.", "", USAGE_ERROR) from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8 text.", "", USAGE_ERROR) from None
    except tomllib.TOMLDecodeError as error:
        raise CommandError(
            f"{path} is not TOML: {error}.", "See https://toml.io for the format.", USAGE_ERROR
        ) from None


def _read_environment(environ: Mapping[str, str]) -> Tree:
    variables = {name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    for short, long in _ALIASES.items():
        if variables.get(short):
            variables.setdefault(long, variables[short])
    for name in variables:
        _check_section(name)
    source = EnvSettingsSource(_sections(), env_prefix=PREFIX, env_nested_delimiter=NESTED)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    try:
        return source()
    except SettingsError as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        section = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        candidates = ", ".join(sorted(name for name in variables if name.startswith(PREFIX + section.upper())))
        raise CommandError(
            f"environment: a value of {candidates} is not JSON{cause}.",
            """Lists and tables are written as JSON, as in '["id"]'.""",
            USAGE_ERROR,
        ) from None


def _sections() -> type[BaseSettings]:
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in Settings.model_fields.items()}
    return create_model("Sections", __base__=BaseSettings, **fields)


def _check_section(variable: str) -> None:
    section, nested, _ = variable.removeprefix(PREFIX).lower().partition(NESTED)
    if nested and section not in Settings.model_fields:
        raise CommandError(
            f"environment: {variable}: {_unknown(section, tuple(Settings.model_fields))}.",
            "Variables are CROSSFADE_SECTION__KEY.",
            USAGE_ERROR,
        )


def _renamed(tree: Tree, source: str) -> Tree:
    """Return the settings under their current names, with a warning on stderr for each former name that was used."""
    collections = tree.get("collections")
    if not isinstance(collections, dict):
        return tree
    renamed = {}
    for name, collection in collections.items():
        old = set(_OLD_KEYS) & set(collection) if isinstance(collection, dict) else set()
        # If both names are given, the old one stays and is refused.
        found = {key: _OLD_KEYS[key] for key in old if _OLD_KEYS[key] not in collection}
        for key, today in found.items():
            print(f"crossfade: {source}: collections.{name}.{key} is called {today} now.", file=sys.stderr)
        renamed[name] = {found.get(key, key): value for key, value in collection.items()} if found else collection
    return {**tree, "collections": renamed}


def _merged(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _explain(fault: ErrorDetails, path: Path | None, overriding: Tree) -> str:
    where = tuple(part for part in fault["loc"] if part != "[key]")
    source = _variable(where) if _is_in(overriding, where) else str(path or "environment")
    if fault["type"] == "extra_forbidden":
        model = _model_at(where[:-1])
        allowed = tuple(model.model_fields) if model else ()
        return f"{source}: {_dotted(where)}: {_unknown(str(where[-1]), allowed)}."
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{source}: {_dotted(where)}: this key is required."
    given = fault.get("input")
    shown = "" if isinstance(given, dict | list) or _is_secret(where) else f" (it is {given!r})"
    return f"{source}: {_dotted(where)}: {message}{shown}."


def _is_secret(where: Path_) -> bool:
    return bool({"dsn", "api_key"} & {str(part) for part in where})


def _unknown(name: str, allowed: tuple[str, ...]) -> str:
    near = get_close_matches(name, allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown key {name!r}; {hint}Allowed: {', '.join(allowed)}"


def _variable(where: Path_) -> str:
    return "environment: " + PREFIX + NESTED.join(str(part).upper() for part in where)


def _dotted(where: Path_) -> str:
    return ".".join(str(part) for part in where) or "the whole file"


def _is_in(tree: Any, where: Path_) -> bool:
    for part in where:
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            return isinstance(tree, list) and isinstance(part, int)
    return True


def _model_at(where: Path_) -> type[BaseModel] | None:
    """Return the model whose keys are allowed at a path in the file."""
    model: type[BaseModel] = Settings
    parts = iter(where)
    for part in parts:
        field = model.model_fields.get(str(part))
        found = next(_models(field.annotation), None) if field else None
        if field is None or found is None:
            return None
        if get_origin(field.annotation) is dict:
            next(parts, None)  # the name of the collection
        model = found
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {dict, Union, UnionType}:
        for argument in get_args(annotation):
            yield from _models(argument)
