"""JSON Schemas (draft 2020-12) of the events and of the configuration file, made from the models. Writes no files."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from schemas.documents import (
    DifferenceFound,
    DifferenceRepaired,
    DocumentChanged,
    DocumentEmbedded,
    DocumentResolved,
    DocumentSubmitted,
    DocumentWritten,
    Event,
)
from schemas.queries import QueryAnswered, QueryAsked, RouteDecided, ShadowCompared
from schemas.rollout import PhaseChanged, RolloutCommanded, RolloutDecided
from schemas.service import ServiceChanged
from schemas.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Prefix of the schemas' own identifiers; nothing is fetched from there.
IDENTIFIER = "urn:crossfade:schema:"

EVENTS: tuple[type[Event], ...] = (
    DocumentSubmitted,
    DocumentChanged,
    DocumentResolved,
    DocumentEmbedded,
    DocumentWritten,
    DifferenceFound,
    DifferenceRepaired,
    QueryAsked,
    QueryAnswered,
    RouteDecided,
    ShadowCompared,
    ServiceChanged,
    RolloutCommanded,
    PhaseChanged,
    RolloutDecided,
)

JsonObject = dict[str, Any]


def event_schema(event: type[Event]) -> JsonObject:
    """Return the schema of an event's data, as producers may write it and consumers read it."""
    return {"$schema": DIALECT, "$id": IDENTIFIER + event.ce_type, **event.model_json_schema()}


def settings_schema() -> JsonObject:
    """Return the schema of `crossfade.toml`, for editors that check TOML."""
    return {"$schema": DIALECT, "$id": IDENTIFIER + "settings", **Settings.model_json_schema()}


def shared_schemas(ref_template: str) -> JsonObject:
    """Return the schemas of all events by name, in one namespace, with references in the given form.

    `ref_template` contains `{model}`, as in `#/components/schemas/{model}`.
    """
    _, definitions = models_json_schema([(event, "validation") for event in EVENTS], ref_template=ref_template)
    found: JsonObject = definitions["$defs"]
    return found


def schema_files() -> dict[str, JsonObject]:
    """Return every schema by its file name."""
    files = {f"{event.ce_type}.schema.json": event_schema(event) for event in EVENTS}
    files["crossfade.toml.schema.json"] = settings_schema()
    return files
