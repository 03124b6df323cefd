"""Reads and changes topics on the brokers. `topics.provisioning` decides what to change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from connectors.errors import Misconfigured
from connectors.kafka.errors import mapped
from topics.provisioning import CONFIG_KEYS, Action, ExistingTopic

log = logging.getLogger("crossfade.kafka")
_TIMEOUT_S = 30.0
_SETTLE_S = 0.1
# The source by which DescribeConfigs marks a value that was set on the topic itself.
_SET_ON_TOPIC = 1


@asynccontextmanager
async def admin_client(bootstrap: str, *, timeout_s: float = _TIMEOUT_S) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a connected admin client and map its errors. Everything done with it must end within `timeout_s`."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="crossfade-admin", request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(timeout_s):
            await client.start()
            yield client
    except (KafkaError, OSError) as error:
        raise mapped(error, bootstrap) from error
    finally:
        await client.close()


async def existing_topics(bootstrap: str, names: Iterable[str]) -> dict[str, ExistingTopic]:
    """Return the named topics that exist. Raises StoreUnavailable when the brokers do not answer."""
    async with admin_client(bootstrap) as client:
        return await _existing(client, names)


async def topic_names(bootstrap: str) -> tuple[str, ...]:
    """Return the names of all topics. Raises StoreUnavailable."""
    async with admin_client(bootstrap) as client:
        return tuple(await client.list_topics())


async def partition_counts(bootstrap: str, names: Iterable[str], *, timeout_s: float = _TIMEOUT_S) -> dict[str, int]:
    """Return the number of partitions of each named topic that exists. Raises StoreUnavailable."""
    wanted = set(names)
    async with admin_client(bootstrap, timeout_s=timeout_s) as client:
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in await client.describe_topics()
            if topic["topic"] in wanted and for_code(topic["error_code"]) is NoError
        }


async def apply(bootstrap: str, actions: Sequence[Action]) -> None:
    """Carry out the creations, widenings and alterations among the actions, and wait until every topic is usable.

    Raises Refused for what the brokers refuse (more replicas than brokers, a policy), and StoreUnavailable.
    """
    async with admin_client(bootstrap) as client:
        await _create(client, [action for action in actions if action.kind == "create"])
        widened = [action for action in actions if action.kind == "widen"]
        if widened:
            await client.create_partitions({action.topic.name: NewPartitions(action.partitions) for action in widened})
        await _alter(client, {action.topic.name: action.changes for action in actions if action.kind == "alter"})
        await _settled(client, {a.topic.name: a.partitions for a in actions if a.kind in {"create", "widen"}})


async def broker_ids(bootstrap: str) -> list[int]:
    """Return the ids of the available brokers."""
    async with admin_client(bootstrap) as client:
        return sorted(broker["node_id"] for broker in (await client.describe_cluster())["brokers"])


async def broker_config(bootstrap: str, keys: Iterable[str]) -> dict[int, dict[str, str]]:
    """Return configuration values of every broker by its id; leave out keys that a broker does not have."""
    wanted = set(keys)
    found: dict[int, dict[str, str]] = {}
    async with admin_client(bootstrap) as client:
        cluster = await client.describe_cluster()
        for broker in cluster["brokers"]:
            resource = ConfigResource(ConfigResourceType.BROKER, str(broker["node_id"]))
            entries = await _described(client, [resource])
            values = entries.get(str(broker["node_id"]), {})
            found[broker["node_id"]] = {name: value for name, (value, _) in values.items() if name in wanted}
    return found


async def delete_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Delete topics with all their records; used by tests and to take down a trial, never by `topics apply`."""
    async with admin_client(bootstrap) as client:
        response = await client.delete_topics(list(names))
        for name, code in response.topic_error_codes:
            if code:
                raise mapped(for_code(code)(name), name)


async def _existing(client: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, ExistingTopic]:
    wanted = set(names)
    described = [
        topic
        for topic in await client.describe_topics()
        if topic["topic"] in wanted and for_code(topic["error_code"]) is NoError
    ]
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic["topic"]) for topic in described]
    configs = await _described(client, resources) if resources else {}
    return {
        topic["topic"]: ExistingTopic(
            topic["topic"],
            len(topic["partitions"]),
            min((len(partition["replicas"]) for partition in topic["partitions"]), default=0),
            {key: configs[topic["topic"]][key][0] for key in CONFIG_KEYS if key in configs[topic["topic"]]},
            {partition["partition"]: tuple(partition["replicas"]) for partition in topic["partitions"]},
            min((len(partition["isr"]) for partition in topic["partitions"]), default=0),
        )
        for topic in described
    }


async def _described(
    client: AIOKafkaAdminClient, resources: Sequence[ConfigResource]
) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the values of each resource by name: (value, whether it was set on the topic itself)."""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for response in await client.describe_configs(list(resources)):
        for code, message, _, name, entries in response.resources:
            if code:
                raise mapped(for_code(code)(message), name)
            found[name] = {entry[0]: (entry[1], entry[3] == _SET_ON_TOPIC) for entry in entries}
    return found


async def _create(client: AIOKafkaAdminClient, actions: Sequence[Action]) -> None:
    if not actions:
        return
    topics = [
        NewTopic(action.topic.name, action.partitions, action.topic.replication, topic_configs=dict(action.changes))
        for action in actions
    ]
    response = await client.create_topics(topics)
    for name, code, message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # a concurrent `apply` created it
            raise mapped(error(message), name)


async def _alter(client: AIOKafkaAdminClient, changes: Mapping[str, Mapping[str, str]]) -> None:
    if not changes:
        return
    # This request replaces all values that were set on a topic, so unchanged values are sent again.
    described = await _described(client, [ConfigResource(ConfigResourceType.TOPIC, name) for name in changes])
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC,
            name,
            {key: value for key, (value, on_topic) in described[name].items() if on_topic} | dict(wanted),
        )
        for name, wanted in changes.items()
    ]
    for response in await client.alter_configs(resources):
        for code, message, _, name in response.resources:
            if code:
                raise mapped(for_code(code)(message), name)


async def _settled(client: AIOKafkaAdminClient, partitions: Mapping[str, int]) -> None:
    """Wait until every partition has a leader: a consumer that asks earlier would get an empty assignment."""
    pending = dict(partitions)
    while pending:
        for topic in await client.describe_topics(list(pending)):
            if _led(topic) >= pending.get(topic["topic"], 0):
                pending.pop(topic["topic"], None)
        if pending:
            await asyncio.sleep(_SETTLE_S)


def _led(topic: Any) -> int:
    if for_code(topic["error_code"]) is not NoError:
        return -1
    return sum(1 for partition in topic["partitions"] if partition["leader"] >= 0)


async def provision(bootstrap: str, actions: Sequence[Action]) -> None:
    """Carry out a plan without an operator, except for changes that only shorten or change how records are retained.

    Replicas are not changed either: a topic with fewer replicas than wanted takes records as before. Raises
    Misconfigured, naming the topic, when a number of partitions is refused or would need confirmation.
    """
    for action in actions:
        if action.kind == "reassign":
            log.warning("%s: %s", action.topic.name, action.reason)
        if action.kind == "refuse" or (action.kind == "widen" and action.confirm):
            raise Misconfigured(f"{action.topic.name}: {action.reason} {action.confirm}".strip())
    await apply(bootstrap, [action for action in actions if not action.confirm])
