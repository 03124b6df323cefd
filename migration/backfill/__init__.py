"""The backfill: copies a table into Qdrant by key ranges, in any number of attempts, concurrently with live writes."""
