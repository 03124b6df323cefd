"""Debezium: the changes that it sends, its configuration, and what it knows of the tables."""
