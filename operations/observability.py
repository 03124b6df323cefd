"""Sets up the OpenTelemetry SDK of a process from the standard environment variables. A command calls it once.

Traces are exported when OTEL_EXPORTER_OTLP_ENDPOINT (or its traces variant) is set and OTEL_TRACES_EXPORTER is not
`none`. Metrics are always on the worker's Prometheus page. They are exported by OTLP under the same rule.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Thread

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from connectors.telemetry import Telemetry

_FLUSH_S = 3.0


def exports(environ: Mapping[str, str], signal: str) -> bool:
    """Return whether a signal (TRACES, METRICS) is to be exported by OTLP."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    return bool(environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def set_up(environ: Mapping[str, str]) -> Telemetry:
    """Install the providers of this process and return the agents' telemetry."""
    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME", "crossfade")})
    readers: list[MetricReader] = [PrometheusMetricReader()]
    if exports(environ, "METRICS"):
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    # `shut_down` flushes the last telemetry. The SDK's own flush at exit waits for a collector without a time limit.
    metrics.set_meter_provider(MeterProvider(readers, resource=resource, shutdown_on_exit=False))
    tracing = exports(environ, "TRACES")
    if tracing:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    return Telemetry(tracing=tracing)


def shut_down() -> None:
    """Export what is left, for up to three seconds, so that a collector that does not answer cannot delay the stop."""
    ending = [
        Thread(target=provider.shutdown, daemon=True)
        for provider in (trace.get_tracer_provider(), metrics.get_meter_provider())
        if isinstance(provider, TracerProvider | MeterProvider)
    ]
    for each in ending:
        each.start()
    deadline = time.monotonic() + _FLUSH_S
    for each in ending:
        each.join(max(0.0, deadline - time.monotonic()))
