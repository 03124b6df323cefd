"""Capture of one collection: its connectors, how far they are, the barrier behind them, and capturing again."""
