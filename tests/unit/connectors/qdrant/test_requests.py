"""What the server adapter sends, also after the client's conversion to gRPC, and how it reads the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient, grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload, payload_to_grpc
from qdrant_client.grpc import UpsertPoints

from connectors.errors import Misconfigured, TransientError
from connectors.qdrant.engine.client import _parts as client_parts
from connectors.qdrant.engine.files import socket_path
from connectors.qdrant.engine.store import optimising_is_due
from connectors.qdrant.insertions import insertion
from connectors.qdrant.pages import received
from connectors.qdrant.points import Found, batch_of, best_hits, search_documents
from connectors.qdrant.requests import filter_of, operations_of, parts_of, upsert_of
from connectors.qdrant.server import ServerVectorStore, check_results, check_version
from domain.points import DocumentPoints, chunks_of
from schemas.content import Scalar
from schemas.keys import point_id
from schemas.values import Kind
from tests.contract.vector_stores import document, question, vector
from tests.gateways.older_server import OlderServer

TOP = 2**53 - 1


def test_an_upsert_keeps_condition_and_empty_vectors_in_json() -> None:
    sent = upsert_of("c", document("a", TOP, [(1, 0, 0, 0)], [1])).model_dump(exclude_none=True)["upsert"]
    assert sent["update_filter"] == {"must_not": [{"key": "version", "range": {"gte": float(TOP)}}]}
    live, gone = sent["points"]
    assert live["vector"] == {"dense": [1.0, 0.0, 0.0, 0.0]}
    assert gone["vector"] == {}
    assert (gone["payload"]["deleted"], gone["payload"]["text"], gone["payload"]["metadata"]) == (True, "", {})
    assert set(live["payload"]) == {
        "document_id", "tenant", "chunk", "version", "content_hash", "deleted", "text", "metadata", "model",
        "checksum", "vector_checksum",
    }  # fmt: skip


def test_an_upsert_keeps_condition_and_empty_vectors_over_grpc() -> None:
    operation = upsert_of("c", document("a", TOP, [(1, 0, 0, 0)], [1], metadata={"f": 1.0, "i": 1, "n": None}))
    sent = RestToGrpc.convert_update_operation(operation).upsert
    (condition,) = sent.update_filter.must_not
    assert condition.field.key == "version"
    assert condition.field.range.gte == float(TOP)
    assert condition.field.range.HasField("gte")
    assert not condition.field.range.HasField("lt")
    live, gone = sent.points
    assert list(live.vectors.vectors.vectors["dense"].dense.data) == [1, 0, 0, 0]
    assert gone.vectors.WhichOneof("vectors_options") == "vectors"
    assert len(gone.vectors.vectors.vectors) == 0
    assert gone.payload["version"].integer_value == TOP
    assert gone.payload["deleted"].bool_value is True
    fields = live.payload["metadata"].struct_value.fields
    assert (fields["f"].WhichOneof("kind"), fields["i"].WhichOneof("kind")) == ("double_value", "integer_value")
    assert fields["n"].WhichOneof("kind") == "null_value"


async def test_a_tombstone_keeps_no_vector_on_a_server_that_leaves_it_there() -> None:
    upsert, removal = operations_of("c", [document("a", 2, [(1, 0, 0, 0)], [1, 2])])
    assert upsert == upsert_of("c", document("a", 2, [(1, 0, 0, 0)], [1, 2]))
    sent = RestToGrpc.convert_update_operation(removal).delete_vectors
    assert list(sent.vectors.names) == ["dense"]
    ids, deleted = sent.points_selector.filter.must
    assert [one.uuid for one in ids.has_id.has_id] == [point_id("c", "a", 1), point_id("c", "a", 2)]
    assert (deleted.field.key, deleted.field.match.boolean) == ("deleted", True)
    assert len(operations_of("c", [document("a", 2, [(1, 0, 0, 0)])])) == 1

    several = [document("a", 2, [], [0]), document("b", 2, [(1, 0, 0, 0)]), document("c", 2, [], [0])]
    *upserts, removal = operations_of("c", several)
    assert upserts == [upsert_of("c", one) for one in several]
    ids, _ = RestToGrpc.convert_update_operation(removal).delete_vectors.points_selector.filter.must
    assert [one.uuid for one in ids.has_id.has_id] == [point_id("c", "a", 0), point_id("c", "c", 0)]

    behind = OlderServer()
    store = ServerVectorStore(behind.client, local=True)
    await store.prepare("c", 4)
    await store.write("c", [document("a", 1, [(1, 0, 0, 0), (0, 1, 0, 0)])])
    gone = document("a", 2, [(1, 0, 0, 0)], [1])

    async def vectors() -> list[object]:
        ids = [point_id("c", "a", n) for n in (0, 1)]
        return [record.vector for record in await behind.client.retrieve("c", ids, with_vectors=True)]

    await behind.update("c", [upsert_of("c", gone)])
    assert await vectors() == [{"dense": [1, 0, 0, 0]}, {"dense": [0, 1, 0, 0]}]
    assert [hit.chunk for hit in await store.search("c", question(0, 1, 0, 0))] == [0]
    await behind.update("c", operations_of("c", [gone]))
    assert await vectors() == [{"dense": [1, 0, 0, 0]}, {}]


def test_an_insertion_over_grpc_carries_the_bytes_of_its_vectors_and_touches_no_point_that_is_there() -> None:
    values = [0.1, -2.5e-38, 3e38, 0.0] * 96
    batch = batch_of("c", [document("a", 0, [values], metadata={"f": 1.0, "i": 1, "n": None, "b": True})])
    sent = UpsertPoints.FromString(insertion("c", batch, 7).SerializeToString())
    assert (sent.collection_name, sent.wait, sent.timeout) == ("c", True, 7)
    (point,) = sent.points
    assert point.id.uuid == point_id("c", "a", 0)
    assert np.asarray(point.vectors.vectors.vectors["dense"].dense.data, "<f4").tobytes() == vector(*values)
    assert grpc_to_payload(point.payload) == batch.payloads[0]
    assert sent.update_mode == grpc.UpdateMode.InsertOnly
    (condition,) = sent.update_filter.must
    assert condition.WhichOneof("condition_one_of") == "has_id"
    assert len(condition.has_id.has_id) == 0


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()


@given(
    st.lists(st.tuples(st.text(), st.integers(0, TOP), st.text(), st.dictionaries(st.text(), SCALARS)), max_size=3),
    st.integers(1, 5000),
)
def test_an_insertion_put_together_as_bytes_is_what_the_library_makes(
    documents: list[tuple[str, int, str, dict[str, Scalar]]], dimension: int
) -> None:
    some = [
        DocumentPoints(name, version, tenant, None, "m", metadata, chunks_of([name], [bytes(4 * dimension)]), ())
        for name, version, tenant, metadata in documents
    ]
    batch = batch_of("c", some)
    for name, payload in zip(batch.names, batch.payloads, strict=True):
        payload["text"] = name * 700
    made = [
        grpc.PointStruct(
            id=grpc.PointId(uuid=name),
            payload=payload_to_grpc(payload),
            vectors=RestToGrpc.convert_vector_struct({"dense": [0.0] * dimension}),
        )
        for name, payload in zip(batch.names, batch.payloads, strict=True)
    ]
    assert list(insertion("c", batch, 7).points) == made


def test_a_search_is_always_limited_to_live_points_of_its_tenant_over_grpc_too() -> None:
    sent = RestToGrpc.convert_filter(filter_of("one", {"a": True, "b": 2, "c": None}))
    tenant, flag, number, null = sent.must
    (deleted,) = sent.must_not
    assert (deleted.field.key, deleted.field.match.boolean) == ("deleted", True)
    assert (tenant.field.key, tenant.field.match.keyword) == ("tenant", "one")
    assert (flag.field.key, flag.field.match.boolean) == ('metadata."a"', True)
    assert 1.999999 < number.field.range.gte < 2.0 < number.field.range.lte < 2.000001
    assert null.is_empty.key == 'metadata."c"'


def test_a_point_is_read_over_grpc_as_the_client_reads_it() -> None:
    vectors = {
        "dense": grpc.VectorOutput(dense=grpc.DenseVector(data=[0.1, -1])),
        "older": grpc.VectorOutput(data=[0.1, -1]),
        "sparse": grpc.VectorOutput(sparse=grpc.SparseVector(values=[1], indices=[7])),
    }
    payload = payload_to_grpc({"a": None, "b": True, "c": {"d": [1, 2.5, "x"]}})
    for identity in (grpc.PointId(num=3), grpc.PointId(uuid=point_id("c", "a", 0))):
        point = grpc.RetrievedPoint(
            id=identity,
            payload=payload,
            vectors=grpc.VectorsOutput(vectors=grpc.NamedVectorsOutput(vectors=vectors)),
        )
        found, record = received(point), GrpcToRest.convert_retrieved_point(point)
        assert (found.id, found.payload) == (record.id, record.payload)
        assert found.vector == {"dense": vector(0.1, -1), "older": vector(0.1, -1)}
    assert received(grpc.RetrievedPoint(id=identity)).vector == {}


@pytest.mark.parametrize("status", [models.UpdateStatus.ACKNOWLEDGED, models.UpdateStatus.WAIT_TIMEOUT])
def test_a_write_that_is_not_completed_is_not_done(status: models.UpdateStatus) -> None:
    done = models.UpdateResult(status=models.UpdateStatus.COMPLETED)
    check_results([done, done], 2)
    with pytest.raises(TransientError, match=f"1 of 2 .*{status.value}"):
        check_results([done, models.UpdateResult(status=status)], 2)
    with pytest.raises(TransientError):
        check_results([done], 2)


def test_a_server_that_ignores_conditions_is_refused() -> None:
    for version in ("1.16.0", "v1.18.3", "2.0.1", "1.17.0-dev"):
        check_version(version)
    for version in ("1.15.5", "v1.9.0", "0.11.0"):
        with pytest.raises(Misconfigured, match=r"1\.16"):
            check_version(version)


class Recording(AsyncQdrantClient):
    """The local mode, which reports that it is a server and keeps the indexes that were requested."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.asked: list[tuple[str, str, bool]] = []

    async def info(self) -> models.VersionInfo:
        return models.VersionInfo(title="qdrant", version="1.18.3")

    async def create_payload_index(self, *arguments: Any, **options: Any) -> models.UpdateResult:
        _, field, kind = arguments
        self.asked.append((field, kind.value, options["wait"]))
        return models.UpdateResult(status=models.UpdateStatus.ACKNOWLEDGED)


async def test_a_server_is_asked_for_the_indexes_of_every_column_at_each_start() -> None:
    client = Recording()
    store = ServerVectorStore(client)
    await store.prepare("c", 4)
    ours = [("document_id", "keyword", True), ("tenant", "keyword", True), ("version", "integer", True)]
    assert client.asked == [*ours, ("deleted", "bool", True)]
    client.asked.clear()
    await store.prepare("c", 4, {"year": Kind.INTEGER, "a$b": Kind.UUID, "open": Kind.BOOLEAN, "facts": Kind.JSON})
    assert client.asked[4:] == [
        ('metadata."year"', "integer", False),
        ('metadata."a$b"', "keyword", False),
        ('metadata."open"', "bool", False),
    ]
    await store.close()


def test_requests_are_bounded_and_nothing_is_left_out() -> None:
    small = [document(f"d{i}", 1) for i in range(1200)]
    assert [len(part) for part in parts_of(small)] == [512, 512, 176]
    large = [document(f"d{i}", 1, [(float(n), 0, 0, 0) for n in range(30_000)]) for i in range(3)]
    parts = list(parts_of([*large, document("nothing", 1, [])]))
    assert [[one.id for one in part] for part in parts] == [["d0", "d1"], ["d2"]]
    assert list(parts_of([])) == []


def found(name: str, chunk: int, version: int, score: float) -> Found:
    return Found(score, {"document_id": name, "chunk": chunk, "version": version, "text": "", "metadata": {}})


def test_chunks_of_an_older_version_never_stand_for_a_document() -> None:
    hits = best_hits([found("a", 0, 1, 0.9), found("a", 1, 2, 0.5), found("b", 0, 1, 0.7), found("a", 2, 2, 0.6)])
    assert [(hit.document_id, hit.chunk, hit.version) for hit in hits] == [("b", 0, 1), ("a", 2, 2)]


async def test_a_search_asks_for_more_until_there_are_enough_documents_or_no_more_points() -> None:
    points = [found("crowd", i, 1, 1 - i / 1e4) for i in range(100)] + [found("rare", 0, 1, 0.1)]
    asked: list[int] = []

    async def ask(limit: int) -> list[Found]:
        asked.append(limit)
        return points[:limit]

    assert [hit.document_id for hit in await search_documents(ask, 2, {})] == ["crowd", "rare"]
    assert asked == [8, 32, 128]
    asked.clear()
    assert len(await search_documents(ask, 3, {})) == 2
    assert asked == [12, 48, 192]


async def test_a_search_gives_up_at_its_bound() -> None:
    async def endless(limit: int) -> list[Found]:
        return [found("one", i, 1, 0.5) for i in range(limit)]

    assert len(await search_documents(endless, 2, {})) == 1


def test_a_long_home_gets_a_short_socket_of_its_own(tmp_path: Path) -> None:
    short = socket_path(Path("/srv/crossfade"))
    assert short == Path("/srv/crossfade/qdrant.sock")
    long, other = (socket_path(tmp_path / ("h" * 120) / name) for name in ("a", "b"))
    assert len(str(long)) <= 107
    assert long != other
    assert long == socket_path(tmp_path / ("h" * 120) / "a")


def test_optimising_is_due_after_enough_writes_and_a_share_of_the_points() -> None:
    assert not optimising_is_due(19_999, 20_000)
    assert optimising_is_due(20_000, 20_000)
    assert not optimising_is_due(20_000, 100_000)
    assert optimising_is_due(25_000, 100_000)


@pytest.mark.parametrize("cut", [parts_of, client_parts])
def test_metadata_counts_for_every_chunk_where_requests_are_cut(
    cut: Callable[[Sequence[DocumentPoints]], list[list[DocumentPoints]]],
) -> None:
    chunks = chunks_of(["x"] * 100, [vector(1, 0, 0, 0)] * 100)
    long = {"note": "n" * 20_000}
    documents = [DocumentPoints(str(n), 1, "default", "h", "m", long, chunks, ()) for n in range(4)]
    assert max(map(len, cut(documents))) <= 1
    small = [DocumentPoints(str(n), 1, "default", "h", "m", {}, chunks, ()) for n in range(4)]
    assert len(cut(small)) == 1
