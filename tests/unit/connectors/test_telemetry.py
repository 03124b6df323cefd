"""Durations are counted in buckets of seconds, so that quantiles can be read from them."""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from connectors import telemetry


def test_answers_of_different_speed_are_in_different_buckets() -> None:
    reader = InMemoryMetricReader()
    histogram = telemetry._seconds(MeterProvider([reader]).get_meter("test"), "crossfade.query.duration", "")
    for seconds in (0.02, 0.06, 0.2, 0.6):
        histogram.record(seconds)
    data = reader.get_metrics_data()
    assert data is not None
    (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert max(point.bucket_counts) == 1
