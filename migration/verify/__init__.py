"""Verification: proves that Qdrant holds what the legacy table holds, range by range, and tells what it does not.

`run.verify` is one round; everything else here serves it. Stores are read only, except for refresh entries in the log.
"""
