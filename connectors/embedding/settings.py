"""The settings of the embedding engine, as frozen values. Nothing is read or computed here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from schemas.settings import Collection, Embedding

EngineKind = Literal["onnx-int8", "onnx-fp32", "torch"]


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """The model, how it is run, and the bounds of its queue.

    `model` is a folder, a name that an installed package carries, or a name on the hub (`owner/name`,
    `owner/name@revision`). `threads` 0 means one for each core. `batch_size` and `queue_limit` count texts.
    `chunk_tokens` 0 means the model's window. `timeout_s` is the longest wait without progress. `export_timeout_s`
    bounds the export of the ONNX model.
    """

    model: str = "all-MiniLM-L6-v2"
    engine: EngineKind = "onnx-int8"
    threads: int = 0
    batch_size: int = 32
    queue_limit: int = 512
    chunk_tokens: int = 0
    chunk_overlap: int = 0
    minimum_cosine: float = 0.97
    timeout_s: float = 120.0
    export_timeout_s: float = 900.0

    @classmethod
    def of(cls, engine: Embedding, collection: Collection) -> EmbeddingSettings:
        """Return the configured settings for one collection."""
        return cls(
            model=collection.model,
            engine=engine.engine,
            threads=engine.threads,
            batch_size=engine.batch_size,
            queue_limit=engine.queue_limit,
            chunk_tokens=collection.chunk_tokens,
            chunk_overlap=collection.chunk_overlap,
            minimum_cosine=engine.minimum_cosine,
            timeout_s=engine.timeout_s,
        )

    def cores(self) -> int:
        """Return the number of threads that compute documents."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
