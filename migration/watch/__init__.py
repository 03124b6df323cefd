"""What a running worker watches: databases, tables, topics, points, connectors. Each quarantines what is wrong."""
