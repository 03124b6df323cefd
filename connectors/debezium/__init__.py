"""Debezium: the changes that it sends, its configuration, and its model of the tables."""
