"""The local stack: Kafka, Kafka Connect with Debezium, PostgreSQL, MariaDB, Qdrant's engine, as plain processes."""
