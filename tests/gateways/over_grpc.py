"""The gRPC services of a Qdrant server that the adapter calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc as rpc  # type: ignore[import-untyped]  # grpcio ships no types
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.grpc.qdrant_pb2_grpc import QdrantServicer, add_QdrantServicer_to_server

from tests.gateways.older_server import VERSION, OlderServer


@asynccontextmanager
async def grpc_gateway() -> AsyncIterator[int]:
    """Serve an empty store on 127.0.0.1; yield the port."""
    store = OlderServer()
    server = rpc.aio.server()
    add_QdrantServicer_to_server(_Root(), server)  # type: ignore[no-untyped-call]  # generated
    add_CollectionsServicer_to_server(_Collections(store), server)  # type: ignore[no-untyped-call]  # generated
    add_PointsServicer_to_server(_Points(store), server)  # type: ignore[no-untyped-call]  # generated
    port: int = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
        await store.client.close()


def _answered(call: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """Report errors of local mode to the caller as a server does: by status and details."""

    async def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return await call(self, request)
        except ValueError as error:
            missing = "not found" in str(error)
            code = rpc.StatusCode.NOT_FOUND if missing else rpc.StatusCode.INVALID_ARGUMENT
            await context.abort(code, str(error))

    return answer


class _Root(QdrantServicer):
    @_answered
    async def HealthCheck(self, _: grpc.HealthCheckRequest) -> grpc.HealthCheckReply:
        return grpc.HealthCheckReply(title="gateway", version=VERSION)


class _Collections(CollectionsServicer):
    def __init__(self, store: OlderServer) -> None:
        self._store, self._client = store, store.client

    @_answered
    async def CollectionExists(self, request: grpc.CollectionExistsRequest) -> grpc.CollectionExistsResponse:
        exists = await self._client.collection_exists(request.collection_name)
        return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=exists))

    @_answered
    async def Create(self, request: grpc.CreateCollection) -> grpc.CollectionOperationResponse:
        vectors = GrpcToRest.convert_vectors_config(request.vectors_config)
        done = await self._client.create_collection(request.collection_name, vectors)
        return grpc.CollectionOperationResponse(result=done)

    @_answered
    async def Delete(self, request: grpc.DeleteCollection) -> grpc.CollectionOperationResponse:
        return grpc.CollectionOperationResponse(result=await self._client.delete_collection(request.collection_name))

    @_answered
    async def Get(self, request: grpc.GetCollectionInfoRequest) -> grpc.GetCollectionInfoResponse:
        found = RestToGrpc.convert_collection_info(await self._store.collection(request.collection_name))
        return grpc.GetCollectionInfoResponse(result=found)

    @_answered
    async def Update(self, request: grpc.UpdateCollection) -> grpc.CollectionOperationResponse:
        await self._store.index_from(request.collection_name, request.optimizers_config.indexing_threshold)
        return grpc.CollectionOperationResponse(result=True)


class _Points(PointsServicer):
    def __init__(self, store: OlderServer) -> None:
        self._store, self._client = store, store.client

    @_answered
    async def CreateFieldIndex(self, request: grpc.CreateFieldIndexCollection) -> grpc.PointsOperationResponse:
        await self._client.get_collection(request.collection_name)  # local mode has no index
        return _response(grpc.UpdateResult(status=grpc.UpdateStatus.Completed))

    @_answered
    async def Upsert(self, request: grpc.UpsertPoints) -> grpc.PointsOperationResponse:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        only = GrpcToRest.convert_filter(request.update_filter) if request.HasField("update_filter") else None
        result = await self._store.upsert(request.collection_name, points, only)
        return _response(RestToGrpc.convert_update_result(result))

    @_answered
    async def UpdateBatch(self, request: grpc.UpdateBatchPoints) -> grpc.UpdateBatchResponse:
        operations = [GrpcToRest.convert_points_update_operation(one) for one in request.operations]
        results = await self._store.update(request.collection_name, operations)
        return grpc.UpdateBatchResponse(result=[RestToGrpc.convert_update_result(result) for result in results])

    @_answered
    async def Get(self, request: grpc.GetPoints) -> grpc.GetResponse:
        records = await self._client.retrieve(
            request.collection_name,
            [GrpcToRest.convert_point_id(one) for one in request.ids],
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return grpc.GetResponse(result=[_retrieved(record) for record in records])

    @_answered
    async def Scroll(self, request: grpc.ScrollPoints) -> grpc.ScrollResponse:
        records, following = await self._client.scroll(
            request.collection_name,
            GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
            request.limit,
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return grpc.ScrollResponse(
            result=[_retrieved(record) for record in records],
            next_page_offset=None if following is None else RestToGrpc.convert_extended_point_id(following),
        )

    @_answered
    async def Query(self, request: grpc.QueryPoints) -> grpc.QueryResponse:
        answer = await self._client.query_points(
            request.collection_name,
            GrpcToRest.convert_query(request.query),
            using=request.using,
            query_filter=GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
            limit=request.limit,
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
        )
        return grpc.QueryResponse(result=[_scored(point) for point in answer.points])

    @_answered
    async def Count(self, request: grpc.CountPoints) -> grpc.CountResponse:
        only = GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None
        counted = await self._client.count(request.collection_name, only)
        return grpc.CountResponse(result=grpc.CountResult(count=counted.count))


def _retrieved(record: models.Record) -> grpc.RetrievedPoint:
    return RestToGrpc.convert_record(record.model_copy(update={"payload": record.payload or {}}))


def _scored(point: models.ScoredPoint) -> grpc.ScoredPoint:
    return RestToGrpc.convert_scored_point(point.model_copy(update={"payload": point.payload or {}}))


def _response(result: grpc.UpdateResult) -> grpc.PointsOperationResponse:
    return grpc.PointsOperationResponse(result=result)
