"""The backfill: a live table into Qdrant by key ranges, in any number of tries, beside live writes."""
