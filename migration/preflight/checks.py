"""The checks of `crossfade config check`: brokers, Connect, Qdrant and each database against the settings.

Only `apply_all` changes anything. A finding names the statement or the setting that fixes it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from connectors.addresses import connect_of
from connectors.debezium.configuration import CONNECTOR_CLASSES
from connectors.embedding.facts import ModelFacts
from connectors.errors import ConnectUnreachable, CrossfadeError, Misconfigured, StoreUnavailable, TaskFailed
from connectors.kafka.admin import broker_config, existing_topics, topic_names
from connectors.qdrant import healthy, socket_path, stored_dimension
from connectors.sql.databases import apply_remedies, check_legacy
from domain.legacy import Diagnostic, Setting
from migration.installation import Installation
from migration.preflight.databases import check_databases
from migration.preflight.models import check_chunking, check_model, check_record
from migration.rollout.states import edited_phase, read_states
from topics.provisioning import captured_table, desired_topics, largest_record, plan

_TIMEOUT_S = 10.0
_DATABASE_BOUND_S = 30.0
_BROKER_KEYS = ("message.max.bytes", "replica.fetch.max.bytes", "socket.request.max.bytes")


@dataclass(frozen=True, slots=True)
class Checked:
    """One part that was checked, and what was found in it."""

    part: str
    findings: tuple[Diagnostic, ...]


async def check_all(context: Installation) -> list[Checked]:
    """Check all parts concurrently. A missing answer is a finding, not an error."""
    collections = context.settings.collections
    looked = await asyncio.gather(*(check_model(name, collection) for name, collection in collections.items()))
    models = {name: facts for name, (facts, _) in zip(collections, looked, strict=True)}
    parts: list[tuple[str, Setting, Coroutine[Any, Any, list[Diagnostic]]]] = [
        ("configuration", Setting(""), _configuration(context, models, [one for _, found in looked for one in found])),
        ("kafka", Setting("crossfade up, or fix kafka.bootstrap"), _brokers(context)),
        ("topics", Setting("crossfade up, or fix kafka.bootstrap"), _topics(context)),
        ("phases", Setting("crossfade up, or fix kafka.bootstrap"), _phases(context)),
        ("connect", Setting("crossfade up, or fix kafka.connect"), _connect(context)),
        ("qdrant", Setting("crossfade up, or fix qdrant.url"), _qdrant(context, models)),
        ("databases", Setting("crossfade.toml: fix the dsn of each collection"), _databases(context)),
        *(
            (name, Setting(f"crossfade up, or fix collections.{name}.dsn"), _database(context, name, models[name]))
            for name in collections
        ),
    ]
    found = await asyncio.gather(*(_answered(name, remedy, check) for name, remedy, check in parts))
    return [Checked(name, tuple(findings)) for (name, _, _), findings in zip(parts, found, strict=True)]


async def apply_all(context: Installation, checked: Sequence[Checked]) -> list[str]:
    """Execute the SQL statements that fix findings of the databases; return them. Raises as the ports do."""
    done: list[str] = []
    for part in checked:
        if part.part in context.settings.collections:
            done += await apply_remedies(context.dsn(part.part), part.findings)
    return done


async def _answered(subject: str, remedy: Setting, check: Coroutine[Any, Any, list[Diagnostic]]) -> list[Diagnostic]:
    try:
        return await check
    except TaskFailed as error:
        return [Diagnostic("error", subject, error.message, Setting(error.hint) if error.hint else remedy)]
    except TimeoutError:
        return [Diagnostic("error", subject, "there is no answer in time", remedy)]
    except (CrossfadeError, OSError) as error:
        return [Diagnostic("error", subject, str(error), remedy)]


async def _configuration(
    context: Installation, models: dict[str, ModelFacts], known: list[Diagnostic]
) -> list[Diagnostic]:
    settings = context.settings
    findings = list(known)
    if not settings.collections:
        findings.append(
            Diagnostic(
                "error", "collections", "no collection is configured", Setting("crossfade.toml: add [collections.NAME]")
            )
        )
    if settings.kafka.max_text_bytes > settings.kafka.max_record_bytes:
        message = f"max_text_bytes {settings.kafka.max_text_bytes} is above max_record_bytes"
        remedy = Setting("crossfade.toml: lower kafka.max_text_bytes")
        findings.append(Diagnostic("error", "kafka", f"{message} {settings.kafka.max_record_bytes}", remedy))
    tables: dict[tuple[str, str | None, str], list[str]] = defaultdict(list)
    for name, collection in settings.collections.items():
        findings += check_chunking(name, collection, models[name])
        findings += check_record(name, collection, models[name], settings.kafka)
        try:
            tables[collection.connector, collection.dsn, captured_table(collection)].append(name)
        except ValueError as error:
            remedy = Setting(f'crossfade.toml: [collections.{name}] table = "database.{collection.table}"')
            findings.append(Diagnostic("error", name, str(error), remedy))
    for (_, _, table), names in tables.items():
        if len(names) > 1:
            message = f"this table is in more than one collection: {', '.join(names)}"
            findings.append(Diagnostic("error", table, message, Setting("crossfade.toml: leave one of them")))
    return findings


async def _brokers(context: Installation) -> list[Diagnostic]:
    kafka = context.settings.kafka
    brokers = await broker_config(context.bootstrap, _BROKER_KEYS)
    findings: list[Diagnostic] = []
    if len(brokers) < kafka.replication:
        message = f"replication is {kafka.replication}, there are {len(brokers)} brokers"
        findings.append(
            Diagnostic("error", "kafka", message, Setting(f"crossfade.toml: [kafka] replication = {len(brokers)}"))
        )
    needed = largest_record(kafka)
    for number, values in brokers.items():
        if int(values.get("socket.request.max.bytes", needed)) < needed:
            message = f"socket.request.max.bytes is below the largest record, {needed} bytes"
            remedy = Setting(f"server.properties: socket.request.max.bytes={4 * needed}")
            findings.append(Diagnostic("error", f"broker {number}", message, remedy))
        for key in ("message.max.bytes", "replica.fetch.max.bytes"):
            if int(values.get(key, needed)) < kafka.max_record_bytes:
                # The limits of the topics are what counts. The broker's limit applies to topics that others create.
                message = f"{key} is {values[key]}, below kafka.max_record_bytes {kafka.max_record_bytes}"
                remedy = Setting(f"server.properties: {key}={kafka.max_record_bytes}")
                findings.append(Diagnostic("warning", f"broker {number}", message, remedy))
    return findings


async def _phases(context: Installation) -> list[Diagnostic]:
    states = await read_states(context.bootstrap)
    return [
        Diagnostic("error", name, message, Setting(f'crossfade.toml: [collections.{name}] phase = "{began_as}"'))
        for name, collection in context.settings.collections.items()
        if (message := edited_phase(name, collection, states)) is not None
        for began_as in [states.known[name].began_as]
    ]


async def _topics(context: Installation) -> list[Diagnostic]:
    desired = desired_topics(context.settings, await topic_names(context.bootstrap))
    existing = await existing_topics(context.bootstrap, [topic.name for topic in desired])
    findings: list[Diagnostic] = []
    actions = plan(desired, existing)
    missing = [action.topic.name for action in actions if action.kind == "create"]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        message = f"{len(missing)} of {len(desired)} topics do not exist yet ({names}); a worker creates them too"
        findings.append(Diagnostic("warning", "topics", message, Setting("crossfade topics apply")))
    for action in actions:
        if action.kind == "refuse":
            remedy = Setting("crossfade topics list shows what it is and what it must be")
            findings.append(Diagnostic("error", action.topic.name, action.reason, remedy))
        elif action.kind == "reassign":
            remedy = Setting("crossfade topics apply --dry-run prints what kafka-reassign-partitions must be given")
            findings.append(Diagnostic("warning", action.topic.name, action.reason, remedy))
        elif action.kind not in {"keep", "create"}:
            remedy = Setting("crossfade topics apply" + (" --yes" if action.confirm else ""))
            findings.append(Diagnostic("warning", action.topic.name, action.reason, remedy))
    return findings


async def _connect(context: Installation) -> list[Diagnostic]:
    url = connect_of(context.settings.kafka)
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
            answer = await client.get("/connector-plugins")
            if answer.status_code != httpx.codes.OK:
                raise ConnectUnreachable(f"{url} does not answer as Kafka Connect: HTTP {answer.status_code}")
            known = {plugin.get("class") for plugin in answer.json()}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise ConnectUnreachable(f"{url} does not answer as Kafka Connect: {error or type(error).__name__}") from error
    wanted = {collection.connector for collection in context.settings.collections.values()}
    return [
        Diagnostic(
            "error",
            "connect",
            f"the Debezium connector for {name} is not installed: {CONNECTOR_CLASSES[name]}",
            Setting("put it into a folder of Connect's plugin.path, and start Connect again"),
        )
        for name in sorted(wanted)
        if CONNECTOR_CLASSES[name] not in known
    ]


async def _qdrant(context: Installation, models: dict[str, ModelFacts]) -> list[Diagnostic]:
    findings: list[Diagnostic] = []
    qdrant = context.settings.qdrant
    if not context.settings.collections and qdrant.url is None and not await healthy(socket_path(context.home)):
        raise StoreUnavailable("Qdrant's engine of the local stack does not run")
    for name, collection in context.settings.collections.items():
        remedy = Setting("choose another model, or another name for the collection")
        try:
            found, made = await stored_dimension(qdrant, context.home, name), models[name].dimension
        except Misconfigured as error:
            findings.append(Diagnostic("error", name, str(error), remedy))
            continue
        if found is not None and made is not None and found != made:
            message = f"the collection has vectors of {found} numbers, {collection.model} makes {made}"
            findings.append(Diagnostic("error", name, message, remedy))
    return findings


async def _databases(context: Installation) -> list[Diagnostic]:
    async with asyncio.timeout(_DATABASE_BOUND_S):
        return await check_databases(context)


async def _database(context: Installation, name: str, model: ModelFacts) -> list[Diagnostic]:
    async with asyncio.timeout(_DATABASE_BOUND_S):
        return await check_legacy(name, context.settings.collections[name], context.dsn(name), model.dimension)
