"""Kafka outside of Faust: publishing, provisioning, and small readers for commands and tests. Contains no agents."""
