"""Watches of a running worker: databases, tables, topics, points, connectors. Each quarantines what is wrong."""
