"""Arguments of calls to the embedded engine: filters, quantization, index types. The engine is not called from here."""

from __future__ import annotations

from collections.abc import Mapping

import qdrant_edge as edge

from connectors.qdrant.floats import bounds
from connectors.qdrant.points import EXACT_FLOAT, OVERSAMPLING, IndexKind, metadata_path
from connectors.vector_ports import Storage
from domain.filters import is_number
from schemas.content import Scalar

RESCORED = edge.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
Quantization = edge.ScalarQuantizationConfig | edge.BinaryQuantizationConfig | edge.ProductQuantizationConfig
INDEX_TYPES: dict[IndexKind, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}


def quantization_of(storage: Storage) -> Quantization | None:
    """Return the quantization configuration.

    The quantized vectors, which a search compares first, stay in memory. The originals decide, wherever they are kept.
    """
    match storage.quantization:
        case "scalar":
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, always_ram=True)
        case "binary":
            return edge.BinaryQuantizationConfig(always_ram=True)
        case "product":
            return edge.ProductQuantizationConfig(edge.CompressionRatio.X16, always_ram=True)
        case "none":
            return None


def filter_of(tenant: str, wanted: Mapping[str, Scalar]) -> edge.Filter:
    """Return the filter of a search: the tenant, and equality with metadata (null: null or absent).

    For a number, the filter only narrows the points to those with close values, because Qdrant may read the number
    differently. For a boolean, it only narrows them to those whose value is present and not a number, because the
    binding turns a boolean to match into a number (qdrant-edge-py 0.9.0). In both cases the caller compares the values.
    """
    must: list[edge.ConditionType] = [edge.FieldCondition("tenant", match=edge.MatchValue(tenant))]
    must_not: list[edge.ConditionType] = []
    for name, value in wanted.items():
        path = metadata_path(name)
        if value is None:
            must.append(edge.IsEmptyCondition(path))
        elif isinstance(value, bool):
            must_not.append(edge.IsEmptyCondition(path))
            every = edge.RangeFloat(gte=-1.7976931348623157e308, lte=1.7976931348623157e308)
            must_not.append(edge.FieldCondition(path, range=every))
        elif isinstance(value, str):
            must.append(edge.FieldCondition(path, match=edge.MatchValue(value)))
        elif is_number(value) and abs(value) <= EXACT_FLOAT:
            least, most = bounds(float(value))
            must.append(edge.FieldCondition(path, range=edge.RangeFloat(gte=least, lte=most)))
        elif isinstance(value, int):
            must.append(edge.FieldCondition(path, match=edge.MatchValue(value)))
        else:
            least, most = bounds(value)
            must.append(edge.FieldCondition(path, range=edge.RangeFloat(gte=least, lte=most)))
    return edge.Filter(must=must, must_not=must_not or None)
