"""The Kafka broker: one node that is its own controller (KRaft). Crossfade's topics are provisioned elsewhere."""

from __future__ import annotations

import asyncio
import subprocess

from aiokafka.admin import AIOKafkaAdminClient

from connectors.errors import ProcessFailed
from stack.java import java_home
from stack.jvm import MESSAGE_MAX_BYTES, java_command, properties
from stack.layout import LOOPBACK, write_private
from stack.part import Launch, Part, Progress

_HEAP_MIB = 512
_CHECK_BOUND_MS = 3_000
_FORMAT_BOUND_S = 60.0


class Broker(Part):
    """Kafka on loopback, for records of up to 16 MiB."""

    name = "kafka"
    stop_bound_s = 40.0

    def ports(self) -> tuple[int, ...]:
        """Return the port of its clients, and that of its own controller."""
        return (self.port, self.state.ports["kafka_controller"])

    async def prepare(self, progress: Progress) -> Launch:
        """Write server.properties, and format the storage once."""
        java = await java_home(progress)
        folder = self.layout.configuration("kafka")
        folder.mkdir(parents=True, exist_ok=True)
        data = self.layout.data("kafka")
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = folder / "server.properties"
        write_private(server, properties(self._settings()))
        if not (data / "meta.properties").exists():
            # An id may begin with a hyphen; only the form with "=" takes it as a value.
            arguments = ["format", f"--cluster-id={self.state.kafka_cluster_id}", "--config", str(server)]
            command = java_command(java, "kafka.tools.StorageTool", arguments, folder, _HEAP_MIB)
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=_FORMAT_BOUND_S, check=False
            )
            if done.returncode != 0:
                raise ProcessFailed(
                    f"The storage of Kafka cannot be prepared: {done.stderr.strip() or done.stdout.strip()}"
                )
        return Launch(java_command(java, "kafka.Kafka", [str(server)], folder, _HEAP_MIB), cwd=data)

    async def check(self) -> None:
        """Check that the broker describes its cluster."""
        # First a plain connection: the client logs an error for each refused one.
        _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, self.port), _CHECK_BOUND_MS / 1000)
        writer.close()
        client = AIOKafkaAdminClient(bootstrap_servers=f"{LOOPBACK}:{self.port}", request_timeout_ms=_CHECK_BOUND_MS)
        try:
            await client.start()
            await client.describe_cluster()
        finally:
            await client.close()

    def _settings(self) -> dict[str, object]:
        controller = f"{LOOPBACK}:{self.state.ports['kafka_controller']}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.layout.data("kafka"),
            # A topic that nobody provisioned is a mistake; never create it with default settings.
            "auto.create.topics.enable": False,
            "num.partitions": 1,
            "message.max.bytes": MESSAGE_MAX_BYTES,
            "replica.fetch.max.bytes": MESSAGE_MAX_BYTES,
            "fetch.max.bytes": 4 * MESSAGE_MAX_BYTES,
            "offsets.topic.num.partitions": 8,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # Only one group member at a time joins here: waiting for others only delays the first assignment.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 3_000,
            # A broker that was killed may register again only after its last session has ended.
            "broker.session.timeout.ms": 4_000,
            "broker.heartbeat.interval.ms": 1_000,
            # With one replica, an acknowledged record is only in the page cache: limit what a power cut can lose.
            "log.flush.interval.ms": 1_000,
            "log.segment.bytes": 128 * 1024 * 1024,
            # Index files are sparse but mapped: small ones keep many small topics cheap.
            "log.index.size.max.bytes": 1024 * 1024,
            # Two records a second would only show that the controller still works. Nobody asks it but this broker,
            # which is the controller itself.
            "metadata.max.idle.interval.ms": 0,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "log.cleaner.io.buffer.size": 2 * MESSAGE_MAX_BYTES,
            "num.recovery.threads.per.data.dir": 2,
        }
