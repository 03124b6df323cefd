"""A receiver of OTLP traces over HTTP on loopback. It keeps the spans by trace."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | int | float | bool


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived. Ids are in hex, and `parent` is empty for the root of a trace."""

    name: str
    span_id: str
    parent: str
    kind: str
    attributes: dict[str, Value]
    raw: str


class SpanReceiver:
    """The spans that arrived. They can be read from another thread than the one that receives them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traces: dict[str, list[ReceivedSpan]] = {}
        self.endpoint = ""

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        with self._lock:
            return list(self._traces.get(trace_id, ()))

    def take(self, body: bytes) -> None:
        """Keep the spans of one export request."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._traces.setdefault(span.trace_id.hex(), []).append(_span(span))


@contextmanager
def span_receiver() -> Iterator[SpanReceiver]:
    """Serve on a free loopback port."""
    receiver = SpanReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Log nothing: the tests' output is not an access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="spans")
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _span(span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.span_id.hex(),
        span.parent_span_id.hex(),
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        {pair.key: _value(pair.value) for pair in span.attributes},
        str(span),
    )


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    assert kind in {"string_value", "int_value", "double_value", "bool_value"}, kind
    found: Value = getattr(value, kind)
    return found
