"""`crossfade schemas`: writes the event schemas and the AsyncAPI document, for producers in any language."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import orjson
import typer

from operations.context import ConfigOption, HomeOption, JsonOption, errors_reported, load, print_json
from operations.errors import CommandError
from schemas.export import schema_files
from topics.asyncapi import asyncapi

ASYNCAPI_FILE = "asyncapi.json"

app = typer.Typer(no_args_is_help=True, help="JSON Schema of every event, and the AsyncAPI document.")


@app.callback()
def _group() -> None:
    """Keep `export` a subcommand: Typer would otherwise put its only command in place of the group."""


@app.command("export")
def export(
    directory: Annotated[Path, typer.Argument(help="The folder to write into; it is made when it is not there.")],
    config: ConfigOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
) -> None:
    """Write one JSON Schema for each event, one for crossfade.toml, and asyncapi.json for the configured topics."""
    with errors_reported():
        context = load(config, home)
        files = schema_files() | {ASYNCAPI_FILE: asyncapi(context.settings, version("crossfade"))}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for name, document in files.items():
                text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
                (directory / name).write_bytes(text)
        except OSError as error:
            raise CommandError(f"{directory} cannot be written: {error.strerror or error}.") from error
        paths = [str(directory / name) for name in files]
        if json:
            print_json({"files": paths})
        else:
            print("\n".join(paths))
