"""Requests of the server adapter: conditional upserts, filters, index types. Nothing is sent from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qdrant_client import models

from connectors.batching import slices
from connectors.qdrant.floats import bounds
from connectors.qdrant.points import (
    EXACT_FLOAT,
    OVERSAMPLING,
    VECTOR,
    IndexKind,
    floats,
    metadata_path,
    payload_characters,
    payload_of,
)
from connectors.vector_ports import Storage
from domain.points import DocumentPoints
from schemas.content import Scalar
from schemas.keys import point_id

REQUEST_BYTES = 8 * 1024 * 1024
OPERATIONS_A_REQUEST = 512
_DELETED = models.FieldCondition(key="deleted", match=models.MatchValue(value=True))
# The filter does not test for a vector: if an upsert names none, servers before July 2026 leave a point of an indexed
# segment its old vector (https://github.com/qdrant/qdrant/pull/9734).
LIVE = models.Filter(must_not=[_DELETED])
RESCORED = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
INDEX_TYPES: dict[IndexKind, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
}


def operations_of(collection: str, documents: Sequence[DocumentPoints]) -> list[models.UpdateOperation]:
    """Return the operations that write documents: the upsert of each, then the removal of vectors of tombstones.

    The removal has no version condition: the removed vectors belong to no live point, whichever version wrote last.
    """
    operations: list[models.UpdateOperation] = [upsert_of(collection, document) for document in documents]
    ids: list[models.ExtendedPointId] = [
        point_id(collection, document.id, number) for document in documents for number in document.tombstones
    ]
    if ids:
        gone = models.Filter(must=[models.HasIdCondition(has_id=ids), _DELETED])
        outlived = models.DeleteVectors(filter=gone, vector=[VECTOR])
        operations.append(models.DeleteVectorsOperation(delete_vectors=outlived))
    return operations


def upsert_of(collection: str, document: DocumentPoints) -> models.UpsertOperation:
    """Return the single operation of a document: live chunks and tombstones, if the stored version is lower."""
    points = [
        models.PointStruct(
            id=point_id(collection, document.id, number),
            vector={VECTOR: floats(document.chunks[number].vector)} if number < len(document.chunks) else {},
            payload=payload_of(document, number),
        )
        for number in (*range(len(document.chunks)), *document.tombstones)
    ]
    # `must_not` with "at least", not `must` with "below": a point without a version must not block the write.
    at_least = models.FieldCondition(key="version", range=models.Range(gte=float(document.version)))
    return models.UpsertOperation(
        upsert=models.PointsList(points=points, update_filter=models.Filter(must_not=[at_least]))
    )


def forgotten(document_id: str, ids: Sequence[models.ExtendedPointId], above: int) -> models.Filter:
    """Return a filter for the points that `VectorStore.forget` removes."""
    own = models.HasIdCondition(has_id=list(ids))
    beyond = models.FieldCondition(key="version", range=models.Range(gt=float(above)))
    named = models.FieldCondition(key="document_id", match=models.MatchValue(value=document_id))
    return models.Filter(should=[models.Filter(must=[own, beyond]), models.Filter(must=[named], must_not=[own])])


def filter_of(tenant: str, wanted: Mapping[str, Scalar]) -> models.Filter:
    """Return the filter of a search: live points of the tenant, equality with metadata (null: null or absent).

    For a number, the filter only narrows the points to those with close values, because Qdrant may read the number
    differently. The caller compares the values.
    """
    must: list[models.Condition] = [models.FieldCondition(key="tenant", match=models.MatchValue(value=tenant))]
    for name, value in wanted.items():
        path = metadata_path(name)
        if value is None:
            must.append(models.IsEmptyCondition(is_empty=models.PayloadField(key=path)))
        elif isinstance(value, str | bool) or (isinstance(value, int) and abs(value) > EXACT_FLOAT):
            must.append(models.FieldCondition(key=path, match=models.MatchValue(value=value)))
        else:
            least, most = bounds(float(value))
            must.append(models.FieldCondition(key=path, range=models.Range(gte=least, lte=most)))
    return models.Filter(must=must, must_not=LIVE.must_not)


def quantization_of(storage: Storage) -> models.QuantizationConfig | None:
    """Return the quantization configuration.

    The quantized vectors, which a search compares first, stay in memory. The originals decide, wherever they are kept.
    """
    match storage.quantization:
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case "product":
            product = models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
            return models.ProductQuantization(product=product)
        case "none":
            return None


def parts_of(documents: Sequence[DocumentPoints]) -> list[list[DocumentPoints]]:
    """Return the documents that have points, in groups that fit into one request each."""
    some = [one for one in documents if one.chunks or one.tombstones]
    # A float32 takes about 22 bytes in JSON.
    sizes = (1024 + sum(6 * len(c.vector) for c in one.chunks) + 3 * payload_characters(one) for one in some)
    return slices(some, sizes, REQUEST_BYTES, OPERATIONS_A_REQUEST)
