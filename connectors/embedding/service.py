"""The adapter of the port `Embedder` over a real model: chunker, document lane and query lane of one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from connectors.embedding.cache import open_engine
from connectors.embedding.chunking import Chunker
from connectors.embedding.engine import Engine
from connectors.embedding.lanes import DocumentLane, QueryLane
from connectors.embedding.model import ModelDescription, ModelIdentity, normalised, to_bytes
from connectors.embedding.settings import EmbeddingSettings

__all__ = ["EmbeddingService", "EmbeddingSettings", "open_embedding"]

# More threads than this for questions would only compete for the cores that documents use.
_QUERY_THREADS = 4
# A prompt and its text may share a token at their boundary; their sum may be off by a few.
_PROMPT_SLACK = 2
# Cutting a thousand characters takes 1 to 2.5 ms (all-MiniLM-L6-v2, two cores). A round trip to a thread takes 0.1 ms
# on an idle machine, and several ms while other threads hold Python's lock.
_CUT_ON_LOOP_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class _Lanes:
    documents: DocumentLane
    queries: QueryLane
    engines: tuple[Engine, ...]


class EmbeddingService:
    """One model in this process. Services made by `with_chunking` share its engine and queue, and close with it."""

    def __init__(self, lanes: _Lanes, description: ModelDescription, chunker: Chunker) -> None:
        self._lanes = lanes
        self._description = description
        self._chunker = chunker

    @property
    def identity(self) -> ModelIdentity:
        """Name, revision and dimension of the model."""
        return self._description.identity

    @property
    def model_key(self) -> str:
        """Name and revision of the model, as stored with every vector."""
        return self.identity.key

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self.identity.dimension

    def chunks(self, text: str) -> tuple[str, ...]:
        """Return the pieces of a text, at least one, short enough for the model to read whole.

        Takes about a millisecond for a page and seconds for a megabyte. From an event loop, use `chunked`.
        """
        return self._chunker.chunks(text)

    async def chunked(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[tuple[str, ...]]:
        """Return the chunks of each text, computed on a thread unless all texts together are only a few lines.

        `progress` is called while long texts are cut, from that thread.
        Raises EmbeddingFailed for a text that is not valid Unicode.
        """
        if sum(map(len, texts)) <= _CUT_ON_LOOP_CHARACTERS:
            return [self._chunker.chunks(text) for text in texts]
        return await asyncio.to_thread(lambda: [self._chunker.chunks(text, progress) for text in texts])

    async def embed_documents(self, texts: Sequence[str], progress: Callable[[], None] = lambda: None) -> list[bytes]:
        """Return one vector for each text; waits while the queue is full. `progress` is called as vectors arrive.

        Raises EmbeddingFailed if one of the texts has no usable vector, EmbeddingUnavailable if the service is closed
        or times out. A text longer than the model's window has no usable vector either: nothing is cut.
        """
        prompt = self._description.document_prompt
        return await self._lanes.documents.embed([prompt + text for text in texts] if prompt else texts, progress)

    async def embed_query(self, text: str) -> bytes:
        """Return the vector of a question, never waiting behind documents. Raises as `embed_documents` does.

        A question longer than the model's window gets the mean direction of its chunks.
        """
        return await self._lanes.queries.embed(text)

    def with_chunking(self, chunk_tokens: int, chunk_overlap: int) -> EmbeddingService:
        """Return a service over the same engine that chunks differently. Raises Misconfigured."""
        tokenizer = self._lanes.engines[0]
        return EmbeddingService(self._lanes, self._description, _chunker(tokenizer, chunk_tokens, chunk_overlap))

    async def close(self) -> None:
        """Finish the running computations, refuse the waiting texts, and stop. A second call has no effect."""
        await self._lanes.documents.close()
        await self._lanes.queries.close()
        for engine in self._lanes.engines:
            engine.close()


async def open_embedding(settings: EmbeddingSettings, cache: Path, progress: Callable[[str], None]) -> EmbeddingService:
    """Open the model of the settings, exporting it into the cache folder the first time (about half a minute).

    Raises Misconfigured for a model that cannot be used with these settings, EmbeddingUnavailable if it cannot be
    fetched or exported.
    """
    engine = await open_engine(settings, cache, progress)
    try:
        queries = await asyncio.to_thread(engine.lane)
        return serve(engine, queries, settings)
    except BaseException:
        engine.close()
        raise


def serve(documents: Engine, queries: Engine, settings: EmbeddingSettings) -> EmbeddingService:
    """Return a service over two engines of one model. Raises Misconfigured if the chunking does not fit the model."""
    chunker = _chunker(documents, settings.chunk_tokens, settings.chunk_overlap)
    window = _chunker(queries, 0, 0)
    lanes = _Lanes(
        DocumentLane(documents, settings.batch_size, settings.queue_limit, settings.timeout_s),
        QueryLane(
            lambda text: _query_vector(queries, window, text),
            min(settings.cores(), _QUERY_THREADS),
            settings.queue_limit,
            settings.timeout_s,
        ),
        (documents, queries),
    )
    return EmbeddingService(lanes, documents.description, chunker)


def _chunker(engine: Engine, chunk_tokens: int, chunk_overlap: int) -> Chunker:
    described, tokenizer = engine.description, engine.tokenizer
    limit = described.window - tokenizer.num_special_tokens_to_add(False)
    prompts = [prompt for prompt in (described.query_prompt, described.document_prompt) if prompt]
    if prompts:
        limit -= _PROMPT_SLACK + max(len(tokenizer.encode(prompt, add_special_tokens=False)) for prompt in prompts)
    return Chunker(tokenizer, min(chunk_tokens, limit) if chunk_tokens else limit, chunk_overlap)


def _query_vector(engine: Engine, window: Chunker, text: str) -> bytes:
    prompt = engine.description.query_prompt
    vectors = engine.embed([prompt + chunk for chunk in window.chunks(text)])
    mean = np.asarray(vectors.mean(axis=0, keepdims=True), dtype=np.float32)
    return to_bytes(normalised(mean, engine.identity.dimension) if len(vectors) > 1 else vectors)[0]
