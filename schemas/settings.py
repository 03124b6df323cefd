"""The settings in `crossfade.toml`, as frozen models. The file and the environment are read elsewhere."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.documents import CollectionName
from schemas.rollout import Phase

Connector = Literal["postgres", "mariadb"]
InitialLoad = Literal["snapshot", "backfill"]
INITIAL_LOADS: tuple[InitialLoad, ...] = get_args(InitialLoad)
Quantization = Literal["none", "scalar", "binary", "product"]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]


_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def _table_name(name: str) -> str:
    if not _TABLE.fullmatch(name):
        raise ValueError(
            "the name of a table, and of its schema before a dot, is part of a Kafka topic's name: letters, digits and "
            "underscores only; rename the table"
        )
    return name


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmbeddingColumn(_Section):
    """A table column with a precomputed embedding: pgvector, a JSON array, or little-endian float32 bytes."""

    column: Identifier
    format: Literal["pgvector", "json", "float32"]


class GateLimits(_Section):
    """What must be measured before a rollout goes on, and what makes it go back.

    `proof_max_age_s` is the age of the oldest part of the proof. `error_rate` is the share of the questions that Qdrant
    may fail, `unequal_rate` the share of the compared questions in which a document of the answer may be missing in the
    other store, `slow_share` the share of its answers that may take longer than `p95_ms`. `confidence` is the certainty
    with which a share must be known, and `min_samples` the least number of questions behind it.
    """

    proof_max_age_s: Annotated[float, Field(gt=0)] = 86_400.0
    lag_max_s: Annotated[float, Field(gt=0)] = 60.0
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    p95_ms: Annotated[float, Field(gt=0)] = 1000.0
    unequal_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    slow_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    min_samples: Annotated[int, Field(ge=1)] = 200


class Guards(_Section):
    """What takes a collection back by itself while users get answers of Qdrant.

    A breach must last for `hold_s` over the questions of the last `window_s`. After it, no promotion is accepted for
    `cooldown_s`.
    """

    enabled: bool = True
    window_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    hold_s: Annotated[float, Field(ge=0, le=600)] = 2.0
    cooldown_s: Annotated[float, Field(ge=0, le=86_400)] = 300.0


class Shadow(_Section):
    """Which questions are also asked of the other side: a share of them, and at most so many per second.

    For `noise_share` of these the answering side is asked twice, which shows how much it differs from itself.
    """

    rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    per_second: Annotated[float, Field(gt=0, le=10_000)] = 5.0
    noise_share: Annotated[float, Field(ge=0, le=1)] = 0.1


class Collection(_Section):
    """One document store to move: the place of its rows, the use of its columns, and the embedding of its text.

    `table` may name its schema (`public.articles`). Without `dsn` the table is in the local stack's database.
    `initial_load` sets how the existing rows reach Qdrant: by capture's snapshot through log and agents, or by
    `crossfade backfill`, which is meant for millions of rows. `chunk_tokens` 0 means the model's window. `quantization`
    and `on_disk` apply to a collection that is created in Qdrant. The first sets which form of the vectors a search
    compares first (the originals decide), the second whether the originals stay on disk.
    """

    connector: Connector = "postgres"
    dsn: str | None = None
    table: Annotated[str, AfterValidator(_table_name)]
    key: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    text: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    metadata: tuple[Identifier, ...] = ()
    tenant: Identifier | None = None
    embedding: EmbeddingColumn | None = None
    phase: Phase = "dual_write"
    model: str = "all-MiniLM-L6-v2"
    chunk_tokens: Annotated[int, Field(ge=0)] = 0
    chunk_overlap: Annotated[int, Field(ge=0)] = 0
    text_search_config: Identifier = "english"
    initial_load: InitialLoad = "snapshot"
    quantization: Quantization = "none"
    on_disk: bool = False
    gates: GateLimits = GateLimits()
    shadow: Shadow = Shadow()
    guards: Guards = Guards()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a document, in the order key, text, metadata, tenant, embedding."""
        embedding = [self.embedding.column] if self.embedding else []
        return (*self.key, *self.content_columns, *embedding)

    @property
    def content_columns(self) -> tuple[str, ...]:
        """The columns of a document's content: text, metadata and tenant."""
        return (*self.text, *self.metadata, *([self.tenant] if self.tenant else []))

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Collection:
        used = self.columns
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise ValueError(f"column used twice: {', '.join(twice)}")
        return self


class Kafka(_Section):
    """The brokers, Kafka Connect, and the limits of records. Without addresses the local stack is used."""

    bootstrap: str | None = None
    connect: str | None = None
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    replication: Annotated[int, Field(ge=1, le=10)] = 1
    max_record_bytes: int = 16 * 1024 * 1024
    max_text_bytes: int = 1024 * 1024
    capture_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "crossfade.capture"


class Qdrant(_Section):
    """A Qdrant server (gRPC and REST). Without `url`: Qdrant's engine, hosted by the local stack on a Unix socket."""

    url: str | None = None
    grpc_port: int = 6334
    prefer_grpc: bool = True
    api_key: str | None = None
    timeout_s: float = 10.0


class Embedding(_Section):
    """The embedding engine. `threads` 0 means one per core; `queue_limit` counts texts."""

    engine: Literal["onnx-int8", "onnx-fp32", "torch"] = "onnx-int8"
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 32
    queue_limit: Annotated[int, Field(ge=1)] = 512
    minimum_cosine: float = 0.97
    timeout_s: float = 120.0


class Worker(_Section):
    """Limits of the agents: `batch` in records, retries in attempts, `stall_s` of the watchdog, `drain_s` of a stop.

    A batch ends with the record that brings it to `batch_bytes`. The same limit applies to the bytes that wait for a
    role. Under load a role begins a batch at most once every `batch_interval_ms`. After `restart_attempts` quick
    failures in a row the supervisor gives up on the worker.
    """

    batch: Annotated[int, Field(ge=1, le=10_000)] = 256
    batch_bytes: Annotated[int, Field(ge=64 * 1024, le=1024 * 1024 * 1024)] = 8 * 1024 * 1024
    batch_interval_ms: Annotated[int, Field(ge=0, le=1000)] = 20
    retry_attempts: Annotated[int, Field(ge=1, le=100)] = 8
    retry_max_s: float = 10.0
    stall_s: float = 60.0
    drain_s: float = 20.0
    restart_attempts: Annotated[int, Field(ge=1, le=1000)] = 5
    http_port: Annotated[int, Field(ge=0, le=65535)] = 0
    queries_in_flight: Annotated[int, Field(ge=1, le=1024)] = 32


class Routing(_Section):
    """How queries are served: the time limit of a backend, and when its circuit breaker opens and tries again."""

    backend_timeout_ms: Annotated[int, Field(ge=10, le=120_000)] = 1500
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_cooldown_s: float = 5.0


class Settings(_Section):
    """The whole configuration, read once and frozen."""

    kafka: Kafka = Kafka()
    qdrant: Qdrant = Qdrant()
    embedding: Embedding = Embedding()
    worker: Worker = Worker()
    routing: Routing = Routing()
    collections: Annotated[dict[CollectionName, Collection], Field(default_factory=dict)]
