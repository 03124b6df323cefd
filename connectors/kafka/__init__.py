"""Kafka outside Faust: publishing, provisioning, and small readers for commands and tests. No agent lives here."""
