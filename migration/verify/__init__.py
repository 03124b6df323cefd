"""Verification: proves range by range that Qdrant holds what the legacy table holds, and reports the differences.

`run.verify` is one round; everything else here serves it. Stores are only read, except for refresh entries in the log.
"""
