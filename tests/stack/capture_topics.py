"""The topics of a connector that a test starts by itself."""

from __future__ import annotations

from collections.abc import Sequence

from topics.captures import HEARTBEAT_PREFIX


def capture_topics(topic_prefix: str, tables: Sequence[str]) -> tuple[str, ...]:
    """Return the topics that a connector writes: one for each table, and one for its heartbeats.

    They must exist before it starts: Connect retries writes to a missing topic for ever, without a failure.
    """
    return (*(f"{topic_prefix}.{table}" for table in tables), f"{HEARTBEAT_PREFIX}{topic_prefix}")
