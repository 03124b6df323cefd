"""Fixtures of the contract of the port `VectorStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from connectors.qdrant import server
from connectors.vector_ports import VectorStore
from tests.contract.vector_stores import DIMENSION, KINDS, SERVERS, opened


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VectorStore]:
    """Each adapter of the port `VectorStore`."""
    if request.param not in SERVERS:  # a server starts to index some time after the call
        monkeypatch.setattr(server, "INDEXING_POLL_S", 0.01)
    async with opened(request.param) as opened_store:
        yield opened_store


@pytest.fixture
async def name(store: VectorStore) -> str:
    """A collection of its own in the store."""
    collection = f"c{uuid4().hex[:12]}"
    await store.prepare(collection, DIMENSION)
    return collection
