"""The checks of `crossfade config check`: brokers, Connect, Qdrant and each database against the settings.

Nothing is changed here; a finding names the statement or the setting that mends it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from connectors.embedding.locate import BUNDLED, DEFAULT_OWNER, locate_model
from connectors.errors import CrossfadeError
from connectors.kafka.admin import broker_config, existing_topics
from connectors.legacy_connector import apply_mend, check_legacy
from connectors.qdrant import healthy, socket_path
from domain.legacy import Finding
from operations.context import Context
from operations.errors import CommandError
from schemas.settings import Collection, Qdrant
from topics.provisioning import captured_table, desired_topics, largest_record, plan

_TIMEOUT_S = 10.0
_DATABASE_BOUND_S = 30.0
_CONNECTOR_CLASSES = {
    "postgres": "io.debezium.connector.postgresql.PostgresConnector",
    "mariadb": "io.debezium.connector.mariadb.MariaDbConnector",
}
_BROKER_KEYS = ("message.max.bytes", "replica.fetch.max.bytes", "socket.request.max.bytes")


@dataclass(frozen=True, slots=True)
class Checked:
    """One part that was looked at, and what was found in it."""

    part: str
    findings: tuple[Finding, ...]


async def check_all(context: Context) -> list[Checked]:
    """Look at every part at the same time. An answer that does not come is a finding, not an error."""
    settings = context.settings
    parts: list[tuple[str, Coroutine[Any, Any, list[Finding]]]] = [
        ("configuration", _configuration(context)),
        ("kafka", _brokers(context)),
        ("topics", _topics(context)),
        ("connect", _connect(context)),
        ("qdrant", _qdrant(context)),
        *((name, _database(context, name, collection)) for name, collection in settings.collections.items()),
    ]
    found = await asyncio.gather(*(_answered(name, check) for name, check in parts))
    return [Checked(name, tuple(findings)) for (name, _), findings in zip(parts, found, strict=True)]


async def mend_all(context: Context, checked: Sequence[Checked]) -> list[str]:
    """Execute the SQL statements that mend findings of the databases; return them. Raises as the ports do."""
    done: list[str] = []
    for part in checked:
        if part.part in context.settings.collections:
            done += await apply_mend(context.dsn(part.part), part.findings)
    return done


async def _answered(subject: str, check: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    try:
        return await check
    except CommandError as error:
        return [Finding("error", subject, error.message, f"-- {error.hint}" if error.hint else None)]
    except TimeoutError:
        return [Finding("error", subject, "there is no answer in time")]
    except (CrossfadeError, OSError) as error:
        return [Finding("error", subject, str(error))]


async def _configuration(context: Context) -> list[Finding]:
    settings = context.settings
    findings: list[Finding] = []
    if not settings.collections:
        findings.append(
            Finding("error", "collections", "no collection is configured", "-- crossfade.toml: add [collections.NAME]")
        )
    if settings.kafka.max_text_bytes > settings.kafka.max_record_bytes:
        message = f"max_text_bytes {settings.kafka.max_text_bytes} is above max_record_bytes"
        findings.append(
            Finding("error", "kafka", f"{message} {settings.kafka.max_record_bytes}", "-- crossfade.toml: lower it")
        )
    tables: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
    for name, collection in settings.collections.items():
        try:
            tables[collection.connector, collection.dsn, captured_table(collection)].append(name)
        except ValueError as error:
            findings.append(Finding("error", name, str(error)))
        if collection.chunk_tokens and collection.chunk_overlap >= collection.chunk_tokens:
            findings.append(Finding("error", name, "chunk_overlap must be below chunk_tokens"))
    for (_, _, table), names in tables.items():
        if len(names) > 1:
            findings.append(Finding("error", table, f"this table is in more than one collection: {', '.join(names)}"))
    return findings


async def _brokers(context: Context) -> list[Finding]:
    kafka = context.settings.kafka
    brokers = await broker_config(context.bootstrap, _BROKER_KEYS)
    findings: list[Finding] = []
    if len(brokers) < kafka.replication:
        message = f"replication is {kafka.replication}, there are {len(brokers)} brokers"
        findings.append(Finding("error", "kafka", message, f"-- crossfade.toml: [kafka] replication = {len(brokers)}"))
    needed = largest_record(kafka)
    for number, values in brokers.items():
        if int(values.get("socket.request.max.bytes", needed)) < needed:
            message = f"socket.request.max.bytes is below the largest record, {needed} bytes"
            mend = f"-- server.properties: socket.request.max.bytes={4 * needed}"
            findings.append(Finding("error", f"broker {number}", message, mend))
        for key in ("message.max.bytes", "replica.fetch.max.bytes"):
            if int(values.get(key, needed)) < kafka.max_record_bytes:
                # The topics' own limits are what counts; this one is what topics that others make will have.
                message = f"{key} is {values[key]}, below kafka.max_record_bytes {kafka.max_record_bytes}"
                mend = f"-- server.properties: {key}={kafka.max_record_bytes}"
                findings.append(Finding("warning", f"broker {number}", message, mend))
    return findings


async def _topics(context: Context) -> list[Finding]:
    desired = desired_topics(context.settings)
    existing = await existing_topics(context.bootstrap, [topic.name for topic in desired])
    findings: list[Finding] = []
    for action in plan(desired, existing):
        if action.kind == "refuse":
            findings.append(Finding("error", action.topic.name, action.reason))
        elif action.kind == "create":
            findings.append(Finding("warning", action.topic.name, "does not exist yet", "-- crossfade topics apply"))
        elif action.kind != "keep":
            mend = "-- crossfade topics apply" + (" --yes" if action.confirm else "")
            findings.append(Finding("warning", action.topic.name, action.reason, mend))
    return findings


async def _connect(context: Context) -> list[Finding]:
    url = context.settings.kafka.connect
    if url is None:
        return [Finding("error", "connect", "no Kafka Connect is known", "-- crossfade up, or set kafka.connect")]
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get("/connector-plugins")
            answer.raise_for_status()
            known = {plugin.get("class") for plugin in answer.json()}
    except (httpx.HTTPError, ValueError) as error:
        return [Finding("error", "connect", f"{url} does not answer as Kafka Connect: {error or type(error).__name__}")]
    wanted = {collection.connector for collection in context.settings.collections.values()}
    return [
        Finding("error", "connect", f"the Debezium connector for {name} is not installed: {_CONNECTOR_CLASSES[name]}")
        for name in sorted(wanted)
        if _CONNECTOR_CLASSES[name] not in known
    ]


async def _qdrant(context: Context) -> list[Finding]:
    qdrant = context.settings.qdrant
    if qdrant.url is None:
        if await healthy(socket_path(context.home)):
            return []
        return [Finding("error", "qdrant", "the local engine does not run", "-- crossfade up, or set qdrant.url")]
    headers = {"api-key": qdrant.api_key} if qdrant.api_key else {}
    findings: list[Finding] = []
    try:
        async with httpx.AsyncClient(
            base_url=qdrant.url, timeout=qdrant.timeout_s, headers=headers, trust_env=False
        ) as client:
            (await client.get("/collections")).raise_for_status()
            for name, collection in context.settings.collections.items():
                answer = await client.get(f"/collections/{name}")
                if answer.status_code == httpx.codes.OK:
                    findings += _dimension(qdrant, name, collection, answer.json())
    except (httpx.HTTPError, ValueError) as error:
        findings.append(Finding("error", "qdrant", f"{qdrant.url} does not answer as Qdrant: {error or type(error)}"))
    return findings


def _dimension(qdrant: Qdrant, name: str, collection: Collection, described: dict[str, Any]) -> list[Finding]:
    vectors = described.get("result", {}).get("config", {}).get("params", {}).get("vectors", {})
    dense = vectors.get("dense") if isinstance(vectors, dict) else None
    if not isinstance(dense, dict):
        message = f"the collection {name} in {urlsplit(qdrant.url or '').netloc} has no vector named dense"
        return [Finding("error", name, message, "-- choose another name for the collection")]
    wanted = _model_dimension(collection.model)
    if wanted is not None and dense.get("size") != wanted:
        message = f"the collection has vectors of {dense.get('size')} numbers, {collection.model} makes {wanted}"
        return [Finding("error", name, message, "-- choose another model, or another name for the collection")]
    return []


def _model_dimension(model: str) -> int | None:
    """Return the dimension of a model whose files are here; None where it would have to be loaded or fetched."""
    is_here = Path(model).expanduser().is_dir() or model.removeprefix(f"{DEFAULT_OWNER}/") in BUNDLED
    if not is_here:
        return None
    try:
        folder = locate_model(model, _unheard)
        modules = orjson.loads((folder / "modules.json").read_bytes())
        if any(module["type"].endswith(".Dense") for module in modules):
            return None  # what comes after the pooling changes the dimension
        return int(orjson.loads((folder / "1_Pooling" / "config.json").read_bytes())["word_embedding_dimension"])
    except (CrossfadeError, OSError, ValueError, KeyError, TypeError):
        return None


def _unheard(progress: str) -> None:
    """Take the progress of something that is quick."""


async def _database(context: Context, name: str, collection: Collection) -> list[Finding]:
    async with asyncio.timeout(_DATABASE_BOUND_S):
        return await check_legacy(name, collection, context.dsn(name))
