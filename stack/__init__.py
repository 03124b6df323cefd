"""The local stack: Kafka, Kafka Connect with Debezium, PostgreSQL and MariaDB as plain processes on this machine."""
