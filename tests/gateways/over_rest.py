"""The parts of a Qdrant server's REST interface that the adapter calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter
from qdrant_client import models

from tests.gateways.older_server import VERSION, OlderServer, as_qdrant_reads

_Call = Callable[[str, bytes], Awaitable[Any]]


@asynccontextmanager
async def rest_gateway() -> AsyncIterator[int]:
    """Serve an empty store on 127.0.0.1; yield the port."""
    store = OlderServer()
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app.add_routes(_routes(_Rest(store)))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
        await store.client.close()


def read(body: bytes) -> Any:
    """Return the body of a request as Qdrant's JSON reader reads it."""
    return json.loads(body, parse_float=as_qdrant_reads)


class _Rest:
    """The requests about a collection, each with its name and the body of the request."""

    def __init__(self, store: OlderServer) -> None:
        self._store, self._client = store, store.client

    async def exists(self, name: str, _: bytes) -> models.CollectionExistence:
        return models.CollectionExistence(exists=await self._client.collection_exists(name))

    async def create(self, name: str, body: bytes) -> bool:
        return await self._client.create_collection(name, models.CreateCollection.model_validate(read(body)).vectors)

    async def delete(self, name: str, _: bytes) -> bool:
        return await self._client.delete_collection(name)

    async def collection(self, name: str, _: bytes) -> models.CollectionInfo:
        return await self._store.collection(name)

    async def change(self, name: str, body: bytes) -> bool:
        wanted = models.UpdateCollection.model_validate(read(body)).optimizers_config
        await self._store.index_from(name, wanted.indexing_threshold if wanted else None)
        return True

    async def index(self, name: str, body: bytes) -> models.UpdateResult:
        models.CreateFieldIndex.model_validate(read(body))
        await self._client.get_collection(name)  # local mode has no index
        return models.UpdateResult(status=models.UpdateStatus.COMPLETED)

    async def upsert(self, name: str, body: bytes) -> models.UpdateResult:
        wanted = models.PointsList.model_validate(read(body))
        return await self._store.upsert(name, wanted.points, wanted.update_filter)

    async def update(self, name: str, body: bytes) -> list[models.UpdateResult]:
        return await self._store.update(name, models.UpdateOperations.model_validate(read(body)).operations)

    async def points(self, name: str, body: bytes) -> list[models.Record]:
        asked = models.PointRequest.model_validate(read(body))
        with_payload, with_vectors = asked.with_payload or False, asked.with_vector or False
        return await self._client.retrieve(name, asked.ids, with_payload=with_payload, with_vectors=with_vectors)

    async def scroll(self, name: str, body: bytes) -> models.ScrollResult:
        asked = models.ScrollRequest.model_validate(read(body))
        found, following = await self._client.scroll(
            name,
            asked.filter,
            asked.limit or 10,
            offset=asked.offset,
            with_payload=asked.with_payload or False,
            with_vectors=asked.with_vector or False,
        )
        return models.ScrollResult(points=found, next_page_offset=following)

    async def query(self, name: str, body: bytes) -> models.QueryResponse:
        asked = models.QueryRequest.model_validate(read(body))
        return await self._client.query_points(
            name,
            asked.query,
            using=asked.using,
            query_filter=asked.filter,
            limit=asked.limit or 10,
            with_payload=asked.with_payload or False,
        )

    async def count(self, name: str, body: bytes) -> models.CountResult:
        return await self._client.count(name, models.CountRequest.model_validate(read(body)).filter)


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"title": "gateway", "version": VERSION})


def _routes(rest: _Rest) -> list[web.RouteDef]:
    at = "/collections/{name}"
    return [
        web.get("/", _version),
        web.get(at + "/exists", _answered(rest.exists)),
        web.put(at, _answered(rest.create)),
        web.get(at, _answered(rest.collection)),
        web.delete(at, _answered(rest.delete)),
        web.patch(at, _answered(rest.change)),
        web.put(at + "/index", _answered(rest.index)),
        web.put(at + "/points", _answered(rest.upsert)),
        web.post(at + "/points/batch", _answered(rest.update)),
        web.post(at + "/points", _answered(rest.points)),
        web.post(at + "/points/scroll", _answered(rest.scroll)),
        web.post(at + "/points/query", _answered(rest.query)),
        web.post(at + "/points/count", _answered(rest.count)),
    ]


def _answered(call: _Call) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Wrap the result as a server does, and report errors of local mode by a status."""

    async def answer(request: web.Request) -> web.Response:
        try:
            result = await call(request.match_info["name"], await request.read())
        except ValueError as error:
            status = 404 if "not found" in str(error) else 400
            return web.json_response({"status": {"error": str(error)}, "time": 0}, status=status)
        body = TypeAdapter(dict[str, Any]).dump_json({"result": result, "status": "ok", "time": 0})
        return web.Response(body=body, content_type="application/json")

    return answer
