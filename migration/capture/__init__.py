"""Capture of one collection: its connectors, their replication positions, the barrier behind them, and recapture."""
