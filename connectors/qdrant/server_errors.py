"""How errors of qdrant-client (gRPC, REST, its local mode) become errors of the ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from connectors.errors import CrossfadeError, Misconfigured, Refused, StoreUnavailable, TransientError

GRPC_CODES: Final[dict[grpc.StatusCode, type[CrossfadeError]]] = {
    grpc.StatusCode.UNAVAILABLE: StoreUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: StoreUnavailable,
    grpc.StatusCode.CANCELLED: TransientError,
    grpc.StatusCode.UNKNOWN: TransientError,
    grpc.StatusCode.INTERNAL: TransientError,
    grpc.StatusCode.ABORTED: TransientError,
    grpc.StatusCode.DATA_LOSS: TransientError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TransientError,
    grpc.StatusCode.NOT_FOUND: Misconfigured,
    grpc.StatusCode.UNAUTHENTICATED: Misconfigured,
    grpc.StatusCode.PERMISSION_DENIED: Misconfigured,
    grpc.StatusCode.UNIMPLEMENTED: Misconfigured,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
}
HTTP_CODES: Final[dict[int, type[CrossfadeError]]] = {
    401: Misconfigured,
    403: Misconfigured,
    404: Misconfigured,
    405: Misconfigured,
    408: StoreUnavailable,
    429: TransientError,
    502: StoreUnavailable,
    503: StoreUnavailable,
    504: StoreUnavailable,
}
_MESSAGE_LENGTH = 500


def driver_error(error: Exception, doing: str) -> CrossfadeError | None:
    """Return the port's error for one of the driver's, None for one that is not the driver's."""
    kind, text = _kind_and_text(error)
    return None if kind is None else kind(f"Qdrant, {doing}: {text[:_MESSAGE_LENGTH]}")


def _kind_and_text(error: Exception) -> tuple[type[CrossfadeError] | None, str]:
    kind: type[CrossfadeError] | None = None
    text = str(error) or type(error).__name__
    if isinstance(error, grpc.aio.AioRpcError):
        kind, text = GRPC_CODES.get(error.code(), TransientError), f"{error.code().name}: {error.details()}"
    elif isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        kind = HTTP_CODES.get(status, Refused if 400 <= status < 500 else TransientError)
        text = f"HTTP {status}: {error.content.decode(errors='replace')}"
    elif isinstance(error, ResponseHandlingException):
        source = error.source
        kind = StoreUnavailable if isinstance(source, httpx.TransportError | OSError) else TransientError
        text = f"{type(source).__name__}: {source}"
    elif isinstance(error, QdrantException | ApiException | AssertionError):
        kind = TransientError
    elif isinstance(error, OSError | TimeoutError | RuntimeError):  # RuntimeError: the client was closed
        kind = StoreUnavailable
    elif isinstance(error, ValueError):  # local mode, and checks of the client before it sends
        kind = Misconfigured if "not found" in text else Refused
    return kind, text


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Let no error of the driver out."""
    try:
        yield
    except CrossfadeError:
        raise
    except Exception as error:
        known = driver_error(error, doing)
        if known is None:
            raise
        raise known from error
