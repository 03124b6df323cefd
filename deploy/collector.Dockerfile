# The collector has no shell and no HTTP client; busybox lets its container be asked whether it is healthy.
FROM busybox:1.37-musl AS busybox
FROM otel/opentelemetry-collector-contrib:0.139.0
COPY --from=busybox /bin/busybox /busybox
COPY collector.yaml /etc/otelcol-contrib/config.yaml
