"""Kafka Connect with Debezium: one worker in distributed mode. `connectors.kafka.connect` creates the connectors."""

from __future__ import annotations

import httpx

from connectors.kafka.connect import PLAIN
from stack.java import java_home
from stack.jvm import MESSAGE_MAX_BYTES, java_command, properties
from stack.layout import LOOPBACK, write_private
from stack.part import Launch, Part, Progress

_HEAP_MIB = 768
_CHECK_BOUND_S = 3.0


class Connect(Part):
    """A Connect worker whose connectors and offsets live in topics of the broker."""

    name = "connect"
    stop_bound_s = 40.0

    async def prepare(self, progress: Progress) -> Launch:
        """Write worker.properties."""
        java = await java_home(progress)
        folder = self.layout.configuration("connect")
        folder.mkdir(parents=True, exist_ok=True)
        data = self.layout.data("connect")
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        worker = folder / "worker.properties"
        write_private(worker, properties(self._settings()))
        main_class = "org.apache.kafka.connect.cli.ConnectDistributed"
        return Launch(java_command(java, main_class, [str(worker)], folder, _HEAP_MIB), cwd=data)

    async def check(self) -> None:
        """Check that the worker reports that it is in its group and has read its topics."""
        async with httpx.AsyncClient(timeout=_CHECK_BOUND_S, trust_env=False, verify=PLAIN) as client:
            answer = await client.get(f"http://{LOOPBACK}:{self.port}/health")
        if answer.status_code != httpx.codes.OK:
            raise ConnectionError(f"health: {answer.status_code} {answer.text[:200]}")

    def _settings(self) -> dict[str, object]:
        return {
            "bootstrap.servers": f"{LOOPBACK}:{self.state.ports['kafka']}",
            "group.id": "crossfade-connect",
            "listeners": f"http://{LOOPBACK}:{self.port}",
            "rest.advertised.host.name": LOOPBACK,
            "rest.advertised.port": self.port,
            "plugin.discovery": "service_load",
            "config.storage.topic": "crossfade.connect.configurations",
            "config.storage.replication.factor": 1,
            "offset.storage.topic": "crossfade.connect.offsets",
            "offset.storage.replication.factor": 1,
            "offset.storage.partitions": 1,
            "status.storage.topic": "crossfade.connect.statuses",
            "status.storage.replication.factor": 1,
            "status.storage.partitions": 1,
            # crossfade provisions topics itself.
            "topic.creation.enable": False,
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "key.converter.schemas.enable": False,
            "value.converter.schemas.enable": False,
            "offset.flush.interval.ms": 1_000,
            # A worker that returns after a crash gets its connectors at once, not after five minutes, and the crashed
            # worker's membership ends soon.
            "scheduled.rebalance.max.delay.ms": 0,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 1_500,
            "rebalance.timeout.ms": 30_000,
            "producer.max.request.size": MESSAGE_MAX_BYTES,
            "producer.buffer.memory": 4 * MESSAGE_MAX_BYTES,
            "producer.linger.ms": 0,
            "consumer.max.partition.fetch.bytes": MESSAGE_MAX_BYTES,
            "consumer.fetch.max.bytes": 4 * MESSAGE_MAX_BYTES,
            "connector.client.config.override.policy": "All",
        }
