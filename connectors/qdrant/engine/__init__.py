"""Qdrant's embedded engine: its files, its host process, and the client of the host."""
