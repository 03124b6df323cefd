"""The mapping from errors of qdrant-client (gRPC, REST, its local mode) to errors of the ports."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from connectors.errors import (
    CollectionMissing,
    CrossfadeError,
    Misconfigured,
    Refused,
    StoreUnavailable,
    TransientError,
)

# A faulty request has its own status (INVALID_ARGUMENT, 400). A limit, a failed login and a collection whose shards
# cannot serve now are StoreUnavailable: the caller waits.
GRPC_CODES: Final[dict[grpc.StatusCode, type[CrossfadeError]]] = {
    grpc.StatusCode.UNAVAILABLE: StoreUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: StoreUnavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: StoreUnavailable,
    grpc.StatusCode.CANCELLED: StoreUnavailable,
    grpc.StatusCode.UNAUTHENTICATED: StoreUnavailable,
    grpc.StatusCode.PERMISSION_DENIED: StoreUnavailable,
    grpc.StatusCode.UNKNOWN: TransientError,
    grpc.StatusCode.INTERNAL: TransientError,
    grpc.StatusCode.ABORTED: TransientError,
    grpc.StatusCode.DATA_LOSS: TransientError,
    grpc.StatusCode.NOT_FOUND: Misconfigured,
    grpc.StatusCode.UNIMPLEMENTED: Misconfigured,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
    grpc.StatusCode.OUT_OF_RANGE: Refused,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
}
HTTP_CODES: Final[dict[int, type[CrossfadeError]]] = {
    401: StoreUnavailable,
    403: StoreUnavailable,
    404: Misconfigured,
    405: Misconfigured,
    408: StoreUnavailable,
    429: StoreUnavailable,
    502: StoreUnavailable,
    503: StoreUnavailable,
    504: StoreUnavailable,
    507: StoreUnavailable,
}
# A service error that concerns the server, not the request. Only its text shows it: Qdrant has one status for both.
_OF_THE_SERVER: Final = re.compile(
    r"replica|shard .*(unavailable|not active|not available|not found)|temporarily|consensus|leader"
    r"|no space left|out ?of ?(disk|memory)|disk|too many open files|read-?only|storage locked|write.* not allowed"
    r"|wal |channel closed|sender dropped|dropped without|poisoned|transport|connection|connect error|broken pipe"
    r"|timed? ?out|timeout|deadline|rate limit|too many requests|overload|shutting down|cancelled|not ready|recover",
    re.IGNORECASE,
)
# Recognised by its text, too: "not found" may also mean a point, or a path of another program.
_NO_COLLECTION: Final = re.compile(r"collection [^ ]+ (does ?n.t exist|not found)", re.IGNORECASE)
# A limit that this single request exceeds. Split into parts it may pass; whole, it never will.
_TOO_LARGE: Final = re.compile(
    r"larger than (max|rate limiter|capacity)|message larger|length too large", re.IGNORECASE
)
_MESSAGE_LENGTH = 500


def driver_error(error: Exception, doing: str) -> CrossfadeError | None:
    """Return the port's error for an error of the driver, or None if the error is not the driver's."""
    kind, text = _kind_and_text(error)
    if kind is None:
        return None
    message = f"Qdrant, {doing}: {text[:_MESSAGE_LENGTH]}"
    if kind is Misconfigured and _NO_COLLECTION.search(text):
        return CollectionMissing(message)
    if kind is StoreUnavailable:
        return StoreUnavailable(message, retry_after_s=_retry_after_s(error))
    return kind(message)


def _kind_and_text(error: Exception) -> tuple[type[CrossfadeError] | None, str]:
    kind: type[CrossfadeError] | None = None
    text = str(error) or type(error).__name__
    if isinstance(error, grpc.aio.AioRpcError):
        text = f"{error.code().name}: {error.details()}"
        kind = _of_status(GRPC_CODES.get(error.code(), TransientError), text, error.code() in _GRPC_STATES)
    elif isinstance(error, UnexpectedResponse):
        status = error.status_code or 0
        text = f"HTTP {status}: {error.content.decode(errors='replace')}"
        found = HTTP_CODES.get(status, Refused if 400 <= status < 500 else TransientError)
        kind = _of_status(found, text, status >= 500 or status in _HTTP_STATES)
    elif isinstance(error, ResourceExhaustedResponse) or "Retry-After" in text:  # the client accepts only seconds
        kind = Refused if _TOO_LARGE.search(text) else StoreUnavailable
    elif isinstance(error, ResponseHandlingException):
        source = error.source
        kind = StoreUnavailable if isinstance(source, httpx.TransportError | OSError) else TransientError
        text = f"{type(source).__name__}: {source}"
    elif isinstance(error, QdrantException | ApiException | AssertionError):
        kind = TransientError
    elif isinstance(error, OSError | TimeoutError | RuntimeError):  # RuntimeError: the client was closed
        kind = StoreUnavailable
    elif isinstance(error, ValueError):  # from local mode, and from the client's checks before it sends
        kind = Misconfigured if "not found" in text else Refused
    return kind, text


# Statuses that may also report the server's state: a lock on its storage, a shard that is missing now.
_GRPC_STATES: Final = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED}
    | {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DATA_LOSS}
)
_HTTP_STATES: Final = frozenset({409, 412, 423})


def _of_status(kind: type[CrossfadeError], text: str, tells_state: bool) -> type[CrossfadeError]:
    if kind is StoreUnavailable and _TOO_LARGE.search(text):
        return Refused
    return StoreUnavailable if tells_state and _OF_THE_SERVER.search(text) else kind


def _retry_after_s(error: Exception) -> float:
    """Return the seconds that the server asks clients to wait, or 0 if it names none."""
    given: object = getattr(error, "retry_after_s", None)
    if given is None and isinstance(error, UnexpectedResponse):
        given = error.headers.get("retry-after")
    if given is None and isinstance(error, grpc.aio.AioRpcError):
        sent = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
        given = next((value for key, value in sent if key.lower() == "retry-after"), None)
    try:
        seconds = float(str(given))
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise every error of the driver as an error of the ports."""
    try:
        yield
    except CrossfadeError:
        raise
    except Exception as error:
        known = driver_error(error, doing)
        if known is None:
            raise
        raise known from error
